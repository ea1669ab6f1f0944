"""Tests of precision, recall, density, coverage: drawn examples, torch-fidelity, explicit loops, direction, ties."""

from dataclasses import replace
from functools import partial

import pytest
import random_tensors
import torch
from settings_with import settings_with
from torch_fidelity.metric_prc import prc_features_to_metric

from evaluation import Context, EvaluationError, Settings, evaluate, prdc
from evaluation.metrics import precision_recall as module
from evaluation.statistics.intervals import NORMAL_95, wilson_interval

features = partial(random_tensors.features, dimension=8)


def column(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)[:, None]


def test_four_points_on_a_line():
    real, fake = column(0, 1, 3, 7), column(2.5, 3.5, 20)
    found = prdc(real=real, fake=fake, pr_neighbours=1, dc_neighbours=1)
    # Real balls [-1, 1], [0, 2], [1, 5], [3, 11]; generated balls [1.5, 3.5], [2.5, 4.5], [3.5, 36.5].
    assert found.precision == pytest.approx(2 / 3)  # 2.5 and 3.5
    assert found.recall == 2 / 4  # 3 and 7
    assert found.density == pytest.approx((1 + 2 + 0) / 3)
    assert found.coverage == 2 / 4  # the balls of 3 and 7


def written_out(real: torch.Tensor, fake: torch.Tensor, k: int) -> tuple[float, float, float, float]:
    """Precision, recall, density and coverage, computed one distance at a time."""

    def radius(rows: torch.Tensor, i: int) -> float:
        return sorted(float((rows[i] - rows[j]).norm()) for j in range(len(rows)) if j != i)[k - 1]

    real_radii, fake_radii = ([radius(rows, i) for i in range(len(rows))] for rows in (real, fake))
    distances = [[float((x - y).norm()) for y in fake] for x in real]
    in_real = [[distances[i][j] <= real_radii[i] for i in range(len(real))] for j in range(len(fake))]
    in_fake = [[distances[i][j] <= fake_radii[j] for j in range(len(fake))] for i in range(len(real))]
    return (
        sum(any(row) for row in in_real) / len(fake),
        sum(any(row) for row in in_fake) / len(real),
        sum(sum(row) for row in in_real) / (k * len(fake)),
        sum(any(row[i] for row in in_real) for i in range(len(real))) / len(real),
    )


@pytest.mark.parametrize("k", [1, 3, 5])
def test_prdc_equals_loops_over_every_distance(k: int):
    real, fake = features(30, seed=1), features(25, seed=2, scale=0.8) + 0.3
    found = prdc(real=real, fake=fake, pr_neighbours=k, dc_neighbours=k)
    assert found[:4] == pytest.approx(written_out(real, fake, k), rel=1e-12)


@pytest.mark.parametrize("scale", [0.6, 1.0, 1.5])
def test_precision_and_recall_equal_torch_fidelity_with_the_same_direction(scale: float):
    real, fake = features(300, seed=1), features(220, seed=2, scale=scale) + 0.2
    expected = prc_features_to_metric(fake, real, verbose=False)
    found = prdc(real=real, fake=fake)
    # Their means are float32.
    assert found.precision == pytest.approx(expected["precision"], abs=1e-6)
    assert found.recall == pytest.approx(expected["recall"], abs=1e-6)
    assert found.f_score == pytest.approx(expected["f_score"], abs=1e-6)
    assert min(found[:4]) > 0


@pytest.mark.parametrize(("pr", "dc"), [(3, 5), (5, 3)])
def test_each_pair_has_its_own_number_of_neighbours(pr: int, dc: int):
    real, fake = features(40, seed=1), features(40, seed=2) + 0.5
    found = prdc(real=real, fake=fake, pr_neighbours=pr, dc_neighbours=dc)
    assert found[:2] == pytest.approx(written_out(real, fake, pr)[:2])
    assert found[2:4] == pytest.approx(written_out(real, fake, dc)[2:])


@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_a_set_against_itself(offset: float):
    rows = features(120) + offset
    found = prdc(real=rows, fake=rows.flip(0), dc_neighbours=5)
    assert (found.precision, found.recall, found.f_score, found.coverage) == (1, 1, 1, 1)
    # A point lies in its own ball and in those of which it is one of k neighbours: k + 1 on average.
    assert found.density == pytest.approx(6 / 5, rel=1e-12)


def test_duplicates_and_ties_are_inside():
    grid = torch.cartesian_prod(*[torch.arange(5.0)] * 2).double() / 3 + 0.1  # thirds are not exact in binary
    assert prdc(real=grid, fake=grid + torch.tensor([1 / 3, 0], dtype=torch.float64), pr_neighbours=1)[:2] == (1, 1)
    copies = features(4).repeat(6, 1)  # every radius is 0
    found = prdc(real=copies, fake=copies[:12])
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)


def test_a_distant_outlier_does_not_blur_small_distances():
    real, fake = torch.cat([features(50, seed=1), column(*[1e7] * 8).T]), features(50, seed=2) + 100
    assert prdc(real=real, fake=fake).recall == 0
    assert prdc(real=real[:50], fake=fake).precision == 0


def test_blocks_and_order_change_nothing(monkeypatch: pytest.MonkeyPatch):
    real, fake = features(90, seed=1), features(70, seed=2) + 0.3
    whole = prdc(real=real, fake=fake)
    assert prdc(real=real[torch.randperm(90)], fake=fake.flip(0)) == pytest.approx(whole, rel=1e-12)
    monkeypatch.setattr(module, "DISTANCES", 700)
    assert prdc(real=real, fake=fake) == pytest.approx(whole, rel=1e-12)


def test_f_score_of_nothing_is_zero():
    found = prdc(real=features(20), fake=features(20) + 1000)
    assert (found.precision, found.recall, found.f_score, found.density, found.coverage) == (0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("real", "fake", "message"),
    [
        (features(5), features(9), "got 5 features, expected at least 6"),
        (features(9), features(5), "got 5 features, expected at least 6"),
        (features(9), features(9, dimension=3), "one dimension"),
        (torch.full((9, 8), torch.nan), features(9), "not finite"),
    ],
)
def test_wrong_features_are_refused(real: torch.Tensor, fake: torch.Tensor, message: str):
    with pytest.raises(EvaluationError, match=f"prdc: .*{message}"):
        prdc(real=real, fake=fake)


def test_the_interval_of_a_share_has_its_closed_form():
    square = NORMAL_95**2
    assert wilson_interval(0.0, 10) == pytest.approx((0, square / (10 + square)))
    assert wilson_interval(1.0, 10) == pytest.approx((10 / (10 + square), 1))
    low, high = wilson_interval(0.5, 100)
    assert (low + high) / 2 == pytest.approx(0.5)
    for end in (low, high):  # where the score test just rejects
        assert (0.5 - end) ** 2 == pytest.approx(square * end * (1 - end) / 100)


@pytest.fixture
def context(pixels, drawn_context) -> Context:
    settings = Settings(num_real=50, num_fid=40)
    return drawn_context(generated=(45, 1), reference=(60, 2), labelled=False, extractor=pixels, settings=settings)


def test_prdc_measures_generated_against_reference_images(context: Context):
    report = evaluate(["prdc"], context)
    rows = context.image_set("reference").rows(50)
    fake, real = (context.extractor(images)[0] for images in (context.generated[:40], context.reference[rows]))
    expected = prdc(real=real, fake=fake)
    names = ("precision", "recall", "f_score", "density", "coverage")
    assert report.values == pytest.approx({f"{name}/pixels": getattr(expected, name) for name in names}, rel=1e-12)
    entries = report.protocol["values"]
    counts = {name: entries[f"{name}/pixels"]["count"] for name in names}
    assert counts == {"precision": 40, "recall": 50, "f_score": 40, "density": 40, "coverage": 50}
    assert entries["f_score/pixels"]["interval"] is None
    for name in ("precision", "recall", "density", "coverage"):
        low, high = entries[f"{name}/pixels"]["interval"]
        assert low <= getattr(expected, name) <= high
        assert entries[f"{name}/pixels"]["record"]["interval"]


@pytest.mark.parametrize(("density", "expected"), [(0.5, (0.5 - 0.196, 0.5 + 0.196)), (0.1, (0, 0.296)), (0.0, None)])
def test_the_interval_of_density_is_cut_at_zero_and_needs_a_count(
    context: Context, monkeypatch: pytest.MonkeyPatch, density: float, expected: tuple[float, float] | None
):
    found = module.Prdc(0.0, 0.0, density, 0.0, density_error=0.1 if density else 0.0)
    monkeypatch.setattr(module, "prdc", lambda **given: found)
    entry = evaluate(["prdc"], context).protocol["values"]["density/pixels"]
    assert entry["interval"] == (expected and pytest.approx(list(expected), abs=1e-5))
    assert ("interval" in entry["record"]) == (expected is not None)


def test_hashes_change_with_the_neighbours_of_each_pair(context: Context):
    def hashes(**change: int) -> dict[str, str]:
        report = evaluate(["prdc"], replace(context, settings=settings_with(context.settings, **change)))
        return {key.split("/")[0]: entry["hash"] for key, entry in report.protocol["values"].items()}

    before = hashes()
    for change, names in (
        ("pr_neighbours", {"precision", "recall", "f_score"}),
        ("dc_neighbours", {"density", "coverage"}),
    ):
        after = hashes(**{change: 4})
        assert {name for name in before if before[name] != after[name]} == names
