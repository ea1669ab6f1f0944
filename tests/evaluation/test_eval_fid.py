"""Tests of FID with its floor, FID-infinity, and statistics in place of images."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from random_tensors import features
from settings_with import settings_with

from evaluation import (
    Context,
    EvaluationError,
    Moments,
    Report,
    Settings,
    evaluate,
    fid_infinity,
    frechet_distance_of_features,
)
from evaluation.metrics import fid_infinity as module
from evaluation.statistics.frechet import fit, frechet


@pytest.fixture
def context(pixels, drawn_context) -> Context:
    return drawn_context(
        generated=(45, 1),
        reference=(120, 2),
        labelled=False,
        extractor=pixels,
        settings=Settings(num_real=50, num_fid=40),
        protocol={"quantizer": "round"},
    )


def entry(report: Report, name: str) -> dict:
    return report.protocol["values"][f"{name}/pixels"]


def test_fid_is_the_distance_of_the_drawn_reference_images(context: Context):
    report = evaluate(["fid"], context)
    rows = context.image_set("reference").rows(50)
    real, fake = (context.extractor(images)[0] for images in (context.reference[rows], context.generated[:40]))
    assert report.values["fid/pixels"] == pytest.approx(frechet_distance_of_features(real, fake), rel=1e-9)
    assert entry(report, "fid")["record"]["method"] == "gram"


def test_the_floor_compares_two_draws_without_a_common_image(context: Context):
    report = evaluate(["fid"], context)
    order = context.image_set("reference").order
    one, other = (context.extractor(context.reference[rows])[0] for rows in (order[:50], order[50:90]))
    expected = frechet_distance_of_features(one, other)
    assert report.values["fid_floor/pixels"] == pytest.approx(expected, rel=1e-9)
    floor = entry(report, "fid_floor")
    assert (floor["count"], floor["better"], floor["record"]["scale"]) == (40, "", 1)
    assert "note" not in floor["record"]


def test_the_floor_of_too_few_images_is_scaled_by_its_law(context: Context):
    small = replace(context, reference=context.reference[:60])
    report = evaluate(["fid"], small)
    order = small.image_set("reference").order
    one, other = (small.extractor(small.reference[rows])[0] for rows in (order[:33], order[33:60]))
    scale = (1 / 50 + 1 / 40) / (1 / 33 + 1 / 27)
    expected = frechet_distance_of_features(one, other) * scale
    assert report.values["fid_floor/pixels"] == pytest.approx(expected, rel=1e-9)
    assert entry(report, "fid_floor")["record"]["scale"] == pytest.approx(scale)
    assert "fid_floor/pixels: measured between 33 and 27 real images and multiplied by 0.668" in report.table()


def test_the_law_of_the_floor_holds_for_gaussians():
    """d(n, m) (1/n + 1/m)^-1 is constant for n, m well above the dimension, up to the spread of 20 draws."""
    constants = []
    for n, m in ((400, 200), (1600, 800)):
        distances = [
            frechet_distance_of_features(features(n, 8, seed), features(m, 8, 999 + seed)) for seed in range(20)
        ]
        constants.append(np.mean(distances) / (1 / n + 1 / m))
    assert constants[0] == pytest.approx(constants[1], rel=0.15)


def test_the_floor_can_be_left_out_and_needs_images(context: Context):
    assert set(evaluate(["fid"], replace(context, settings=settings_with(context.settings, floor=False))).values) == {
        "fid/pixels"
    }
    hardly_any = replace(context, reference=context.reference[:3], settings=Settings(num_real=3, num_fid=40))
    assert set(evaluate(["fid"], hardly_any).values) == {"fid/pixels"}


def test_one_pass_serves_fid_and_its_floor(context: Context):
    seen: list[int] = []
    inner = context.extractor

    class Counting:
        name, fingerprint, has_logits, protocol, record = "pixels", "", False, inner.protocol, inner.record

        def __call__(self, images: torch.Tensor):
            seen.append(len(images))
            return inner(images)

    settings = settings_with(context.settings, batch_size=1000, kid_subset_size=9)
    evaluate(["fid", "fid_infinity", "kid", "prdc"], replace(context, extractor=Counting(), settings=settings))
    assert sorted(seen) == [1, 40, 90]  # one black image tells the number of features


def test_the_floor_depends_on_real_images_alone(context: Context):
    def hashes(**change) -> dict[str, str]:
        values = evaluate(["fid"], replace(context, **change)).protocol["values"]
        return {key.split("/")[0]: value["hash"] for key, value in values.items()}

    before = hashes()
    assert {k for k, v in hashes(protocol={"quantizer": "truncate"}).items() if v != before[k]} == {"fid"}
    for change in (
        {"settings": settings_with(context.settings, num_fid=41)},
        {"settings": settings_with(context.settings, num_real=49)},
        {"settings": settings_with(context.settings, seed=1)},
        {"reference": context.reference[:100]},
    ):
        assert {k for k, v in hashes(**change).items() if v != before[k]} == {"fid", "fid_floor"}


def test_the_error_of_the_intercept_has_its_closed_form():
    sizes = np.array([1.0, 1 / 2, 1 / 3, 1 / 4])  # x = 1, 2, 3, 4
    found = module._line(sizes, np.array([1.0, 3.0, 2.0, 5.0]))
    # y = 0 + 1.1 x, residuals -0.1, 0.8, -1.3, 0.6; s^2 = 2.7 / 2; se^2 = s^2 (1/4 + 2.5^2 / 5).
    assert (found.value, found.slope) == pytest.approx((0, 1.1), abs=1e-12)
    assert found.standard_error == pytest.approx((1.35 * 1.5) ** 0.5)
    assert found.r_squared == pytest.approx(1 - 2.7 / 8.75)


def test_fid_infinity_is_nearer_to_the_distance_of_the_distributions():
    population = Moments(torch.zeros(16, dtype=torch.float64), torch.eye(16, dtype=torch.float64), None)
    truth = 16 * 0.3**2
    finite, infinite = [], []
    for seed in range(10):
        rows = features(600, seed=seed, scale=1.3)
        finite.append(frechet(population, fit(rows)).distance)
        infinite.append(fid_infinity(rows, population, seed=seed).value)
    assert np.mean(finite) > truth + 0.03
    assert abs(np.mean(infinite) - truth) < (np.mean(finite) - truth) / 2


def test_fid_infinity_ends_at_fid_and_depends_on_its_seed():
    reference = fit(features(100, seed=1))
    rows = features(200, seed=2)
    found = fid_infinity(rows, reference)
    assert (found.sizes[0], found.sizes[-1], len(found.sizes)) == (32, 200, 15)
    assert found.distances[-1] == pytest.approx(frechet(reference, fit(rows)).distance, rel=1e-9)
    assert fid_infinity(rows, reference) == found
    assert fid_infinity(rows, reference, seed=1).value != found.value


@pytest.mark.parametrize(
    ("count", "dimension", "expected"),
    [(50_000, 2048, 5_000), (5_000, 2048, 2_500), (10_000, 2048, 4_096), (60, 8, 16)],
)
def test_the_smallest_subset_stays_above_the_dimension_where_it_can(count: int, dimension: int, expected: int):
    assert module.smallest_subset(count, dimension) == expected


def test_too_few_features_for_a_line_are_refused():
    with pytest.raises(EvaluationError, match="fid_infinity: got 29 features, expected at least 30"):
        fid_infinity(features(29), fit(features(30)))


def test_fid_infinity_records_its_line(context: Context):
    report = evaluate(["fid_infinity"], context)
    found = entry(report, "fid_infinity")
    low, high = found["interval"]
    assert low < report.values["fid_infinity/pixels"] < high
    assert 0 < found["record"]["r_squared"] <= 1
    assert "least squares" in found["record"]["interval"]
    assert list(report.arrays["fid_infinity/pixels/sizes"]) == found["fields"]["sizes"]
    assert len(report.arrays["fid_infinity/pixels/distances"]) == 15
