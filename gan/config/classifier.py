"""What can be set of a classifier, its training and what is measured of it.

The defaults are ResNet-110 on CIFAR-100 as Sanyal et al. 2020 train it (5.1 and appendix D). A configuration file says
what differs. This module imports no torch.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from gan.config import DataSettings, NormalizationSettings
from gan.config.files import CLASSIFIERS, find_configs
from gan.config.loading import (
    Count,
    Draws,
    Experiment,
    Images,
    Interval,
    Name,
    Probability,
    Seed,
    Settings,
    Size,
    Text,
    Width,
    load,
    setting,
    validated,
    without_effect,
)


def _as_tuple(given: Any) -> Any:
    """YAML has lists."""
    if not isinstance(given, list | tuple):
        raise ValueError("a list such as [150, 250]")
    return tuple(given)


def _rising(milestones: tuple[int, ...]) -> tuple[int, ...]:
    if list(milestones) != sorted(set(milestones)):
        raise ValueError("milestones in rising order")
    return milestones


Milestones = Annotated[
    tuple[Annotated[int, Field(ge=1, le=10**6)], ...],
    BeforeValidator(_as_tuple),
    Field(max_length=100),
    AfterValidator(_rising),
]
Depth = Annotated[int, Field(ge=1, le=1202)]  # the deepest of He et al. 2016
Epochs = Annotated[int, Field(ge=0, le=10**6)]


class LabelledDataSettings(DataSettings):
    """Which images, and what their labels say."""

    name: Name = setting("cifar100", "a key of gan.data.DATASETS")
    labels: Literal["given", "random"] = setting(
        "given", "random: of the training images, each drawn once, uniformly over the classes"
    )
    num_train: Images = setting(0, "training images, as many of each class, the first of a random order; 0: all")
    seed: Seed = setting(0, "of random labels and of that order: the same for all that are to be compared")


class ClassifierSettings(NormalizationSettings):
    """The classifier's architecture, and how its weights are normalized. See docs/classifiers.md."""

    name: Name = setting("resnet", "a key of gan.models.classifiers.CLASSIFIERS")
    depth: Depth | None = setting(None, "resnet, wide_resnet, densenet, vgg: layers; unless given, the paper's")
    channels: Width | None = setting(None, "resnet, vgg, alexnet: first width; unless given, the paper's")
    width: Width | None = setting(None, "wide_resnet: factor of the widths; unless given, the paper's")
    growth: Width | None = setting(None, "densenet: channels that a layer adds; unless given, the paper's")
    shortcut_bn: bool | None = setting(None, "wide_resnet: batch normalization in shortcuts; unless given, none")
    c: Annotated[float, Field(gt=0, le=1)] = setting(0.5, "srn: stable rank at most c * min(rows, columns)")


class ClassifierTrainSettings(Settings):
    """The recipe, and how often a run reports and saves: SGD with momentum on cross-entropy."""

    epochs: Epochs = setting(300, "passes over the training images; 0: the network as it is initialized")
    stop_accuracy: Annotated[float, Field(ge=0, le=1)] = setting(
        0.0, "stop after the first epoch with at least this training accuracy; 0: only train.epochs counts"
    )
    batch_size: Size = setting(128, "images per update")
    learning_rate: Annotated[float, Field(gt=0, le=1000)] = setting(0.1, "at the beginning, or at its peak")
    schedule: Literal["milestones", "cosine"] = setting(
        "milestones", "cosine: half a cosine to 0 at the last update, after warmup"
    )
    milestones: Milestones = setting((150, 250), "completed epochs after which the learning rate is multiplied")
    factor: Annotated[float, Field(gt=0, le=1)] = setting(0.1, "what it is multiplied by at each milestone")
    warmup: Epochs = setting(0, "epochs over which the learning rate rises linearly from 0")
    momentum: Probability = setting(0.9, "of SGD")
    nesterov: bool = setting(False, "Nesterov's momentum")
    weight_decay: Annotated[float, Field(ge=0, le=1)] = setting(5e-4, "of all parameters")
    augment: bool = setting(True, "crops of images padded by 4 pixels, and flips of half of them")
    precision: Literal["fp32", "tf32", "bf16"] = setting(
        "fp32", "tf32: convolutions on a GPU; bf16: autocast of the forward pass"
    )
    seed: Seed = setting(0, "of everything random")
    test_every: Interval = without_effect(1, "epochs between test accuracies; 0: after the last one")
    checkpoint_every: Interval = without_effect(1, "epochs between checkpoints; 0: at the end")
    keep_last: Count = without_effect(2, "newest checkpoints that stay on disk")
    keep_every: Interval = without_effect(0, "checkpoints whose step is a multiple of it stay for good; 0: none")

    @model_validator(mode="after")
    def _check(self) -> "ClassifierTrainSettings":
        if self.nesterov and not self.momentum:
            raise ValueError("momentum above 0 with nesterov=true")
        return self


class ClassifierEvalSettings(Settings):
    """What is measured of a trained classifier, on which images. See docs/generalization.md."""

    metrics: Text = without_effect("accuracy,margin,complexity,spectra", "of gan-eval-classifier, separated by commas")
    split: Literal["train", "test"] = setting("train", "whose images are measured, with the labels of training")
    num_points: Draws = setting(10_000, "images for accuracy, margins and complexities; fewer where there are fewer")
    num_noise: Draws = setting(1_000, "images for noise sensitivity")
    draws: Draws = setting(32, "of noise, for each of them")
    num_local: Draws = setting(1_000, "images for local Lipschitz constants")
    num_pairs: Draws = setting(2_000, "pairs of images for global Lipschitz constants")
    batch_size: Size = without_effect(100, "images per forward pass")
    seed: Seed = setting(0, "of images, pairs and noise")


class ClassifierConfig(Experiment):
    """Everything a classifier's run depends on."""

    kind: ClassVar[str] = "classifier"
    elsewhere: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("generator", "discriminator"), "gan-train, gan-eval and gan-sample"
    )

    data: LabelledDataSettings = LabelledDataSettings()
    classifier: ClassifierSettings = ClassifierSettings()
    train: ClassifierTrainSettings = ClassifierTrainSettings()
    eval: ClassifierEvalSettings = ClassifierEvalSettings()


def load_classifier_config(
    path_or_name: str | Path, overrides: Sequence[str] = (), variants: Sequence[str | Path] = ()
) -> ClassifierConfig:
    """See `gan.config.loading.load`."""
    return load(ClassifierConfig, path_or_name, overrides, variants)


def validate_classifier(content: dict[str, Any], place: str) -> ClassifierConfig:
    """See `gan.config.loading.validated`."""
    return validated(ClassifierConfig, content, place)


def available_classifier_configs() -> list[str]:
    """Names of the classifiers' configurations in ./configs and in the package."""
    return [name for name in find_configs() if name.startswith(CLASSIFIERS)]
