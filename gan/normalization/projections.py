"""Exact projections of a weight by SVD in float64: Sanyal, Torr, Dokania 2020, Theorem 1, Algorithms 1 and 3.

A weight of more than two dimensions is read as one matrix, (out, everything else); there are no batch dimensions. For
a transposed convolution pass `weight.transpose(0, 1)`. Only `stable_rank` is differentiable.
"""

import math
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from gan.normalization.power_iteration import as_in_memory, as_matrix


def _checked_matrix(weight: Tensor) -> Tensor:
    """Returns the weight as a float64 matrix (out, everything else)."""
    if weight.ndim < 2:
        raise ValueError(f"weight: got shape {tuple(weight.shape)}, expected at least two dimensions")
    if not weight.is_floating_point():
        raise ValueError(f"weight: got type {weight.dtype}, expected floating point")
    if weight.numel() == 0 or not torch.isfinite(weight).all():
        raise ValueError("weight: empty or not finite, so it has no singular values")
    return as_matrix(weight).double()


def _as_stored(matrix: Tensor, weight: Tensor) -> Tensor:
    """Returns a float64 matrix with the shape, type and strides of the weight."""
    stored = as_in_memory(matrix.view(weight.shape), weight).to(weight.dtype)
    if not torch.isfinite(stored).all():
        largest = float(matrix.abs().max())
        raise ValueError(
            f"{weight.dtype} cannot hold the projection, whose entries reach {largest:.3g}: pass a wider type"
        )
    return stored


def stable_rank(weight: Tensor) -> Tensor:
    """Returns |W|_F^2 / |W|_2^2, in [1, rank W]; differentiable where the largest singular value is simple.

    Args:
        weight: a matrix, or a convolution's weight read as (out, in * kh * kw); any floating type.

    Returns:
        A scalar in the weight's type, at least float32; computed in float64.

    Raises:
        ValueError: the weight has fewer than two dimensions, is not floating point, not finite, or all zero.
    """
    ratios = _ratios(torch.linalg.svdvals(_checked_matrix(weight)))
    return ratios.square().sum().to(torch.promote_types(weight.dtype, torch.float32))


def _ratios(values: Tensor) -> Tensor:
    """Returns s_i / s_1, because squares of very large or small singular values exceed the range of float64."""
    if values[0] == 0:
        raise ValueError("weight: all zero, so its stable rank is not defined")
    return values / values[0]


class Projection(NamedTuple):
    """Result of `stable_rank_projection`.

    weight: gamma1 * S1 + gamma2 * S2, where S1 holds the first max(1, preserved) singular triples and S2 the rest.
    preserved: number of leading singular values that are unchanged, l of Algorithm 1.
    gamma1, gamma2: factors of S1 and S2; both 1 if the stable rank was low enough.
    distance: Frobenius norm of the change.
    """

    weight: Tensor
    preserved: int
    gamma1: float
    gamma2: float
    distance: float


@torch.no_grad()
def stable_rank_projection(weight: Tensor, rank: float, preserve: int = 1) -> Projection:
    """Projects W onto matrices of stable rank at most `rank`, in Frobenius norm. Sanyal et al. 2020, Theorem 1.

    With r = rank, singular values s1 >= s2 >= ..., and stable rank of W above r:

        preserve = 0:  gamma = sqrt(r - 1) s1 / |S2|_F,  gamma2 = (gamma + r - 1) / r,  gamma1 = gamma2 / gamma
        preserve > 0:  gamma1 = 1,  gamma2 = sqrt(r s1^2 - |S1|_F^2) / |S2|_F                        (Algorithm 1)

    Preserving more singular values increases the distance. With preserve = 0 the spectral norm grows. preserve = k > 0
    keeps the first k singular values if (s1^2 + ... + sk^2) / s1^2 <= r. For a larger k, as in Algorithm 1, the
    largest feasible number l < k of them is kept and returned as `preserved`.

    If singular values are tied, the nearest matrix is not unique, but its singular values and the distance are.

    Unlike in the paper, a W of stable rank at most r is returned unchanged, with preserved = min(k, rank of W), since
    the formulas would raise its stable rank.

    Args:
        weight: a matrix, or a convolution's weight read as (out, in * kh * kw); any floating type.
        rank: r, at least 1; 1 removes S2.
        preserve: k, at least 0.

    Raises:
        ValueError: r < 1, since no matrix has such a stable rank; preserve < 0; a weight of fewer than two dimensions,
            not finite or all zero; an entry of the projection beyond the range of the weight's type.
    """
    matrix = _checked_matrix(weight)
    if not 1 <= rank < math.inf:
        raise ValueError(f"rank: got {rank}, expected 1 or more: no matrix has a stable rank below 1")
    if preserve < 0:
        raise ValueError(f"preserve: got {preserve}, expected 0 or more")
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    ratios = _ratios(values).tolist()
    energies = [ratio * ratio for ratio in ratios]  # s_i^2 / s_1^2, so their sum is the stable rank
    # Tolerance for ties and for sums that equal r in exact arithmetic.
    rounding = 8 * max(matrix.shape) * torch.finfo(torch.float64).eps
    limit = rank * (1 + rounding)
    if math.fsum(energies) <= limit:
        numerical_rank = sum(ratio > rounding for ratio in ratios)
        return Projection(weight.detach().clone(), min(preserve, numerical_rank), 1.0, 1.0, 0.0)
    preserved = sum(total <= limit for total in accumulate(energies[:preserve]))  # l of Algorithm 1
    split = max(1, preserved)
    # Not |W|_F^2 - |S1|_F^2, which can round to a negative number.
    head, tail = math.fsum(energies[:split]), math.sqrt(math.fsum(energies[split:]))
    gamma1, gamma2 = _factors(rank, head, tail, preserve)
    factors = values.new_full(values.shape, gamma2)
    factors[:split] = gamma1
    projected = (left * (values * factors)) @ right
    distance = float(values[0]) * math.hypot((1 - gamma1) * math.sqrt(head), (1 - gamma2) * tail)
    return Projection(_as_stored(projected, weight), preserved, gamma1, gamma2, distance)


def _factors(rank: float, head: float, tail: float, preserve: int) -> tuple[float, float]:
    """Returns gamma1 and gamma2 of Theorem 1, for head = |S1|_F^2 / s1^2 and tail = |S2|_F / s1."""
    if preserve:
        return 1.0, math.sqrt(max(rank - head, 0.0)) / tail
    gamma = math.sqrt(rank - 1) / tail
    gamma1 = (1 + math.sqrt(rank - 1) * tail) / rank  # gamma2 / gamma, also for gamma = 0
    return gamma1, (gamma + rank - 1) / rank


@torch.no_grad()
def spectral_projection(weight: Tensor, bound: float = 1.0) -> Tensor:
    """Clips singular values at `bound`: projects W onto matrices of spectral norm at most `bound`, in Frobenius norm.

    Sanyal et al. 2020, Algorithm 3; the squared distance is the sum of max(s_i - bound, 0)^2. Unlike spectral
    normalization it leaves a W of norm at most `bound`, even zero, unchanged, and it needs all singular values above
    `bound`. So it serves as a projection after an optimizer step, not as a reparametrization.

    Args:
        weight: a matrix, or a convolution's weight read as (out, in * kh * kw); any floating type.
        bound: positive.

    Raises:
        ValueError: bound not positive; a weight of fewer than two dimensions or not finite; an entry of the result
            beyond the range of the weight's type.
    """
    matrix = _checked_matrix(weight)
    if not 0 < bound < math.inf:
        raise ValueError(f"bound: got {bound}, expected a positive number")
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    excess = (left * (values - bound).clamp_min(0)) @ right
    return _as_stored(matrix - excess, weight)
