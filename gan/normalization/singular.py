"""Exact leading singular pairs and singular values of a matrix, in float64."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from gan.normalization.power_iteration import full_precision

SMALL_SIDE, SMALL_SIZE = 256, 2**20
"""Smaller side and number of entries up to which leading pairs come from an SVD."""
GRAM_SIDE = 1024
"""Smaller side up to which all singular values are computed for logging."""
MOST_STEPS, STEPS_PER_CHECK = 1000, 10
BASIS_SIZE, SMALLEST_BASIS = 2**26, 20
"""Entries of the vectors that a Lanczos iteration keeps, and the smallest number of vectors."""
RESIDUAL = 1e-6
"""Residual of the leading eigenvalue sigma^2, relative to it; the relative error of sigma is at most half as large."""

NOT_FINITE = "the weight has NaN or infinite entries"
AFTER_DIVERGENCE = "training diverged, load an earlier checkpoint"


@torch.no_grad()
def exact_pair_(matrix: Tensor, u: Tensor, v: Tensor) -> None:
    """Sets u, v to the leading singular pair; the sign is that of the previous u.

    Small matrices have an SVD in float64. For others, u^T W v is the largest singular value up to a relative 1e-6;
    where several singular values are as close as that, u and v are of the space of their singular vectors.

    Raises:
        ValueError: an entry is not finite.
    """
    _check_finite(matrix)
    left, right = _leading_pair(matrix)
    sign = torch.where(left @ u.double() < 0, -1.0, 1.0)
    u.copy_(sign * left)
    v.copy_(sign * right)


def _leading_pair(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the leading singular pair u (rows,), v (columns,) of a finite matrix, in float64."""
    wide = _wide(matrix)
    if min(matrix.shape) > SMALL_SIDE or matrix.numel() > SMALL_SIZE:
        is_tall = matrix.shape[0] > matrix.shape[1]
        low, exact = (matrix.mH, wide.mH) if is_tall else (matrix, wide)
        with full_precision(matrix):
            u = _by_lanczos(low) if len(low) > SMALL_SIDE else torch.linalg.eigh(exact @ exact.mH).eigenvectors[:, -1]
        v = torch.mv(exact.mH, u.to(exact)) if u is not None else exact.new_zeros(1)
        if v.any():  # not so for a matrix of zeros
            v = normalize(v, dim=0, eps=0)
            u = normalize(torch.mv(exact, v), dim=0, eps=0)
            return (v, u) if is_tall else (u, v)
    left, _, right = torch.linalg.svd(wide, full_matrices=False)
    return left[:, 0], right[0].conj()


def _by_lanczos(matrix: Tensor) -> Tensor | None:
    """Returns the leading left singular vector of W (rows, columns), rows <= columns; None if it is not found.

    Lanczos iteration for W W^T from a start of fixed seed, in the type of W, at least float32. Products with one vector
    at a time are faster than a block's: they read the matrix once and need not repack it.
    """
    matrix = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    scale = float(matrix.abs().max())
    start = torch.randn(len(matrix), generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def square(vector: Tensor) -> Tensor:
        return torch.mv(matrix, torch.mv(matrix.mH, vector) / scale) / scale

    vector, converged = leading_eigenvector(square, normalize(start.to(matrix), dim=0), RESIDUAL)
    return vector if converged else None


def leading_eigenvector(apply: Callable[[Tensor], Tensor], start: Tensor, residual: float) -> tuple[Tensor, bool]:
    """Returns the leading eigenvector of a positive semidefinite map, and whether it is found.

    Lanczos iteration with full reorthogonalization; it restarts from the best vector whenever the basis is full.

    Args:
        apply: maps a vector (N,) to its image.
        start: a unit vector (N,).
        residual: length of the residual, relative to the eigenvalue, at which the iteration ends.
    """
    rows = len(start)
    basis = start.new_empty(min(rows, MOST_STEPS, max(BASIS_SIZE // rows, SMALLEST_BASIS)), rows)
    vector, left, converged = start, MOST_STEPS, False
    while left > 0 and not converged:
        vector, used, converged = _one_basis(apply, vector, residual, basis[:left])
        left -= used or left
    return vector, converged


def _one_basis(
    apply: Callable[[Tensor], Tensor], vector: Tensor, residual: float, basis: Tensor
) -> tuple[Tensor, int, bool]:
    """Returns the best vector of a Krylov space, its dimension, and whether the vector has converged.

    The dimension is 0 if the map is zero or a number is not finite.
    """
    start, rows = vector, len(vector)
    diagonal: list[float] = []
    beside: list[float] = []
    for step in range(len(basis)):
        basis[step] = vector
        known = basis[: step + 1]
        image = apply(vector)
        diagonal.append(float(torch.vdot(vector, image).real))
        for _ in range(2):
            image -= torch.mv(known.mT, torch.mv(known.conj(), image))
        beside.append(float(torch.linalg.vector_norm(_wide(image))))
        if not math.isfinite(beside[-1]):
            return start, 0, False
        ends = beside[-1] <= residual * max(diagonal)
        last = step + 1 == len(basis)
        if ends or (step + 1) % STEPS_PER_CHECK == 0 or last:
            value, combination = _largest_eigenpair(diagonal, beside[:-1])
            complete = step + 1 == rows
            converged = value > 0 and (beside[-1] * abs(float(combination[-1])) <= residual * value or complete)
            if converged or last or value <= 0:
                found = torch.mv(known.mT, combination.to(basis))
                return found, step + 1 if value > 0 else 0, converged
        vector = image / beside[-1]
    raise AssertionError("a basis has at least one vector")


def _largest_eigenpair(diagonal: Sequence[float], beside: Sequence[float]) -> tuple[float, Tensor]:
    """Returns the largest eigenvalue of a symmetric tridiagonal matrix and its eigenvector, float64."""
    off = torch.diag(torch.tensor(beside, dtype=torch.float64), 1)
    values, vectors = torch.linalg.eigh(torch.diag(torch.tensor(diagonal, dtype=torch.float64)) + off + off.T)
    return float(values[-1]), vectors[:, -1]


@torch.no_grad()
def norm_and_stable_rank(matrix: Tensor) -> tuple[float, float]:
    """Returns the largest singular value and the stable rank; 0 and 0 for a matrix of zeros.

    Raises:
        ValueError: an entry is not finite.
    """
    if min(matrix.shape) <= GRAM_SIDE:
        values = singular_values(matrix)
        if not values.numel() or not values[0] > 0:
            return 0.0, 0.0
        return float(values[0]), float((values / values[0]).square().sum())
    _check_finite(matrix)
    _, v = _leading_pair(matrix)
    sigma, norm = (float(torch.linalg.vector_norm(values)) for values in (torch.mv(_wide(matrix), v), _wide(matrix)))
    return (sigma, (norm / sigma) ** 2) if sigma > 0 else (0.0, 0.0)


@torch.no_grad()
def singular_values(matrix: Tensor) -> Tensor:
    """Returns all singular values, descending, float64 (min(rows, columns),), from the smaller Gram matrix.

    Meant for logging, at a fraction of the cost of an SVD: squaring halves the correct digits of small singular values,
    but not of large ones and sums of squares.

    Raises:
        ValueError: an entry is not finite.
    """
    _check_finite(matrix)
    matrix = _wide(matrix)
    gram = matrix @ matrix.mH if matrix.shape[0] <= matrix.shape[1] else matrix.mH @ matrix
    return torch.linalg.eigvalsh(gram).clamp_min(0).sqrt().flip(0)


def _wide(matrix: Tensor) -> Tensor:
    """Returns a matrix in float64, or in complex128."""
    return matrix.to(torch.complex128 if matrix.is_complex() else torch.float64)


def _check_finite(matrix: Tensor) -> None:
    if not torch.isfinite(matrix).all():
        raise ValueError(f"{NOT_FINITE}, so it has no singular values: {AFTER_DIVERGENCE}")
