"""Tests that each feature metric reacts to the degradations it claims to detect, on drawn images with a classifier."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from settings_with import settings_with
from torch import Tensor

from evaluation import METRICS, Context, Report, Settings, evaluate

ALL = Settings(
    num_real=0,
    num_fid=0,
    num_is=0,
    num_intra=0,
    is_splits=1,
    floor=False,
    kid_subsets=20,
    kid_subset_size=100,
)
FEATURE_METRICS = [name for name, metric in METRICS.items() if metric.extractor]


def noisy(images: Tensor, strength: float) -> Tensor:
    noise = strength * torch.randn(images.shape, generator=torch.Generator().manual_seed(3))
    return (images.float() + noise).round().clamp(0, 255).to(torch.uint8)


def blurred(images: Tensor, side: int) -> Tensor:
    mean = torch.nn.functional.avg_pool2d(images.float(), side, 1, side // 2, count_include_pad=False)
    return mean.round().to(torch.uint8)


def repeated(images: Tensor, kept: int) -> Tensor:
    """Repeats the first few images: both classes remain, without variation within them."""
    return images[torch.arange(len(images)) % kept]


def one_class(images: Tensor) -> Tensor:
    return images[::2].repeat_interleave(2, 0)


WORSE: dict[str, Callable[[Tensor], Tensor]] = {
    "noise": lambda images: noisy(images, 80),
    "blur": lambda images: blurred(images, 13),
    "dropped modes": lambda images: repeated(images, 6),
    "dropped class": one_class,
}
EVERYTHING = set(WORSE)
SEES = {
    "is": {"dropped class"},
    "fid": EVERYTHING,
    "fid_infinity": EVERYTHING,
    "intra_fid": EVERYTHING,
    "kid": EVERYTHING,
    "kid_all_pairs": EVERYTHING,
    "intra_kid": EVERYTHING,
    "precision": {"noise", "blur"},
    "density": {"noise", "blur"},
    "recall": {"dropped modes", "dropped class"},
    "coverage": EVERYTHING,
    "f_score": EVERYTHING,
    "intra_precision": {"noise", "blur", "dropped class"},
    "intra_density": {"noise", "blur", "dropped class"},
    "intra_recall": {"dropped modes", "dropped class"},
    "intra_coverage": EVERYTHING,
    "intra_f_score": EVERYTHING,
    "gan_test": {"dropped class"},
}


@pytest.fixture(scope="module")
def context(classifier, drawn_context) -> Context:
    return drawn_context(
        generated=(300, 10),
        reference=(300, 11),
        test=(300, 12),
        extractor=classifier,
        settings=ALL,
    )


@pytest.fixture(scope="module")
def plain(context: Context) -> Report:
    return evaluate(FEATURE_METRICS, context)


def named(report: Report) -> dict[str, float]:
    return {key.split("/")[0]: value for key, value in report.values.items()}


def test_every_value_with_a_direction_has_its_claims(plain: Report):
    directed = {key.split("/")[0] for key, entry in plain.protocol["values"].items() if entry["better"]}
    assert directed == set(SEES), "add a new metric and the degradations that it sees to SEES"


@pytest.mark.parametrize("degradation", WORSE)
def test_metrics_worsen_with_what_they_claim_to_see(context: Context, plain: Report, degradation: str):
    bad = evaluate(FEATURE_METRICS, context.of(WORSE[degradation](context.generated), context.generated_labels))
    for key, entry in plain.protocol["values"].items():
        name = key.split("/")[0]
        if entry["better"] and degradation in SEES.get(name, ()):
            assert (plain.values[key] < bad.values[key]) == (entry["better"] == "lower"), name
            assert abs(plain.values[key] - bad.values[key]) > 0.01, name


def test_precision_does_not_see_dropped_modes_but_recall_does(context: Context, plain: Report):
    good, bad = named(plain), named(evaluate(["prdc"], context.of(repeated(context.generated, 6))))
    assert bad["precision"] > good["precision"] - 0.1
    assert bad["recall"] < good["recall"] - 0.5


def test_values_do_not_depend_on_the_batch_size(context: Context, plain: Report):
    other = evaluate(FEATURE_METRICS, replace(context, settings=settings_with(ALL, batch_size=7)))
    assert other.values == pytest.approx(plain.values, rel=1e-4, abs=1e-5)
    hashes = [{key: entry["hash"] for key, entry in one.protocol["values"].items()} for one in (plain, other)]
    assert hashes[0] == hashes[1]


def test_values_of_whole_sets_do_not_depend_on_the_order_of_images(context: Context, plain: Report):
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    shuffled = evaluate(FEATURE_METRICS, context.of(context.generated[order], context.generated_labels[order]))
    drawn_by_row = {"kid", "fid_infinity"}  # their subsets are rows
    for key, value in plain.values.items():
        if key.split("/")[0] not in drawn_by_row:
            assert shuffled.values[key] == pytest.approx(value, rel=1e-4, abs=1e-5), key
