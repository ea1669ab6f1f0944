"""Tests of the Fréchet distance: closed forms, invariances, and torch-fidelity as oracle."""

import numpy as np
import pytest
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from evaluation import EvaluationError, Moments, frechet_distance, frechet_distance_of_features
from evaluation.statistics.frechet import BLOCK, CentredFeatures, fit, frechet, frechet_of_features


def features(count: int, dimension: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(dimension, dimension, generator=generator, dtype=torch.float64)
    return torch.randn(count, dimension, generator=generator, dtype=torch.float64) @ mix + seed


def gaussian(covariance: torch.Tensor, mean: float = 0.0) -> Moments:
    return Moments(torch.full((len(covariance),), mean, dtype=torch.float64), covariance, 1000)


def test_moments_equal_numpy_on_features_far_from_zero():
    rows = features(9000, 7) + 1e4  # more than one chunk; an unshifted sum of squares would lose 8 digits
    moments = Moments.of(rows)
    assert torch.allclose(moments.mean, rows.mean(0), rtol=1e-13)
    assert np.allclose(moments.covariance.numpy(), np.cov(rows.numpy(), rowvar=False), rtol=1e-10)
    assert moments.count == 9000


def test_moments_do_not_depend_on_batches_and_are_float64():
    rows = features(100, 5).float()
    whole, parts = Moments.of(rows), Moments.of(iter(rows.split(7)))
    assert whole.covariance.dtype == torch.float64
    assert torch.allclose(whole.covariance, parts.covariance, rtol=1e-12)
    assert torch.allclose(whole.mean, parts.mean, rtol=1e-12)


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_scaled_covariance_has_its_closed_form(scale: float):
    covariance = Moments.of(features(200, 20)).covariance
    expected = 20 * 4.0 + (1 - scale) ** 2 * float(covariance.trace())
    found = frechet(gaussian(covariance), gaussian(scale**2 * covariance, mean=2.0))
    assert found.method == "cholesky"
    assert found.distance == pytest.approx(expected, rel=1e-10)


def test_commuting_covariances_have_their_closed_form():
    a, b = torch.tensor([1.0, 4.0, 9.0]).double(), torch.tensor([16.0, 1.0, 0.25]).double()
    expected = float((a.sqrt() - b.sqrt()).square().sum())
    assert frechet_distance(gaussian(a.diag()), gaussian(b.diag())) == pytest.approx(expected, rel=1e-12)


def test_singular_covariances_take_the_eigendecomposition():
    # Rank 1 in a turned plane, so that no diagonal entry is zero: tr sqrt(vv^T ww^T) = |v.w|.
    v, w = torch.tensor([1.0, 2.0]).double(), torch.tensor([3.0, 1.0]).double()
    found = frechet(gaussian(torch.outer(v, v)), gaussian(torch.outer(w, w)))
    assert found.method == "eigh"
    assert found.distance == pytest.approx(5 + 10 - 2 * 5, abs=1e-7)


def test_dead_units_do_not_cost_the_cholesky_route():
    x, y = features(300, 10), features(300, 10, seed=1)
    dead = torch.zeros(300, 3, dtype=torch.float64)
    with_dead = frechet_of_features(torch.cat([x, dead], 1), torch.cat([y, dead], 1))
    assert with_dead.method == "cholesky"
    assert with_dead.distance == pytest.approx(frechet_distance_of_features(x, y), rel=1e-12)


@pytest.mark.parametrize(("count", "dimension"), [(500, 32), (20, 64), (2, 64), (64, 64), (65, 64)])
def test_distance_of_a_set_to_itself_is_zero(count: int, dimension: int):
    rows = features(count, dimension)
    assert frechet_distance_of_features(rows, rows) < 1e-8
    assert frechet_distance(Moments.of(rows), Moments.of(rows)) < 1e-8


@pytest.mark.parametrize(("n", "m"), [(300, 400), (10, 300), (300, 10), (12, 15), (40, 41)])
def test_distance_equals_torch_fidelity(n: int, m: int):
    x, y = features(n, 40), features(m, 40, seed=3)
    expected = fid_statistics_to_metric(fid_features_to_statistics(x), fid_features_to_statistics(y), verbose=False)[
        "frechet_inception_distance"
    ]
    # Their eigenvalues of a singular product carry an error near sqrt(1e-16) of the trace.
    assert frechet_distance_of_features(x, y) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance_of_features(y, x) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(Moments.of(x), Moments.of(y)) == pytest.approx(expected, rel=1e-6)


def test_few_and_many_features_of_one_set_give_one_gaussian():
    x, y = features(90, 40), features(300, 40, seed=1)
    rows, moments = CentredFeatures.of(x), Moments.of(x)
    assert (len(rows.root), rows.trace) == (90, pytest.approx(moments.trace, rel=1e-12))
    assert torch.allclose(rows.root.T @ rows.root, moments.covariance, rtol=1e-10)
    assert torch.allclose(moments.root.T @ moments.root, moments.covariance, rtol=1e-10)
    expected = frechet(moments, fit(y))
    assert expected.method == "cholesky"
    for found in (frechet(rows, fit(y)), frechet(fit(y), rows), frechet(rows, CentredFeatures.of(y))):
        assert found.method == "gram"
        assert found.distance == pytest.approx(expected.distance, rel=1e-10)


def test_blocks_of_the_triangular_product_change_nothing():
    dimension = 2 * BLOCK + 10
    covariance = Moments.of(features(dimension + 50, dimension)).covariance
    scaled, dead = 4 * covariance, [3, BLOCK, dimension - 1]
    covariance[dead] = covariance[:, dead] = 0
    moments = gaussian(covariance)
    assert moments.factor is not None
    assert moments.factor.shape == (dimension - 3, dimension)
    scaled[dead] = scaled[:, dead] = 0
    found = frechet(moments, gaussian(scaled))
    assert found.method == "cholesky"
    assert found.distance == pytest.approx(moments.trace, rel=1e-9)  # (1 - 2)^2 tr S


def test_one_singular_covariance_takes_the_factor_of_the_other():
    singular, regular = gaussian(torch.tensor([[4.0, 4.0], [4.0, 4.0]]).double()), gaussian(torch.eye(2).double())
    for pair in ((singular, regular), (regular, singular)):
        found = frechet(*pair)
        assert found.method == "cholesky"
        assert found.distance == pytest.approx(8 + 2 - 2 * 8**0.5, abs=1e-7)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (features(5, 4), features(5, 3), "expected"),
        (features(1, 4), features(5, 4), "at least 2"),
        (torch.full((5, 4), torch.nan), features(5, 4), "not finite"),
        (torch.ones(5, 4, dtype=torch.int64), features(5, 4), "floats"),
        (features(5, 4)[0], features(5, 4), "expected floats"),
        (features(5, 4).numpy(), features(5, 4), "got ndarray, expected a torch tensor"),
        (features(5, 4), features(5, 4).tolist(), "got list, expected a torch tensor"),
    ],
)
def test_wrong_features_are_refused(x: torch.Tensor, y: torch.Tensor, message: str):
    with pytest.raises(EvaluationError, match=message):
        frechet_distance_of_features(x, y)


def test_moments_of_different_dimension_or_too_few_rows_are_refused():
    with pytest.raises(EvaluationError, match="got 3 and 4 dimensions"):
        frechet_distance(Moments.of(features(9, 3)), Moments.of(features(9, 4)))
    with pytest.raises(EvaluationError, match="at least 2"):
        Moments.of(features(1, 3))
    with pytest.raises(EvaluationError, match="at least 2"):
        Moments.of([])


@pytest.mark.parametrize("dimension", [4, 1])  # one dimension would be spread over all of them without a word
def test_moments_refuse_batches_of_different_dimension(dimension: int):
    with pytest.raises(EvaluationError, match=f"got batches of 3 and of {dimension} dimensions"):
        Moments.of([features(9, 3), features(9, dimension)])
