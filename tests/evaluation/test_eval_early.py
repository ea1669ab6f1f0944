"""What an evaluation cannot do, it refuses before an image is generated: metrics x extractors x sizes x counts."""

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evaluation import METRICS, Context, EvaluationError, Settings, evaluate
from evaluation.extractors.pixels import Pixels
from evaluation.metrics import gan_test
from evaluation.metrics.needs import check_extractors, check_images
from evaluation.statistics.frechet import Moments
from evaluation.statistics.moments_file import Statistics

SIDE = 8
FEATURES = 4


class Brightness(nn.Module):
    """Critic: a weighted mean of the pixels, plus the label."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 1)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        logits: Tensor = self.conv(images).mean((1, 2, 3))
        return logits if labels is None else logits + labels


class Sized:
    """Extractor for images of one size; the class of an image is its brightness over 60."""

    name, fingerprint, has_logits, num_classes = "sized", "sized", True, 3

    def __init__(self, num_classes: int = 3) -> None:
        self.num_classes = num_classes
        self.protocol: dict[str, Any] = {}
        self.record: dict[str, Any] = {}

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if images.shape[2:] != (SIDE, SIDE):
            raise EvaluationError(f"got {images.shape[2]}x{images.shape[3]}, expected {SIDE}x{SIDE}")
        brightness = images.float().mean((1, 2, 3))
        return images[:, 0, 0, :FEATURES].float(), -((brightness[:, None] / 60 - torch.arange(self.num_classes)) ** 2)


EXTRACTORS = {"pixels": Pixels, "sized": Sized, "two classes": lambda: Sized(2)}

# The first value of each fits every metric; the others may not.
KNOBS: dict[str, tuple[Any, ...]] = {
    "extractor": ("sized", "pixels", "two classes"),
    "side": (SIDE, 2 * SIDE),
    "reference": ((12, 12, 12), (36, 0, 0), (1,), (30, 5, 1), (2, 0, 2), (12, 12)),
    "test": ((12, 12, 12), (36, 0, 0), (1,), (30, 5, 1), (12, 12), None),
    "classes": (3, 0, 2),
    "statistics": (None, FEATURES, 7),
    "num_real": (30, 1, 2, 4, 0, 50),
    "num_fid": (30, 1, 2, 4),
    "num_is": (30, 1, 4),
    "is_splits": (2, 9),
    "num_intra": (10, 1, 2, 4),
    "kid_subset_size": (5, 2, 31),
    "pr_neighbours": (3, 40),
    "dc_neighbours": (5, 10),
    "pairs": (6, 1, 30),
    "holdout": (0.0, 0.01, 0.9),
    "pool": (None, 3),
}
FITTING = {name: values[0] for name, values in KNOBS.items()}
COMPARED = ("extractor", "side", "reference", "statistics", "num_real", "num_fid")
BY_CLASS = ("extractor", "side", "reference", "classes", "num_intra")
OF_METRIC: dict[str, tuple[str, ...]] = {
    "is": ("extractor", "side", "num_is", "is_splits"),
    "fid": COMPARED,
    "fid_infinity": COMPARED,
    "kid": (*COMPARED, "kid_subset_size"),
    "prdc": (*COMPARED, "pr_neighbours", "dc_neighbours"),
    "intra_fid": BY_CLASS,
    "intra_kid": BY_CLASS,
    "intra_prdc": (*BY_CLASS, "pr_neighbours", "dc_neighbours"),
    "gan_test": ("extractor", "side", "test", "classes", "num_is"),
    "gan_train": ("side", "test", "classes", "num_is"),
    "nd": ("test", "holdout", "pool"),
    "elhist": ("side", "reference", "test", "classes", "pairs"),
    "bounds": ("side", "reference", "test", "classes", "pairs"),
}
"""Knobs that matter for a metric."""


def fitting(metric: str) -> dict[str, Any]:
    """Values that fit a metric; `bounds` is of unconditional discriminators."""
    return FITTING | ({"classes": 0} if metric == "bounds" else {})


def varied(metric: str, number: int) -> Iterator[dict[str, Any]]:
    """Yields the fitting values with each other value of `number` of the metric's knobs."""
    for names in combinations(OF_METRIC[metric], number):
        changes: list[dict[str, Any]] = [{}]
        for name in names:
            other = [value for value in KNOBS[name] if value != fitting(metric)[name]]
            changes = [{**change, name: value} for change in changes for value in other]
        yield from ({**fitting(metric), **change} for change in changes)


def images_of(labels: Tensor, side: int, seed: int) -> Tensor:
    """Noise around the brightness of each label, uint8 (N, 3, side, side)."""
    random = torch.Generator().manual_seed(seed)
    noise = torch.randint(-20, 21, (len(labels), 3, side, side), generator=random)
    return (60 * labels[:, None, None, None] + 20 + noise).clamp(0, 255).to(torch.uint8)


def real_set(counts: tuple[int, ...] | None, side: int, seed: int) -> tuple[Tensor | None, Tensor | None]:
    if counts is None:
        return None, None
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return images_of(labels, side, seed), labels


def context_of(case: dict[str, Any]) -> Context:
    """Real images and settings of a case."""
    (reference, reference_labels), (test, test_labels) = (
        real_set(case[role], case["side"], seed) for seed, role in enumerate(("reference", "test"))
    )
    moments = None
    if case["statistics"]:
        size = case["statistics"]
        moments = Statistics(Moments(torch.zeros(size).double(), torch.eye(size).double(), None), "hash", "moments.npz")
    counts = ("num_real", "num_fid", "num_is", "is_splits", "num_intra", "kid_subset_size")
    settings = Settings(
        **{name: case[name] for name in (*counts, "pr_neighbours", "dc_neighbours")},
        kid_subsets=2,
        nd={"steps": 1, "num_samples": 4, "batch_size": 2, "num_critics": 1}
        | {name: case[name] for name in ("holdout", "pool")},
        lipschitz={"pairs": case["pairs"]},
    )
    return Context(
        reference=reference,
        reference_labels=reference_labels,
        test=test,
        test_labels=test_labels,
        statistics=moments,
        settings=settings,
        image_size=(case["side"],) * 2,
    )


def outcome(metric: str, case: dict[str, Any]) -> str:
    """Checks before an image is generated, then measures: "refused" or "measured"; raises if it measures in vain."""
    try:
        real, classes, need = context_of(case), case["classes"], METRICS[metric]
    except EvaluationError:
        return "refused"
    count = real.required(need.images["generated"])
    labels = torch.arange(count) % classes if classes else None
    if need.labels and labels is None:
        return "refused"  # by gan.measuring.checks, see tests/test_early.py
    expected = real.of(None, labels, critic_is_conditional=classes > 0)
    try:
        check_images(metric, need, expected, real_only=True)
        expected = expected.of(None, labels, extractor=EXTRACTORS[case["extractor"]]())
        check_extractors(metric, need, expected)
    except EvaluationError:
        return "refused"

    def sampler(count: int, seed: int) -> tuple[Tensor, Tensor | None]:
        drawn = torch.arange(count) % max(classes, 1)
        return images_of(drawn, case["side"], seed), drawn if classes else None

    context = expected.of(
        sampler(count, 7)[0] if count else None,
        labels,
        sampler=sampler,
        critic=Brightness(),
    )
    assert evaluate([metric], context).values
    return "measured"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gan_test, "CLASSIFIER_STEPS", 2)


@pytest.mark.parametrize("metric", METRICS)
def test_what_fails_fails_at_the_start(metric: str):
    assert outcome(metric, fitting(metric)) == "measured"
    assert {outcome(metric, case) for case in varied(metric, 1)} == {"measured", "refused"}


@pytest.mark.slow
@pytest.mark.parametrize("metric", METRICS)
def test_what_fails_in_two_ways_fails_at_the_start(metric: str):
    assert {outcome(metric, case) for case in varied(metric, 2)} == {"measured", "refused"}
