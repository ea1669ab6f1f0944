"""GAN-test and GAN-train: closed forms through `evaluate`, and what is refused."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy.stats import norm
from settings_with import settings_with
from torch import Tensor

from evaluation import Context, EvaluationError, Report, Settings, Sources, build_extractor, evaluate
from evaluation.extractors.interface import NetworkExtractor
from evaluation.metrics.gan_test import class_accuracy

CLASSES = 4
KEY = "gan_test/reader-12345678"


def marked(classes: Sequence[int]) -> Tensor:
    """Images (N, 3, 8, 8), uint8, whose pixels are all the number of the class."""
    return torch.tensor(classes, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8).contiguous()


def reader(answers: Sequence[int] = range(CLASSES), num_classes: int = CLASSES) -> NetworkExtractor:
    """A classifier that answers an image of class k with class answers[k]."""
    table = torch.tensor(answers)

    def network(images: Tensor) -> tuple[Tensor, Tensor]:
        logits = torch.nn.functional.one_hot(table[images[:, 0, 0, 0].long()], num_classes).float()
        return logits, logits

    return NetworkExtractor(network, "reader", "reader-v1", "12345678")


def context(generated: Sequence[int], labels: Sequence[int], **changes: Any) -> Context:
    """Generated images that show the first classes and are labelled with the second ones; 40 test images."""
    test = [k % CLASSES for k in range(40)]
    content: dict[str, Any] = {
        "generated": marked(generated),
        "generated_labels": torch.tensor(labels),
        "test": marked(test),
        "test_labels": torch.tensor(test),
        "extractor": reader(),
        "settings": settings_with(Settings(), is_splits=1, num_is=len(labels)),
    }
    return Context(**{**content, **changes})


def measured(made: Context) -> Report:
    return evaluate(["gan_test"], made)


def test_generated_images_of_their_classes_have_accuracy_1():
    labels = [k % CLASSES for k in range(20)]
    report = measured(context(labels, labels))
    assert report.values == {KEY: 1.0, KEY.replace("gan_test", "gan_test_real"): 1.0}
    assert report.protocol["values"][KEY]["count"] == 20


def test_permuted_labels_have_accuracy_0():
    shown = [k % CLASSES for k in range(20)]
    assert measured(context(shown, [(k + 1) % CLASSES for k in shown])).values[KEY] == 0


def test_labels_that_ignore_the_images_have_the_share_of_coincidences():
    """Every class is shown under every label equally often: 1 / K, exactly."""
    shown, labels = zip(*[(k, j) for k in range(CLASSES) for j in range(CLASSES)], strict=True)
    assert measured(context(shown, labels)).values[KEY] == 1 / CLASSES


def test_only_the_first_images_count():
    settings = settings_with(Settings(), is_splits=1, num_is=4)
    report = measured(context([0, 1, 2, 3, 3, 3], [0, 1, 2, 0, 0, 0], settings=settings))
    assert report.values[KEY] == 3 / 4


def test_the_accuracy_of_a_matrix_of_logits():
    logits = torch.tensor([[0.1, 2.0, 1.9], [-1.0, -3.0, -2.0], [5.0, 5.5, 6.0], [0.0, 1.0, 0.5]])
    assert class_accuracy(logits, torch.tensor([1, 0, 2, 1])) == 1  # the largest entries, by hand
    assert class_accuracy(logits, torch.tensor([1, 0, 1, 0])) == 0.5
    assert class_accuracy(logits, torch.tensor([2, 1, 0, 0])) == 0


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64), r"logits \(3, 2\), labels \(2,\)"),
        (torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), r"expected \(N, K\)"),
        (torch.zeros(3), torch.zeros(3, dtype=torch.int64), r"expected \(N, K\)"),
        (torch.zeros(2, 2), torch.tensor([0, 2]), "labels 0 to 2, expected 0 to 1"),
        (torch.tensor([[0.0, torch.nan]]), torch.tensor([0]), "NaN or infinite"),
    ],
)
def test_wrong_logits_are_refused(logits: Tensor, labels: Tensor, message: str):
    with pytest.raises(EvaluationError, match=message):
        class_accuracy(logits, labels)


@pytest.mark.parametrize("right", [0, 3, 17, 20])
def test_the_interval_is_wilsons(right: int):
    """The formula of Wilson 1927, written out."""
    labels = [k % CLASSES for k in range(20)]
    shown = [label if k < right else (label + 1) % CLASSES for k, label in enumerate(labels)]
    report = measured(context(shown, labels))
    n, z, share = 20, norm.ppf(0.975), right / 20
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    assert report.values[KEY] == share
    low, high = report.protocol["values"][KEY]["interval"]
    assert low == pytest.approx(max(0, centre - half), abs=1e-12)
    assert high == pytest.approx(min(1, centre + half), abs=1e-12)


def test_the_value_of_real_images_has_a_hash_without_the_generator():
    labels = [0, 1, 2, 3]
    one, other = (measured(context(labels, labels, protocol={"seed": seed})) for seed in (0, 1))
    for key, equal in ((KEY, False), (KEY.replace("gan_test", "gan_test_real"), True)):
        hashes = [report.protocol["values"][key]["hash"] for report in (one, other)]
        assert (hashes[0] == hashes[1]) is equal


def test_a_classifier_of_other_classes_is_refused():
    """None of the images right, and a constant answer: neither is better than guessing."""
    for answers in ([1, 2, 3, 0], [2, 2, 2, 2]):
        with pytest.raises(EvaluationError, match="is little better than guessing; choose extractor classifier"):
            measured(context([0, 1], [0, 1], extractor=reader(answers)))


def test_a_weak_classifier_and_two_classes_are_measured():
    assert measured(context([0, 1], [0, 1], extractor=reader([0, 1, 1, 0]))).values[KEY] == 1  # right half the time
    test = [0, 1] * 20
    changes = {"test": marked(test), "test_labels": torch.tensor(test), "extractor": reader([0, 1], 2)}
    assert measured(context([0, 1, 0], [0, 1, 1], **changes)).values[KEY] == 2 / 3


def test_another_number_of_classes_is_refused():
    with pytest.raises(EvaluationError, match="reader-12345678 has 7 classes, expected the 4 of the test images"):
        measured(context([0, 1], [0, 1], extractor=reader(num_classes=7)))


@pytest.mark.slow
def test_inception_is_refused(inception_file):
    """Its 1,008 classes are not those of the data."""
    inception = build_extractor("inception", Sources(weights=inception_file))
    with pytest.raises(EvaluationError, match="has 1008 classes, expected the 4 of the test images"):
        measured(context([0, 1], [0, 1], extractor=inception))


def test_an_extractor_without_classes_is_refused(pixels):
    with pytest.raises(EvaluationError, match="returns no class probabilities"):
        measured(context([0, 1], [0, 1], extractor=pixels))


@pytest.mark.parametrize("metric", ["gan_test", "gan_train"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda made: replace(made, generated_labels=None), "got generated images without labels"),
        (lambda made: replace(made, test_labels=None), "got test images without labels"),
        (lambda made: replace(made, test=None, test_labels=None), "got no test images"),
        (lambda made: replace(made, generated_labels=torch.tensor([0, 4])), "image of class 4, expected 0 to 3"),
    ],
)
def test_sets_without_the_classes_are_refused(metric: str, change: Callable[[Context], Context], message: str):
    with pytest.raises(EvaluationError, match=f"metric {metric}: .*{message}"):
        evaluate([metric], change(context([0, 1], [0, 1])))


def trained_on_generated(drawn, *, swapped: bool) -> dict[str, float]:
    """Values of gan_train where generated images are as the real ones, with their labels or with swapped ones."""
    images, labels = drawn(200, seed=1)
    test, test_labels = drawn(100, seed=2)
    made = Context(
        generated=images,
        generated_labels=1 - labels if swapped else labels,
        test=test,
        test_labels=test_labels,
        settings=settings_with(Settings(), is_splits=1, num_is=200),
    )
    return evaluate(["gan_train"], made).values


def test_gan_train_of_perfect_images_is_1_and_of_swapped_labels_0(drawn, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("evaluation.metrics.gan_test.CLASSIFIER_STEPS", 30)  # enough for two kinds of squares
    assert trained_on_generated(drawn, swapped=False) == {"gan_train": 1.0}
    assert trained_on_generated(drawn, swapped=True) == {"gan_train": 0.0}


def test_gan_train_leaves_the_random_state_and_is_repeatable(drawn, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("evaluation.metrics.gan_test.CLASSIFIER_STEPS", 5)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    values = [trained_on_generated(drawn, swapped=False) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert values[0] == values[1]
