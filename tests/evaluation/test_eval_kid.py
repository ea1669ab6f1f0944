"""Tests of KID: torch-fidelity on the same subsets, explicit sums, unbiasedness, errors."""

from dataclasses import replace

import pytest
import torch
from random_tensors import features
from settings_with import settings_with
from torch_fidelity.metric_kid import kid_features_to_metric

from evaluation import Context, EvaluationError, Settings, evaluate, kid, kid_of_all_pairs
from evaluation.metrics import kid as module
from evaluation.statistics.intervals import NORMAL_95


def written_out(x: torch.Tensor, y: torch.Tensor) -> float:
    """Unbiased squared MMD, computed one kernel value at a time."""

    def kernel(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a @ b / len(a) + 1) ** 3)

    def within(rows: torch.Tensor) -> float:
        pairs = [(i, j) for i in range(len(rows)) for j in range(len(rows)) if i != j]
        return sum(kernel(rows[i], rows[j]) for i, j in pairs) / len(pairs)

    between = sum(kernel(a, b) for a in x for b in y) / (len(x) * len(y))
    return within(x) + within(y) - 2 * between


@pytest.mark.parametrize(("n", "m"), [(120, 90), (90, 120)])
@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_kid_equals_torch_fidelity_on_the_same_subsets(n: int, m: int, shift: float):
    x, y = features(n, seed=1, shift=shift), features(m, seed=2)
    expected = kid_features_to_metric(x, y, kid_subsets=20, kid_subset_size=50, verbose=False)
    found = kid(x, y, subsets=20, subset_size=50)
    assert found.mean == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-10)
    assert found.std == pytest.approx(expected["kernel_inception_distance_std"], rel=1e-10)


def test_all_pairs_equal_the_sums_written_out():
    x, y = features(7, 3, seed=1), features(5, 3, seed=2, shift=0.5)
    assert kid_of_all_pairs(x, y).value == pytest.approx(written_out(x, y), rel=1e-12)
    assert kid(x, y, subsets=1, subset_size=5)[2:] == pytest.approx(kid_of_all_pairs(x, y), rel=1e-12)


def test_the_standard_error_is_the_delete_one_jackknife():
    x, y = features(7, 3, seed=1), features(5, 3, seed=2, shift=0.5)
    variance = 0.0
    for left_out in (
        [written_out(torch.cat([x[:i], x[i + 1 :]]), y) for i in range(len(x))],
        [written_out(x, torch.cat([y[:i], y[i + 1 :]])) for i in range(len(y))],
    ):
        values = torch.tensor(left_out, dtype=torch.float64)
        variance += float((len(values) - 1) * values.var(correction=0))
    assert kid_of_all_pairs(x, y).standard_error == pytest.approx(variance**0.5, rel=1e-9)


def test_a_subset_of_all_images_is_all_pairs():
    x, y = features(40, seed=1), features(40, seed=2)
    found = kid(x, y, subsets=3, subset_size=40)
    assert found.mean == pytest.approx(found.all_pairs, rel=1e-10)
    assert found.std == pytest.approx(0, abs=1e-12)


def test_the_estimate_is_unbiased_at_any_number_of_images_and_may_be_negative():
    found = torch.tensor([kid_of_all_pairs(features(10, 1, seed), features(8, 1, 999 + seed)) for seed in range(800)])
    values = found[:, 0].double()
    assert abs(values.mean()) < 4 * values.std() / len(values) ** 0.5
    assert 0.3 < (values < 0).double().mean() < 0.7


def test_the_interval_holds_the_long_run_mean_about_as_often_as_it_says():
    draws = [kid_of_all_pairs(features(60, 4, seed), features(80, 4, 999 + seed, shift=0.4)) for seed in range(200)]
    values, errors = torch.tensor(draws, dtype=torch.float64).T
    held = ((values - values.mean()).abs() < NORMAL_95 * errors).double().mean()
    assert 0.88 <= held <= 1.0


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch):
    x, y = features(50, seed=1, shift=0.2), features(33, seed=2)
    whole = kid(x, y, subsets=4, subset_size=20)
    monkeypatch.setattr(module, "BLOCK", 7)
    assert kid(x, y, subsets=4, subset_size=20) == pytest.approx(whole, rel=1e-10)


def test_float32_features_are_summed_in_float64():
    x, y = features(200, seed=1, shift=0.2).float(), features(200, seed=2).float()
    assert kid_of_all_pairs(x, y) == kid_of_all_pairs(x.double(), y.double())


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (features(9), features(10), "got 9 features, expected at least 10"),
        (features(10), features(9), "got 9 features, expected at least 10"),
        (features(10), features(10, 5), "one dimension"),
        (features(10), torch.full((10, 16), torch.inf), "not finite"),
        (features(10)[0], features(10), r"expected floats \(N, D\)"),
    ],
)
def test_wrong_features_are_refused(x: torch.Tensor, y: torch.Tensor, message: str):
    with pytest.raises(EvaluationError, match=f"kid: .*{message}"):
        kid(x, y, subset_size=10)


@pytest.fixture
def context(pixels, drawn_context) -> Context:
    settings = Settings(num_real=50, num_fid=40, kid_subsets=6, kid_subset_size=20)
    return drawn_context(generated=(45, 1), reference=(60, 2), labelled=False, extractor=pixels, settings=settings)


def test_kid_measures_what_torch_fidelity_would_of_the_same_images(context: Context):
    report = evaluate(["kid"], context)
    rows = context.image_set("reference").rows(50)  # in the order of the images, not of the draw
    x, y = (context.extractor(images)[0] for images in (context.generated[:40], context.reference[rows]))
    expected = kid_features_to_metric(x.double(), y.double(), kid_subsets=6, kid_subset_size=20, verbose=False)
    assert set(report.values) == {"kid/pixels", "kid_all_pairs/pixels"}
    assert report.values["kid/pixels"] == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-9)
    entry = report.protocol["values"]["kid/pixels"]
    assert entry["std"] == pytest.approx(expected["kernel_inception_distance_std"], rel=1e-9)
    assert (entry["count"], entry["better"], entry["interval"]) == (40, "lower", None)
    pairs = report.protocol["values"]["kid_all_pairs/pixels"]
    low, high = pairs["interval"]
    assert low < report.values["kid_all_pairs/pixels"] < high
    assert "jackknife" in pairs["record"]["interval"]


def test_hashes_change_with_the_subsets_for_kid_alone(context: Context):
    def hashes(settings: Settings) -> dict[str, str]:
        report = evaluate(["kid"], replace(context, settings=settings))
        return {key: entry["hash"] for key, entry in report.protocol["values"].items()}

    before = hashes(context.settings)
    for change in ({"kid_subsets": 7}, {"kid_subset_size": 21}):
        after = hashes(settings_with(context.settings, **change))
        assert [key for key in before if before[key] != after[key]] == ["kid/pixels"]
    for change in ({"num_fid": 41}, {"num_real": 51}, {"seed": 1}):
        after = hashes(settings_with(context.settings, **change))
        assert not [key for key in before if before[key] == after[key]]


def test_a_value_below_zero_is_explained(context: Context):
    settings = settings_with(context.settings, num_real=0, num_fid=0)
    same = replace(context, generated=context.reference, settings=settings)
    report = evaluate(["kid"], same)
    assert report.values["kid_all_pairs/pixels"] < 0
    assert "kid_all_pairs/pixels is below 0: the estimate is unbiased" in report.table()
