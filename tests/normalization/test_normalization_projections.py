"""Tests of Theorem 1, Algorithm 1 and Algorithm 3 of Sanyal et al. 2020: closed forms, properties, brute force."""

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from gan.normalization import spectral_projection, stable_rank, stable_rank_projection

EIGHT = [1, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5]


def diagonal(*values: float) -> Tensor:
    return torch.diag(torch.tensor(values, dtype=torch.float64))


def svd_values(weight: Tensor) -> np.ndarray:
    return np.linalg.svd(weight.double().flatten(1).numpy(), compute_uv=False)


def srank(weight: Tensor) -> float:
    values = svd_values(weight)
    return float((values**2).sum() / values[0] ** 2)


class Case(NamedTuple):
    """Closed-form case: the spectrum of W, r, k, and the expected results."""

    spectrum: list[float]
    rank: float
    preserve: int
    gamma1: float
    gamma2: float
    values: list[float]
    distance: float


ROOT2, ROOT34 = math.sqrt(2), math.sqrt(34)
FIRST, REST = 1.082842712474619, 0.765685424949238
CLOSED_FORMS = [
    Case(
        spectrum=[1, 1, 1],
        rank=2,
        preserve=0,
        gamma1=(ROOT2 + 1) / 2,
        gamma2=(ROOT2 + 1) / (2 * ROOT2),
        values=[1.2071067811865475, 0.8535533905932737, 0.8535533905932737],
        distance=1 - 1 / ROOT2,
    ),
    Case([1, 1, 1], 2, 1, 1, 1 / ROOT2, [1, 1 / ROOT2, 1 / ROOT2], ROOT2 - 1),
    Case([1, 1, 1], 2, 2, 1, 0, [1, 1, 0], 1),
    Case([5, 4, 3], 1.36, 1, 1, 3 / 5, [5, 2.4, 1.8], 2),
    Case([5, 4, 3], 1.36, 0, 20 / 17, 12 / 17, [100 / 17, 48 / 17, 36 / 17], 5 * ROOT34 / 17),
    Case([5, 4, 3], 1.8, 2, 1, 2 / 3, [5, 4, 2], 1),
    # distance^2 = |W|_F^2 - (s1^2 + gamma |S2|_F^2)^2 / (r s1^2), gamma = 1 / sqrt(2)
    Case([4, 2, 2], 1.25, 0, FIRST, REST, [4 * FIRST, 2 * REST, 2 * REST], math.sqrt(24 - (16 + 8 / ROOT2) ** 2 / 20)),
]


@pytest.mark.parametrize("case", CLOSED_FORMS, ids=lambda case: f"{case.spectrum}-r{case.rank}-k{case.preserve}")
def test_closed_forms(case: Case) -> None:
    """Diagonal matrices, computed by hand."""
    got = stable_rank_projection(diagonal(*case.spectrum), case.rank, case.preserve)
    assert got.preserved == case.preserve
    assert abs(got.gamma1 - case.gamma1) < 1e-12
    assert abs(got.gamma2 - case.gamma2) < 1e-12
    np.testing.assert_allclose(svd_values(got.weight), case.values, rtol=0, atol=1e-12)
    assert abs(got.distance - case.distance) < 1e-12
    assert abs(float(torch.linalg.matrix_norm(got.weight - diagonal(*case.spectrum))) - case.distance) < 1e-12


@pytest.mark.parametrize(
    ("preserve", "gamma2", "distance"),
    [
        (0, 0.897376, 0.36319264),
        (1, 0.692129, 0.62906811),
        (2, 0.579112, 0.76138891),
        (3, 0.341689, 1.03304522),
    ],
)
def test_eight_values(preserve: int, gamma2: float, distance: float) -> None:
    """Computed independently, to the digits given."""
    got = stable_rank_projection(diagonal(*EIGHT), 3, preserve)
    assert got.distance == pytest.approx(distance, abs=1e-8)
    assert got.gamma2 == pytest.approx(gamma2, abs=1e-6)


def test_distance_of_the_identity_in_closed_form() -> None:
    """I_n: sqrt(n - 1) - sqrt(r - 1) with k = 1; sqrt(n - (1 + sqrt((r - 1)(n - 1)))^2 / r) with k = 0."""
    for n in (2, 5, 9):
        for r in (1.0, 1.3, n - 0.5):
            identity = torch.eye(n, dtype=torch.float64)
            expected = math.sqrt(n - 1) - math.sqrt(r - 1)
            assert stable_rank_projection(identity, r).distance == pytest.approx(expected, abs=1e-12)
            expected = math.sqrt(n - (1 + math.sqrt((r - 1) * (n - 1))) ** 2 / r)
            assert stable_rank_projection(identity, r, 0).distance == pytest.approx(expected, abs=1e-12)


SPECTRA = {
    "gap": lambda n: [0.6**i for i in range(n)],
    "slow": lambda n: [1 - 0.4 * i / n for i in range(n)],
    "flat": lambda n: [1.0] * n,
    "tied top": lambda n: [1.0, 1.0, *[0.5] * n][:n],
    "deficient": lambda n: [1.0, *[0.8] * (n // 2), *[0.0] * n][:n],
    "rank one": lambda n: [1.0, *[0.0] * n][:n],
}


@st.composite
def matrices(draw: st.DrawFn) -> Tensor:
    """Matrices U diag(s) V^T with sides 1 to 12, a spectrum of SPECTRA and a scale from 1e-4 to 1e4."""
    rows, columns = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    values = SPECTRA[draw(st.sampled_from(sorted(SPECTRA)))](min(rows, columns))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    left = np.linalg.qr(random.normal(size=(rows, rows)))[0][:, : len(values)]
    right = np.linalg.qr(random.normal(size=(columns, columns)))[0][:, : len(values)]
    return torch.tensor(10 ** draw(st.floats(-4, 4)) * (left * values) @ right.T)


fraction = st.floats(0.02, 0.98)


@given(matrices(), fraction, st.integers(0, 6))
@settings(max_examples=150, deadline=None)
def test_projection_has_the_stable_rank_asked_for(weight: Tensor, t: float, preserve: int) -> None:
    """Stable rank is r, l follows its formula, the top l values are kept, gamma2 <= 1 <= gamma1, the distance is
    measured."""
    before = svd_values(weight)
    assume(srank(weight) > 1 + 1e-6)
    rank = 1 + t * (srank(weight) - 1)
    got = stable_rank_projection(weight, rank, preserve)
    after = svd_values(got.weight)
    assert srank(got.weight) == pytest.approx(rank, rel=1e-9)
    totals = np.cumsum(before**2) / before[0] ** 2
    assume(np.abs(totals - rank).min() > 1e-9)  # at a tie rounding decides
    assert got.preserved == min(preserve, int((totals <= rank).sum()))
    np.testing.assert_allclose(after[: got.preserved], before[: got.preserved], rtol=1e-10)
    assert got.gamma2 <= 1 <= got.gamma1 + 1e-15
    measured = float(torch.linalg.matrix_norm(weight - got.weight))
    assert got.distance == pytest.approx(measured, rel=1e-7, abs=1e-9 * before[0])


@given(matrices(), fraction, st.integers(0, 3), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_projection_is_equivariant(weight: Tensor, t: float, preserve: int, seed: int) -> None:
    """T(c W) = c T(W), T(W^T) = T(W)^T, T(Q W P) = Q T(W) P."""
    values = svd_values(weight)
    assume(srank(weight) > 1.01)
    assume(all(one > other + 1e-3 * values[0] for one, other in pairwise(values[:4]) if one > 1e-9 * values[0]))
    rank = 1 + t * (srank(weight) - 1)
    assume(np.abs(np.cumsum(values**2) / values[0] ** 2 - rank).min() > 1e-9)
    projected = stable_rank_projection(weight, rank, preserve).weight
    close = {"rtol": 0, "atol": 1e-9 * values[0]}
    tripled = stable_rank_projection(3 * weight, rank, preserve).weight
    torch.testing.assert_close(tripled / 3, projected, **close)
    torch.testing.assert_close(stable_rank_projection(weight.t(), rank, preserve).weight, projected.t(), **close)
    generator = torch.Generator().manual_seed(seed)
    left, right = (
        torch.linalg.qr(torch.randn(side, side, dtype=torch.float64, generator=generator)).Q for side in weight.shape
    )
    turned = stable_rank_projection(left @ weight @ right, rank, preserve).weight
    torch.testing.assert_close(turned, left @ projected @ right, **close)


def retract(matrix: Tensor, rank: float) -> Tensor:
    """Matrix of stable rank `rank` from one of a larger stable rank, by shrinking all but the leading triple."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    factor = math.sqrt(rank - 1) * values[0] / values[1:].norm()
    return values[0] * torch.outer(left[:, 0], right[0]) + factor * (left[:, 1:] * values[1:]) @ right[1:]


def test_no_feasible_matrix_is_nearer() -> None:
    """Tries 600 matrices of the same stable rank, near and far."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 7, dtype=torch.float64, generator=generator)
    rank = 1.9
    best = stable_rank_projection(weight, rank, 0)
    for size in (1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0):
        for start in (weight, best.weight) * 50:
            noise = size * torch.randn(5, 7, dtype=torch.float64, generator=generator)
            other = retract(start + noise, rank)
            assert srank(other) == pytest.approx(rank)
            nearest_multiple = other * (weight * other).sum() / other.square().sum()
            assert float(torch.linalg.matrix_norm(weight - nearest_multiple)) >= best.distance - 1e-10


@pytest.mark.parametrize("preserve", [0, 1])
@pytest.mark.parametrize("shape", [(4, 4), (3, 6)])
def test_brute_force_finds_the_same_optimum(shape: tuple[int, int], preserve: int) -> None:
    """LBFGS over full matrices retracted to stable rank r (k = 1: with the leading triple of W kept)."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(shape, dtype=torch.float64, generator=generator)
    rank = (1 + srank(weight)) / 2
    expected = stable_rank_projection(weight, rank, preserve).distance
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    leading = values[0] * torch.outer(left[:, 0], right[0])

    def candidate(free: Tensor) -> Tensor:
        if preserve == 0:
            near = retract(free, rank)
            return near * (weight * near).sum() / near.square().sum()
        rest = free - left[:, :1] @ (left[:, :1].t() @ free)
        rest = rest - (rest @ right[:1].t()) @ right[:1]
        return leading + math.sqrt(rank - 1) * values[0] * rest / rest.norm()

    found = []
    for _ in range(4):
        free = (weight + 0.3 * torch.randn(shape, dtype=torch.float64, generator=generator)).requires_grad_()
        optimizer = torch.optim.LBFGS(
            [free], max_iter=300, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
        )

        def closure(free: Tensor = free, optimizer: torch.optim.Optimizer = optimizer) -> Tensor:
            optimizer.zero_grad()
            distance = (weight - candidate(free)).square().sum()
            distance.backward()
            return distance

        optimizer.step(closure)
        found.append(float((weight - candidate(free)).detach().norm()))
    assert min(found) >= expected - 1e-10
    assert min(found) == pytest.approx(expected, abs=1e-8)


def test_preserving_more_moves_further() -> None:
    """Distances strictly increase over k = 0 .. 3; k = 4 is infeasible at r = 3 and falls back to l = 3."""
    distances = [stable_rank_projection(diagonal(*EIGHT), 3, k).distance for k in range(4)]
    assert all(one < other - 1e-12 for one, other in pairwise(distances))
    fallback = stable_rank_projection(diagonal(*EIGHT), 3, 6)
    assert fallback.preserved == 3
    assert fallback.gamma2 == pytest.approx(0.341688848275, abs=1e-11)
    assert fallback.distance == distances[3]


def test_cases_the_pseudo_code_leaves_out() -> None:
    """Stable rank already low enough, k beyond the rank, ties, r = 1."""
    low = diagonal(1, 0.5, 0.25)
    for rank in (1.3125, 2.5, 100):
        got = stable_rank_projection(low, rank, 2)
        assert torch.equal(got.weight, low)
        assert (got.preserved, got.gamma1, got.gamma2, got.distance) == (2, 1, 1, 0)
    assert stable_rank_projection(low, 2, 9).preserved == 3
    assert stable_rank_projection(diagonal(1, 1, 0), 2, 3).preserved == 2, "of rank 2"
    tied = stable_rank_projection(diagonal(1, 1, 1), 2, 3)
    assert tied.preserved == 2
    assert srank(tied.weight) == pytest.approx(2)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).Q
    assert stable_rank_projection(turn, 2, 3).preserved == 2, "whose singular values are 1 up to rounding"
    for preserve in (0, 1):
        one = stable_rank_projection(diagonal(5, 4, 3), 1, preserve)
        torch.testing.assert_close(one.weight, diagonal(5, 0, 0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_any_floating_type_and_convolutions(dtype: torch.dtype) -> None:
    """The result has the weight's type and shape; a convolution is read as (out, in * kh * kw)."""
    weight = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    got = stable_rank_projection(weight, 2.5)
    assert got.weight.dtype == dtype
    assert got.weight.shape == weight.shape
    tolerance = 4 * torch.finfo(dtype).eps
    assert srank(got.weight) == pytest.approx(2.5, rel=tolerance)
    assert float(stable_rank(weight)) == pytest.approx(srank(weight), rel=1e-6)
    clipped = spectral_projection(weight, 2.0)
    assert clipped.dtype == dtype
    assert svd_values(clipped)[0] == pytest.approx(2.0, rel=tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
@pytest.mark.parametrize("rank", [2.5, 100])
def test_projections_keep_the_order_of_memory(rank: float, dtype: torch.dtype) -> None:
    """Channels-last and transposed matrices, also if nothing has to change."""
    convolution = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    for weight in (convolution.to(memory_format=torch.channels_last), convolution.flatten(1).t()):
        plain = weight.contiguous()
        for project in (lambda w: stable_rank_projection(w, rank).weight, lambda w: spectral_projection(w, rank)):
            assert project(weight).stride() == weight.stride()
            assert torch.equal(project(weight), project(plain))


def test_a_projection_that_the_type_cannot_hold_is_refused() -> None:
    """The spectral norm grows with k = 0: here from 60000 to 60000 (1 + sqrt(2)) / 2, and float16 ends at 65504."""
    weight = 6e4 * torch.eye(3)
    with pytest.raises(ValueError, match=r"float16 cannot hold .* reach 7\.24e\+04: .* wider type"):
        stable_rank_projection(weight.half(), 2, 0)
    assert stable_rank_projection(weight.bfloat16(), 2, 0).weight.isfinite().all()
    assert stable_rank_projection(weight.half(), 2, 1).weight.isfinite().all()


@given(matrices(), st.floats(0.05, 1.5))
@settings(max_examples=80, deadline=None)
def test_spectral_projection_clips(weight: Tensor, part: float) -> None:
    """Equals NumPy's clipping, is idempotent and does nothing below the bound; distance^2 sums squared excesses."""
    before = svd_values(weight)
    bound = float(part * before[0])
    assume(abs(part - 1) > 1e-9)
    got = spectral_projection(weight, bound)
    scale = before[0]
    np.testing.assert_allclose(svd_values(got), np.minimum(before, bound), rtol=0, atol=1e-10 * scale)
    left, values, right = np.linalg.svd(weight.numpy(), full_matrices=False)
    np.testing.assert_allclose(got.numpy(), (left * np.minimum(values, bound)) @ right, rtol=0, atol=1e-10 * scale)
    torch.testing.assert_close(spectral_projection(got, bound * (1 + 1e-12)), got, rtol=0, atol=1e-10 * scale)
    if part > 1:
        assert torch.equal(got, weight)
    distance = float((weight - got).square().sum())
    assert distance == pytest.approx((np.maximum(before - bound, 0) ** 2).sum(), rel=1e-6, abs=1e-18 * scale**2)


def test_spectral_projection_by_hand() -> None:
    """diag(3, 2, 1): bound 1 gives I at distance^2 5, W / 3 is at 56 / 9; bound 2 gives (2, 2, 1)."""
    weight = diagonal(3, 2, 1)
    torch.testing.assert_close(spectral_projection(weight), diagonal(1, 1, 1), rtol=0, atol=1e-12)
    assert float((weight - weight / 3).square().sum()) == pytest.approx(56 / 9)
    torch.testing.assert_close(spectral_projection(weight, 2.0), diagonal(2, 2, 1), rtol=0, atol=1e-12)
    assert torch.equal(spectral_projection(torch.zeros(2, 3)), torch.zeros(2, 3)), "zero is inside every ball"


def test_extreme_scales() -> None:
    """Squares of these values are out of float64's range; ratios are not."""
    for scale in (1e-200, 1e200):
        got = stable_rank_projection(scale * diagonal(5, 4, 3), 1.36)
        assert got.gamma2 == pytest.approx(0.6)
        assert got.distance == pytest.approx(2 * scale)
        assert float(stable_rank(scale * diagonal(5, 4, 3))) == pytest.approx(2)


def test_stable_rank_is_differentiable() -> None:
    weight = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(stable_rank, (weight,))


NAN, ZERO = torch.full((2, 2), math.nan), torch.zeros(2, 2)
WRONG = {
    "r below 1": (lambda: stable_rank_projection(torch.eye(3), 0.9), "rank: got 0.9, expected 1 or more"),
    "r nan": (lambda: stable_rank_projection(torch.eye(3), math.nan), "rank: got nan"),
    "k below 0": (lambda: stable_rank_projection(torch.eye(3), 2, -1), "preserve: got -1"),
    "zero": (lambda: stable_rank_projection(ZERO, 2), "all zero"),
    "nan": (lambda: stable_rank_projection(NAN, 2), "not finite"),
    "integers": (lambda: stable_rank_projection(torch.eye(3).long(), 2), "expected floating point"),
    "vector": (lambda: stable_rank_projection(torch.ones(3), 2), "expected at least two dimensions"),
    "empty": (lambda: stable_rank_projection(torch.ones(0, 3), 2), "empty"),
    "rank of zero": (lambda: stable_rank(ZERO), "all zero"),
    "rank of nan": (lambda: stable_rank(NAN), "not finite"),
    "bound 0": (lambda: spectral_projection(torch.eye(2), 0), "bound: got 0, expected a positive number"),
    "clip nan": (lambda: spectral_projection(NAN), "not finite"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_refused(case: str) -> None:
    """Every function checks its input."""
    call, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        call()
