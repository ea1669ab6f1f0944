"""Fréchet distance between Gaussians fitted to features. Heusel et al. 2017; Dowson and Landau 1982.

d^2 = ||m1 - m2||^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2).

With S_i = F_i^T F_i the last trace is the sum of the singular values of F1 F2^T, which is also the sum of the square
roots of the eigenvalues of the symmetric F1 S2 F1^T. Both are real. The first, with centred features for F, is exact
for singular covariances; the second, with the Cholesky factor for F1, is faster.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from evaluation.errors import EvaluationError
from evaluation.images.features import float64_pair, float64_rows

CHUNK = 4096  # rows converted to float64 at a time
BLOCK = 256  # rows of a triangular factor multiplied at a time
ROUNDING = 1e-12  # relative difference of moments of the same features in another order


class Frechet(NamedTuple):
    """A squared Fréchet distance, and the method by which the trace of the matrix root was computed."""

    distance: float
    method: str  # "equal"; "cholesky"; "gram" if a side has few features; "eigh" if both covariances are singular


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean (D,) and unbiased covariance (D, D) of `count` features (None if unknown), float64."""

    mean: Tensor
    covariance: Tensor
    count: int | None

    @classmethod
    def of(cls, features: Tensor | Iterable[Tensor]) -> "Moments":
        """Computes moments of features (N, D) or of batches, in float64; sums are taken about the first batch's mean.

        Raises:
            EvaluationError: fewer than two rows, a wrong shape, different D, or features that are not finite.
        """
        batches: Iterable[Tensor] = features.split(CHUNK) if isinstance(features, Tensor) else features
        shift: Tensor | None = None
        count = 0
        for batch in batches:
            rows = float64_rows(batch, "Fréchet distance", at_least=1)
            if shift is None:
                shift = rows.mean(dim=0)
                total, products = torch.zeros_like(shift), rows.new_zeros(rows.shape[1], rows.shape[1])
            if rows.shape[1] != len(shift):
                raise EvaluationError(
                    f"Moments: got batches of {len(shift)} and of {rows.shape[1]} dimensions, expected equal numbers"
                )
            rows = rows - shift
            total += rows.sum(dim=0)
            products.addmm_(rows.T, rows)
            count += len(rows)
        if count < 2 or shift is None:
            raise EvaluationError(f"Moments: got {count} features, expected at least 2")
        covariance = (products - torch.outer(total, total) / count) / (count - 1)
        return cls(mean=shift + total / count, covariance=covariance, count=count)

    def to(self, device: torch.device) -> "Moments":
        """Returns the moments on a device; themselves if they are there already."""
        if self.mean.device == device:
            return self
        return Moments(self.mean.to(device), self.covariance.to(device), self.count)

    @cached_property
    def trace(self) -> float:
        """Trace of the covariance."""
        return float(self.covariance.trace())

    @cached_property
    def factor(self) -> Tensor | None:
        """Upper triangular F (A, D) with F^T F = covariance, by Cholesky; None if the covariance is singular.

        A is the number of features that vary: constant features are left out and do not make the covariance singular.
        """
        alive = self.covariance.diagonal() > 0
        triangle, failed = torch.linalg.cholesky_ex(self.covariance[alive][:, alive], upper=True)
        if int(failed):
            return None
        factor = self.covariance.new_zeros(len(triangle), len(alive))
        factor[:, alive] = triangle
        return factor

    @cached_property
    def root(self) -> Tensor:
        """F (A, D) with F^T F = covariance: `factor`, else computed from eigenvectors with positive eigenvalues."""
        if self.factor is not None:
            return self.factor
        values, vectors = torch.linalg.eigh(self.covariance)
        kept = values > values[-1].clamp(min=0) * len(values) * torch.finfo(values.dtype).eps
        return values[kept].sqrt()[:, None] * vectors[:, kept].T


@dataclass(frozen=True, eq=False)
class CentredFeatures:
    """A Gaussian fitted to N <= D features: mean (D,) and root (N, D), float64, root^T root = covariance.

    The root is the centred features over sqrt(N - 1). It is exact even though the (D, D) covariance is singular.
    """

    mean: Tensor
    root: Tensor

    @classmethod
    def of(cls, features: Tensor) -> "CentredFeatures":
        """Fits a Gaussian to features (N, D), N >= 2."""
        rows = float64_rows(features, "Fréchet distance")
        mean = rows.mean(dim=0)
        return cls(mean, (rows - mean) / (len(rows) - 1) ** 0.5)

    def to(self, device: torch.device) -> "CentredFeatures":
        """Returns the moments on a device; themselves if they are there already."""
        return self if self.mean.device == device else CentredFeatures(self.mean.to(device), self.root.to(device))

    @cached_property
    def trace(self) -> float:
        """Trace of the covariance."""
        return float(self.root.square().sum())


Gaussian = Moments | CentredFeatures


def fit(features: Tensor) -> Gaussian:
    """Fits a Gaussian to features (N, D), with unbiased covariance: `CentredFeatures` if N <= D, else `Moments`."""
    few = features.ndim == 2 and len(features) <= features.shape[1]
    return CentredFeatures.of(features) if few else Moments.of(features)


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Computes the squared Fréchet distance of two Gaussians; raises EvaluationError for different dimensions."""
    return frechet(a, b).distance


def frechet_distance_of_features(x: Tensor, y: Tensor) -> float:
    """Computes the squared Fréchet distance of Gaussians fitted to features (N, D) and (M, D), exactly for any N and M.

    Raises:
        EvaluationError: fewer than two rows, different D, or features that are not finite.
    """
    return frechet_of_features(x, y).distance


def frechet(a: Gaussian, b: Gaussian) -> Frechet:
    """Computes `frechet_distance` and the method used. Caches the Cholesky factor of `a`: pass the reference as `a`."""
    if a.mean.shape != b.mean.shape:
        raise EvaluationError(
            f"frechet_distance: got {len(a.mean)} and {len(b.mean)} dimensions, expected equal numbers"
        )
    shift = float((a.mean - b.mean).square().sum())
    if _are_equal(a, b, shift):
        return Frechet(0.0, "equal")
    trace_root, method = _trace_of_root(a, b)
    return Frechet(max(shift + a.trace + b.trace - 2 * trace_root, 0.0), method)


def frechet_of_features(x: Tensor, y: Tensor) -> Frechet:
    """Computes `frechet_distance_of_features` and the method used."""
    x, y = float64_pair(x, y, "frechet_distance_of_features")
    return frechet(fit(x), fit(y))


def _are_equal(a: Gaussian, b: Gaussian, shift: float) -> bool:
    """Returns whether moments differ by no more than rounding, as those of the same features in another order.

    The distance is at most ||m1 - m2||^2 + ||S1 - S2||_*, by Powers and Stormer's inequality, but the computed trace of
    the root may be wrong by the square root of the rounding error.
    """
    if shift > ROUNDING**2 * float(a.mean.square().sum() + a.trace):
        return False
    one, other = (side.covariance if isinstance(side, Moments) else side.root.T @ side.root for side in (a, b))
    return float((one - other).norm()) <= ROUNDING * a.trace


def _trace_of_root(a: Gaussian, b: Gaussian) -> tuple[float, str]:
    if isinstance(a, Moments) and isinstance(b, Moments):
        for one, other in ((a, b), (b, a)):
            if one.factor is not None:
                eigenvalues = torch.linalg.eigvalsh(_lower_of_product(one.factor, other.covariance))
                return float(eigenvalues.clamp(min=0).sqrt().sum()), "cholesky"
        return float(torch.linalg.svdvals(a.root @ b.root.T).sum()), "eigh"
    return float(torch.linalg.svdvals(a.root @ b.root.T).sum()), "gram"


def _lower_of_product(factor: Tensor, covariance: Tensor) -> Tensor:
    """Computes the lower triangle of F S F^T for upper triangular F, by blocks, with half of the multiplications."""
    half = covariance.new_empty(factor.shape)
    product = covariance.new_zeros(len(factor), len(factor))
    for start in range(0, len(factor), BLOCK):
        end = start + BLOCK
        half[start:end] = factor[start:end, start:] @ covariance[start:]
    for start in range(0, len(factor), BLOCK):
        end = start + BLOCK
        product[start:, start:end] = half[start:, start:] @ factor[start:end, start:].T
    return product
