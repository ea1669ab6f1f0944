"""Tests of classifier training: the paper's recipes, one update by hand, exact resume, memorization."""

import copy
import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gan.config.classifier import ClassifierTrainSettings, load_classifier_config
from gan.data import Batches, ImageData
from gan.data.augment import draw_shifts, shifted
from gan.data.pixels import to_float
from gan.data.random_labels import with_random_labels
from gan.errors import DivergenceError
from gan.models.classifiers import ResNet
from gan.normalization import normalize
from gan.training.classifier import ClassifierTrainer, Epoch, accuracy_and_loss, learning_rate
from gan.training.state import ClassifierState

SHORT = ClassifierTrainSettings(epochs=3, milestones=(1, 2), batch_size=8)


def drawn(count: int = 20, num_classes: int = 2) -> ImageData:
    """Images in which class k is brighter in its own colour."""
    images = torch.randint(0, 100, (count, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(count) % num_classes
    images[torch.arange(count), labels] += 100
    return ImageData(images.to(torch.uint8), labels, tuple("rgb"[:num_classes]), "folder", "train")


def classifier(choice: str = "srn") -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return normalize(ResNet(2, 8, 4), choice, **({"c": 0.3} if choice == "srn" else {}))


def trainer(choice: str = "srn", settings: ClassifierTrainSettings = SHORT, **changes: object) -> ClassifierTrainer:
    settings = settings.model_copy(update=changes)
    return ClassifierTrainer(ClassifierState.begin(classifier(choice), settings, 2), drawn(), settings)


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(first, second) for first, second in pairs)


def epochs(one: ClassifierTrainer) -> Iterator[Epoch]:
    """Trains to the end; yields the record of each epoch."""
    while not one.is_done:
        one.train_step()
        if one.at_epochs_end:
            yield one.take_epoch()


@pytest.mark.parametrize("variants", [(), ("cifar10",)])
def test_recipes_are_those_of_appendix_d(variants: tuple[str, ...]) -> None:
    decays = {"resnet": 5e-4, "wide_resnet": 1e-4, "densenet": 1e-4, "vgg": 5e-4, "alexnet": 5e-4}
    recipes = {name: load_classifier_config(f"classifier_cifar100_{name}", variants=variants).train for name in decays}
    rates = {
        name: [learning_rate(recipe, 391 * epoch, 391) for epoch in (0, 59, 60, 149, 150, 199, 250)]
        for name, recipe in recipes.items()
    }
    wide = [0.1, 0.1, 0.02, 0.004, 0.004, 0.0008, 0.0008]
    others = [0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001]
    assert rates.pop("wide_resnet") == pytest.approx(wide)
    assert rates.pop("alexnet") == pytest.approx([rate / 10 for rate in others])
    assert all(rate == pytest.approx(others) for rate in rates.values())
    for name, recipe in recipes.items():
        assert recipe.weight_decay == decays[name]
        assert (recipe.momentum, recipe.batch_size, recipe.nesterov) == (0.9, 128, False)
        assert recipe.epochs == (200 if name == "wide_resnet" else 300)


def test_a_cosine_after_a_warmup() -> None:
    settings = SHORT.model_copy(update={"schedule": "cosine", "warmup": 1})
    rates = [learning_rate(settings, step, 4) for step in range(12)]
    assert rates[:4] == pytest.approx([0.025, 0.05, 0.075, 0.1])
    assert rates[4:] == pytest.approx([0.05 * (1 + math.cos(math.pi * k / 8)) for k in range(8)])


@pytest.mark.parametrize("augment", [False, True])
def test_one_update_by_hand(augment: bool) -> None:
    """w - rate * (gradient + decay * w) on the images of batch 0, then a second update with momentum."""
    one = trainer("none", seed=5, augment=augment)
    network = classifier("none").train()
    batches = Batches(drawn(), 8, seed=5, device="cpu", flip=augment)
    velocities = [torch.zeros_like(weight) for weight in network.parameters()]
    for k in (0, 1):
        images, labels = batches.batch(k)
        if augment:
            images = shifted(images, draw_shifts(8, 5, k))
        loss = F.cross_entropy(network(to_float(images)), labels)
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        with torch.no_grad():
            for weight, velocity, gradient in zip(network.parameters(), velocities, gradients, strict=True):
                velocity.mul_(0.9).add_(gradient + 5e-4 * weight)
                weight -= 0.1 * velocity
        one.train_step()
        for ours, expected in zip(one.state.network.parameters(), network.parameters(), strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_the_learning_rate_falls_at_the_milestones_and_epochs_are_counted() -> None:
    found = list(epochs(trainer()))
    assert [epoch.epoch for epoch in found] == [1, 2, 3]
    assert [epoch.learning_rate for epoch in found] == pytest.approx([0.1, 0.01, 0.001])
    one = trainer(seed=1)
    assert one.steps_per_epoch == 3  # 20 images in batches of 8
    rates = []
    for _ in range(9):
        one.train_step()
        rates.append(one.state.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1] * 3 + [0.01] * 3 + [0.001] * 3)


@pytest.mark.parametrize("stop", [3, 4])
def test_a_run_that_stopped_is_the_run_that_did_not(stop: int) -> None:
    """A run stopped at an epoch's end or within one continues with the same network, sums and epoch records."""
    whole = trainer()
    expected = list(epochs(whole))
    first = trainer()
    for _ in range(stop):
        first.train_step()
        if first.at_epochs_end:
            first.take_epoch()
    saved = copy.deepcopy(first.state.state_dict())
    second = trainer()
    second.state.network.load_state_dict({name: t + 1 for name, t in second.state.network.state_dict().items()})
    second.state.load_state_dict(saved)
    rest = list(epochs(second))
    assert rest == expected[1:]
    assert same(second.state.network, whole.state.network)


def test_singular_vectors_move_once_per_update_and_evaluation_moves_nothing() -> None:
    one = trainer()
    before = copy.deepcopy(one.state.network)
    accuracy_and_loss(one.state.network, drawn())
    assert same(before, one.state.network)
    assert one.state.network.training == before.training
    one.train_step()
    vectors = [name for name in before.state_dict() if name.endswith("_u")]
    assert vectors
    moved = one.state.network.state_dict()
    assert any(not torch.equal(before.state_dict()[name], moved[name]) for name in vectors)


@pytest.mark.parametrize(("choice", "precision"), [("none", "fp32"), ("sn", "bf16"), ("srn", "fp32")])
def test_easy_images_are_learned(choice: str, precision: str) -> None:
    one = trainer(choice, epochs=12, learning_rate=0.05, milestones=(8,), batch_size=10, precision=precision)
    last = list(epochs(one))[-1]
    assert last.accuracy == 1
    assert accuracy_and_loss(one.state.network, drawn())["accuracy"] == 1
    assert all(parameter.dtype == torch.float32 for parameter in one.state.network.parameters())


def test_a_run_ends_at_a_training_accuracy() -> None:
    settings = {"epochs": 50, "learning_rate": 0.05, "milestones": (), "weight_decay": 0.0, "batch_size": 10}
    one = trainer("none", **settings, augment=False, stop_accuracy=0.9)
    seen = list(epochs(one))
    assert one.state.reached
    assert len(seen) < 50
    assert seen[-1].accuracy >= 0.9 > max((epoch.accuracy for epoch in seen[:-1]), default=0)


def test_accuracy_is_the_share_of_right_names() -> None:
    class Brightest(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.scale * images.mean((2, 3))

    data = drawn(21, num_classes=3)
    assert accuracy_and_loss(Brightest(), data, batch_size=4)["accuracy"] == 1
    random = with_random_labels(data, seed=0)
    assert accuracy_and_loss(Brightest(), random)["accuracy"] == float((random.labels == data.labels).double().mean())


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    one = trainer("none", learning_rate=1e30)
    with pytest.raises(DivergenceError, match=r"epoch 1: loss .* not finite") as caught:
        list(epochs(one))
    assert caught.value.since == 0


def test_an_update_is_in_training_mode_whatever_came_before() -> None:
    one, other = trainer(), trainer()
    one.state.network.eval()
    for each in (one, other):
        each.train_step()
    assert same(one.state.network, other.state.network)


def test_bf16_rounds_the_forward_pass() -> None:
    one, other = trainer(precision="fp32"), trainer(precision="bf16")
    for each in (one, other):
        each.train_step()
    assert not same(one.state.network, other.state.network)
    for first, second in zip(one.state.network.parameters(), other.state.network.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0.05)


def batched(choice: str, device: str = "cpu", settings: ClassifierTrainSettings = SHORT) -> ClassifierTrainer:
    """Variant of `trainer` that computes all normalized weights together, as on a GPU."""
    network = classifier(choice).to(device)
    return ClassifierTrainer(ClassifierState.begin(network, settings, 2), drawn(), settings, batched=True)


@pytest.mark.parametrize("choice", ["none", "sn", "srn", "bsn"])
def test_weights_that_are_computed_together_differ_by_rounding(choice: str) -> None:
    one, other = trainer(choice), batched(choice)
    for each in (one, other):
        for _ in range(3):
            each.train_step()
    pairs = zip(one.state.network.parameters(), other.state.network.parameters(), strict=True)
    for first, second in pairs:
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_trains_as_a_cpu(precision: str) -> None:
    one = trainer("srn", precision=precision)
    other = batched("srn", "cuda", one.settings)
    for each in (one, other):
        for _ in range(3):
            each.train_step()
    tolerance = 1e-3 if precision == "fp32" else 5e-2
    pairs = zip(one.state.network.parameters(), other.state.network.parameters(), strict=True)
    for first, second in pairs:
        torch.testing.assert_close(first, second.cpu(), rtol=tolerance, atol=tolerance)
