"""Exact projections of one weight, from its SVD in float64: Sanyal, Torr, Dokania 2020, Theorem 1, Algorithms 1, 3.

A weight of more than two dimensions is one matrix, (out, everything else), as a convolution's is: there are no batch
dimensions. Of a transposed convolution, pass `weight.transpose(0, 1)`. Results are not differentiable, except
`stable_rank`'s.
"""

import math
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from gan.normalization.power_iteration import as_in_memory, as_matrix


def _checked_matrix(weight: Tensor) -> Tensor:
    """The weight as a float64 matrix (out, everything else)."""
    if weight.ndim < 2:
        raise ValueError(f"weight: got shape {tuple(weight.shape)}, expected a matrix or more dimensions")
    if not weight.is_floating_point():
        raise ValueError(f"weight: got type {weight.dtype}, expected floating point")
    if weight.numel() == 0 or not torch.isfinite(weight).all():
        raise ValueError("weight: empty or not finite, so it has no singular values")
    return as_matrix(weight).double()


def _as_stored(matrix: Tensor, weight: Tensor) -> Tensor:
    """A float64 matrix with the shape, type and strides of the weight that it replaces."""
    stored = as_in_memory(matrix.view(weight.shape), weight).to(weight.dtype)
    if not torch.isfinite(stored).all():
        largest = float(matrix.abs().max())
        raise ValueError(
            f"{weight.dtype} cannot hold the projection, up to {largest:.3g}: pass a weight of a wider type"
        )
    return stored


def stable_rank(weight: Tensor) -> Tensor:
    """|W|_F^2 / |W|_2^2, a scalar in [1, rank W]; differentiable where the largest singular value is simple.

    Args:
        weight: a matrix, or a convolution's weight read as (out, in * kh * kw); any floating type.

    Returns:
        A scalar in the weight's type, at least float32; computed in float64.

    Raises:
        ValueError: no matrix, not floating point, not finite, or all zero.
    """
    values = torch.linalg.svdvals(_checked_matrix(weight))
    if values[0] == 0:
        raise ValueError("weight: all zero, so its stable rank is not defined")
    # Ratios first: squares of very large or small singular values would leave the range of float64.
    return (values / values[0]).square().sum().to(torch.promote_types(weight.dtype, torch.float32))


class Projection(NamedTuple):
    """The nearest weight of a stable rank; `stable_rank_projection` returns it.

    weight: gamma1 * S1 + gamma2 * S2, where S1 holds the first max(1, preserved) singular triples and S2 the rest.
    preserved: how many leading singular values are unchanged: l of Algorithm 1.
    gamma1, gamma2: factors of S1 and S2; both 1 where the stable rank was low enough.
    distance: Frobenius norm of the change.
    """

    weight: Tensor
    preserved: int
    gamma1: float
    gamma2: float
    distance: float


@torch.no_grad()
def stable_rank_projection(weight: Tensor, rank: float, preserve: int = 1) -> Projection:
    """The matrix of stable rank `rank` that is nearest to W in Frobenius norm. Sanyal et al. 2020, Theorem 1.

    With r = rank, singular values s1 >= s2 >= ..., and stable rank of W above r:

        preserve = 0:  gamma = sqrt(r - 1) s1 / |S2|_F,  gamma2 = (gamma + r - 1) / r,  gamma1 = gamma2 / gamma
        preserve > 0:  gamma1 = 1,  gamma2 = sqrt(r s1^2 - |S1|_F^2) / |S2|_F                        (Algorithm 1)

    Preserving more moves further. With preserve = 0 the spectral norm grows. preserve = k > 0 keeps the first k
    singular values if (s1^2 + ... + sk^2) / s1^2 <= r. A k for which that does not hold is infeasible; it does not
    raise: as in Algorithm 1, the projection falls back to the largest l < k for which it holds, and says so in
    `preserved`. Compare that with k where it matters.

    Where singular values are tied, the nearest matrix is not unique; values and distance are.

    Two cases that the paper leaves out: W whose stable rank is at most r already is returned unchanged, with
    preserved = min(k, rank of W); the formulas would raise it. |S2|_F is summed from the singular values that remain
    rather than by subtraction, which can end below zero.

    Args:
        weight: a matrix, or a convolution's weight read as (out, in * kh * kw); any floating type.
        rank: r, at least 1. At 1, S2 is removed.
        preserve: k, at least 0.

    Raises:
        ValueError: r < 1, which no matrix has; preserve < 0; a weight that is no matrix, not finite or all zero; an
            entry of the projection beyond the range of the weight's type.
    """
    matrix = _checked_matrix(weight)
    if not 1 <= rank < math.inf:
        raise ValueError(f"rank: got {rank}, expected 1 or more: no matrix has a stable rank below 1")
    if preserve < 0:
        raise ValueError(f"preserve: got {preserve}, expected 0 or more")
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    if values[0] == 0:
        raise ValueError("weight: all zero, so its stable rank is not defined")
    ratios = (values / values[0]).tolist()
    energies = [ratio * ratio for ratio in ratios]  # s_i^2 / s_1^2, so their sum is the stable rank
    # Ties and sums that equal r on paper differ from it by rounding; these are the sizes of that.
    rounding = 8 * max(matrix.shape) * torch.finfo(torch.float64).eps
    limit = rank * (1 + rounding)
    if math.fsum(energies) <= limit:
        full = sum(ratio > rounding for ratio in ratios)
        return Projection(weight.detach().clone(), min(preserve, full), 1.0, 1.0, 0.0)
    preserved = _preservable(energies, limit, preserve)
    split = max(1, preserved)
    head, tail = math.fsum(energies[:split]), math.sqrt(math.fsum(energies[split:]))
    if preserve == 0:
        gamma = math.sqrt(rank - 1) / tail
        gamma2 = (gamma + rank - 1) / rank
        gamma1 = (1 + math.sqrt(rank - 1) * tail) / rank  # gamma2 / gamma, also for gamma = 0
    else:
        gamma1, gamma2 = 1.0, math.sqrt(max(rank - head, 0.0)) / tail
    factors = values.new_full(values.shape, gamma2)
    factors[:split] = gamma1
    projected = (left * (values * factors)) @ right
    distance = float(values[0]) * math.hypot((1 - gamma1) * math.sqrt(head), (1 - gamma2) * tail)
    return Projection(_as_stored(projected, weight), preserved, gamma1, gamma2, distance)


def _preservable(energies: list[float], limit: float, preserve: int) -> int:
    """l of Algorithm 1: how many of the first `preserve` energies sum to at most the limit."""
    return sum(total <= limit for total in accumulate(energies[:preserve]))


@torch.no_grad()
def spectral_projection(weight: Tensor, bound: float = 1.0) -> Tensor:
    """The matrix of spectral norm at most `bound` that is nearest to W in Frobenius norm: singular values clipped.

    Sanyal et al. 2020, Algorithm 3; the squared distance is the sum of max(s_i - bound, 0)^2. Unlike spectral
    normalization it leaves W alone where its norm is at most `bound`, the zero matrix included, and it needs all
    singular values above `bound`: a projection after a step, not a reparametrization.

    Args:
        weight: a matrix, or a convolution's weight read as (out, in * kh * kw); any floating type.
        bound: positive.

    Raises:
        ValueError: bound not positive, a weight that is no matrix or not finite, or an entry beyond its type's range.
    """
    matrix = _checked_matrix(weight)
    if not 0 < bound < math.inf:
        raise ValueError(f"bound: got {bound}, expected a positive number")
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    excess = (left * (values - bound).clamp_min(0)) @ right
    return _as_stored(matrix - excess, weight)
