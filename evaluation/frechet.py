"""Fréchet distance between Gaussians fitted to features. Heusel et al. 2017; Dowson and Landau 1982.

d^2 = ||m1 - m2||^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2).

With S_i = F_i^T F_i the last trace is the sum of the singular values of F1 F2^T, and with the Cholesky factor
S1 = L L^T it is the sum of the square roots of the eigenvalues of the symmetric L^T S2 L. Both stay in the reals.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from evaluation.errors import EvaluationError

CHUNK = 4096  # rows turned to float64 at a time


class Frechet(NamedTuple):
    """A squared Fréchet distance and how the trace of the root was computed."""

    distance: float
    method: str  # "cholesky", "eigh" or "gram"


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean (D,) and unbiased covariance (D, D) of `count` features (None: a file did not say), float64."""

    mean: Tensor
    covariance: Tensor
    count: int | None

    @classmethod
    def of(cls, features: Tensor | Iterable[Tensor]) -> "Moments":
        """Of features (N, D), or of batches of them; sums are taken about the first batch's mean, in float64.

        Raises:
            EvaluationError: fewer than two rows, another shape, or features that are not finite.
        """
        batches: Iterable[Tensor] = features.split(CHUNK) if isinstance(features, Tensor) else features
        shift: Tensor | None = None
        count = 0
        for batch in batches:
            rows = _checked(batch)
            if shift is None:
                shift = rows.mean(dim=0)
                total, products = torch.zeros_like(shift), rows.new_zeros(rows.shape[1], rows.shape[1])
            rows = rows - shift
            total += rows.sum(dim=0)
            products.addmm_(rows.T, rows)
            count += len(rows)
        if count < 2 or shift is None:
            raise EvaluationError(f"Moments: got {count} features, expected at least 2")
        covariance = (products - torch.outer(total, total) / count) / (count - 1)
        return cls(mean=shift + total / count, covariance=covariance, count=count)

    @cached_property
    def root(self) -> Tensor:
        """F with F^T F = covariance, by eigendecomposition; directions of no variance are left out."""
        values, vectors = torch.linalg.eigh(self.covariance)
        kept = values > values[-1].clamp(min=0) * len(values) * torch.finfo(values.dtype).eps
        return values[kept].sqrt()[:, None] * vectors[:, kept].T


def frechet_distance(a: Moments, b: Moments) -> float:
    """Squared Fréchet distance of two Gaussians.

    Raises:
        EvaluationError: moments of different dimension.
    """
    return frechet(a, b).distance


def frechet_distance_of_features(x: Tensor, y: Tensor) -> float:
    """Squared Fréchet distance of Gaussians fitted to features (N, D) and (M, D); exact also for fewer rows than D.

    Raises:
        EvaluationError: fewer than two rows, different D, or features that are not finite.
    """
    return frechet_of_features(x, y).distance


def frechet(a: Moments, b: Moments) -> Frechet:
    """`frechet_distance` with its method: Cholesky where one covariance has full rank, else eigendecomposition."""
    if a.mean.shape != b.mean.shape:
        raise EvaluationError(f"frechet_distance: got dimensions {len(a.mean)} and {len(b.mean)}, expected equal ones")
    traces = float(a.covariance.trace() + b.covariance.trace())
    shift = float((a.mean - b.mean).square().sum())
    trace_root, method = _trace_of_root(a, b)
    return Frechet(max(shift + traces - 2 * trace_root, 0.0), method)


def frechet_of_features(x: Tensor, y: Tensor) -> Frechet:
    """`frechet_distance_of_features` with its method: moments, or the cross-Gram's singular values for few rows."""
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise EvaluationError(
            f"frechet_distance_of_features: got shapes {tuple(x.shape)} and {tuple(y.shape)}, "
            "expected (N, D) and (M, D)"
        )
    if min(len(x), len(y)) > x.shape[1]:
        return frechet(Moments.of(x), Moments.of(y))
    (mean_x, rows_x), (mean_y, rows_y) = _centred(x), _centred(y)
    shift = (mean_x - mean_y).square().sum()
    traces = rows_x.square().sum() + rows_y.square().sum()
    trace_root = torch.linalg.svdvals(_short(rows_x) @ _short(rows_y).T).sum()
    return Frechet(max(float(shift + traces - 2 * trace_root), 0.0), "gram")


def _trace_of_root(a: Moments, b: Moments) -> tuple[float, str]:
    # A direction without variance on either side adds nothing to the trace; dead units would make Cholesky fail.
    alive = (a.covariance.diagonal() > 0) & (b.covariance.diagonal() > 0)
    first, second = (moments.covariance[alive][:, alive] for moments in (a, b))
    factor, failed = torch.linalg.cholesky_ex(first)
    if int(failed):
        return float(torch.linalg.svdvals(a.root @ b.root.T).sum()), "eigh"
    eigenvalues = torch.linalg.eigvalsh(factor.T @ second @ factor)
    return float(eigenvalues.clamp(min=0).sqrt().sum()), "cholesky"


def _centred(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,), and rows (N, D) with rows^T rows = covariance."""
    rows = _checked(features)
    if len(rows) < 2:
        raise EvaluationError(f"frechet_distance_of_features: got {len(rows)} features, expected at least 2")
    mean = rows.mean(dim=0)
    return mean, (rows - mean) / (len(rows) - 1) ** 0.5


def _short(rows: Tensor) -> Tensor:
    """At most D rows with the same rows^T rows."""
    return torch.linalg.qr(rows, mode="r").R if len(rows) > rows.shape[1] else rows


def _checked(features: Tensor) -> Tensor:
    if features.ndim != 2 or not features.is_floating_point():
        raise EvaluationError(f"Fréchet distance: got features {tuple(features.shape)}, expected floats (N, D)")
    if not bool(features.isfinite().all()):
        raise EvaluationError("Fréchet distance: got features that are not finite, expected numbers")
    return features.double()
