"""How the SRN paper trains its classifiers: Sanyal et al. 2020, 5.1 and appendix D."""

from typing import NamedTuple


class Recipe(NamedTuple):
    """SGD with momentum on cross-entropy; the learning rate is multiplied by `factor` after each of the milestones.

    epochs: in all; milestones: in completed epochs.
    """

    epochs: int
    learning_rate: float
    milestones: tuple[int, ...]
    factor: float
    weight_decay: float
    momentum: float = 0.9
    batch_size: int = 128

    def learning_rate_in(self, epoch: int) -> float:
        """Of the epoch that follows `epoch` completed ones."""
        return self.learning_rate * self.factor ** sum(epoch >= milestone for milestone in self.milestones)


# The paper does not state how many epochs there are: 200 is Wide ResNet's own number, 300 is where the milestones of
# the others lead.
RECIPES: dict[str, Recipe] = {
    "resnet": Recipe(300, 0.1, (150, 250), 0.1, weight_decay=5e-4),
    "wide_resnet": Recipe(200, 0.1, (60, 120, 160), 0.2, weight_decay=1e-4),
    "densenet": Recipe(300, 0.1, (150, 250), 0.1, weight_decay=1e-4),
    "vgg": Recipe(300, 0.1, (150, 250), 0.1, weight_decay=5e-4),
    "alexnet": Recipe(300, 0.01, (150, 250), 0.1, weight_decay=5e-4),
}


def for_random_labels(name: str) -> Recipe:
    """An architecture's recipe where labels are random: twice the epochs, and for VGG a tenth of the learning rate."""
    recipe = RECIPES[name]._replace(epochs=2 * RECIPES[name].epochs)
    return recipe._replace(learning_rate=0.01) if name == "vgg" else recipe
