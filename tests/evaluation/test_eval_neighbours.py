"""Tests of nearest reference images: brute force, exact copies, and no additional feature pass."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from settings_with import settings_with

from evaluation import Context, EvaluationError, Settings, evaluate
from evaluation.reporting.neighbours import copy_ratios, nearest_neighbours, sample_neighbours

SMALL = Settings(num_real=80, num_fid=60, num_is=60, is_splits=3, floor=False)


def points(count: int, dimensions: int, seed: int) -> torch.Tensor:
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed))


def ratios_of(queries: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    return copy_ratios(nearest_neighbours(queries, references), references)


@pytest.fixture
def context(classifier, drawn_context) -> Context:
    return drawn_context(
        generated=(100, 10),
        reference=(120, 11),
        extractor=classifier,
        settings=SMALL,
        reference_name="drawn, train",
    )


@pytest.mark.parametrize(("count", "chunk"), [(3, 4096), (40, 16), (41, 1)])
def test_neighbours_are_those_of_brute_force(count: int, chunk: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("evaluation.reporting.neighbours.CHUNK", chunk)
    queries, references = points(6, 7, 0), points(count, 7, 1)
    found = nearest_neighbours(queries, references, 5)
    everything = torch.linalg.vector_norm(queries.double()[:, None] - references.double(), dim=2)
    distances, rows = everything.sort(dim=1)
    assert torch.equal(found.rows, rows[:, :5])
    assert torch.allclose(found.distances, distances[:, :5], rtol=1e-12)


def test_a_copy_far_from_the_origin_is_at_distance_zero_and_first():
    references = points(50, 20, 0).double() * 1e-3 + 1e3  # |q|^2 + |r|^2 - 2 qr alone would lose these distances
    found = nearest_neighbours(references[17:18], references)
    assert int(found.rows[0, 0]) == 17
    assert float(found.distances[0, 0]) == 0
    assert (found.distances.diff() >= 0).all()


def test_distances_of_pixels_are_exact():
    black, white = torch.zeros(1, 12, dtype=torch.uint8), torch.full((1, 12), 255, dtype=torch.uint8)
    assert float(nearest_neighbours(black, white, 1).distances) == pytest.approx(255 * 12**0.5, rel=1e-15)


def test_ratios_are_distance_over_distance_between_references():
    references = torch.tensor([[0.0], [2.0], [10.0]])
    ratios = ratios_of(torch.tensor([[0.0], [1.0 - 0.5], [13.0]]), references)
    assert ratios.tolist() == [0.0, 0.25, 3 / 8]


def test_ratios_of_fresh_draws_are_about_one_and_of_copies_zero():
    references, fresh = points(2000, 10, 0), points(50, 10, 1)
    assert 0.8 < float(ratios_of(fresh, references).median()) < 1.3
    assert float(ratios_of(references[:50], references).max()) == 0


def test_a_reference_with_a_twin_gives_no_ratio():
    assert ratios_of(torch.tensor([[1.0]]), torch.tensor([[0.0], [0.0], [9.0]])).isnan().all()


def test_unusable_features_are_refused():
    with pytest.raises(EvaluationError, match=r"got shapes \(2, 3\) and \(4, 5\)"):
        nearest_neighbours(points(2, 3, 0), points(4, 5, 0))
    with pytest.raises(EvaluationError, match="with M > 0"):
        nearest_neighbours(points(2, 3, 0), points(0, 3, 0))
    with pytest.raises(EvaluationError, match="got 1 reference rows"):
        ratios_of(points(2, 3, 0), points(1, 3, 0))


def test_copies_among_samples_are_found_in_the_features_at_hand(context: Context):
    rows = context.image_set("reference").rows(80)  # those that FID compares with
    context.generated[4] = context.reference[int(rows[9])]
    changed = replace(context)
    report = evaluate(["fid"], changed)
    arrays, how = report.arrays, report.protocol["neighbours"]
    assert arrays["neighbours"].shape == (16, 5, 3, 32, 32)
    assert arrays["neighbours"].dtype == arrays["neighbour_samples"].dtype == np.uint8
    assert arrays["neighbour_distances"].shape == arrays["neighbour_rows"].shape == (16, 5)
    copy = int(np.flatnonzero((arrays["neighbour_samples"] == context.generated[4].numpy()).all(axis=(1, 2, 3)))[0])
    assert arrays["neighbour_rows"][copy, 0] == int(rows[9])
    assert arrays["neighbour_distances"][copy, 0] == pytest.approx(0, abs=1e-4)
    assert arrays["neighbour_ratios"][copy] == pytest.approx(0, abs=1e-4)
    assert set(arrays["neighbour_rows"].flatten()) <= set(rows.tolist())
    assert np.array_equal(arrays["neighbours"], context.reference[torch.from_numpy(arrays["neighbour_rows"])].numpy())
    assert (how["features"], how["num_reference"], how["reference"]) == (context.extractor.name, 80, "drawn, train")


def test_pixels_are_compared_where_no_extractor_has_seen_both(context: Context):
    context.generated[0] = context.reference[3]
    report = evaluate(["is"], replace(context, settings=settings_with(SMALL, num_real=0)))
    assert report.protocol["neighbours"]["features"] == "whole images, pixels in [0, 1]"
    assert report.protocol["neighbours"]["num_reference"] == 120
    assert report.arrays["neighbour_rows"][0, 0] == 3
    assert report.arrays["neighbour_distances"][0, 0] == 0
    first, row = report.arrays["neighbour_samples"][1], report.arrays["neighbours"][1, 0]
    expected = np.linalg.norm((first.astype(float) - row.astype(float)) / 255)
    assert report.arrays["neighbour_distances"][1, 0] == pytest.approx(expected, rel=1e-12)


def test_labelled_samples_are_the_first_of_each_class_in_order_of_class(context: Context):
    labels = torch.tensor([2] * 50 + [0] * 30 + [1] * 20)
    arrays = evaluate(["is"], replace(context, generated_labels=labels)).arrays
    assert arrays["neighbour_labels"].tolist() == [0] * 6 + [1] * 5 + [2] * 5
    assert np.array_equal(arrays["neighbour_samples"][-5:], context.generated[:5].numpy())


def test_there_are_none_without_reference_images_or_samples(context: Context):
    assert "neighbours" not in evaluate(["is"], replace(context, reference=None, reference_labels=None)).arrays
    assert sample_neighbours(replace(context, generated=None, generated_labels=None)) == ({}, {})
