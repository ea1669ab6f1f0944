"""FID extrapolated to infinitely many generated images (Chong and Forsyth 2020).

For N generated images the bias of FID is about c / N. A straight line in 1 / N is fitted to the FID of random subsets
and extrapolated to 1 / N = 0. The bias from the finite number of reference images remains.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from evaluation.context import Context
from evaluation.errors import EvaluationError
from evaluation.metrics.fid import check as check_fid
from evaluation.metrics.fid import reference_moments, reference_record
from evaluation.reporting.value import Value
from evaluation.statistics.frechet import Gaussian, fit, frechet
from evaluation.statistics.intervals import student_interval

SIZES = 15  # as in the paper


class FidInfinity(NamedTuple):
    """Fitted line FID = value + slope / N; `standard_error` is the standard error of `value`."""

    value: float
    slope: float
    standard_error: float
    r_squared: float
    sizes: tuple[int, ...]
    distances: tuple[float, ...]


def fid_infinity(features: Tensor, reference: Gaussian, *, seed: int = 0) -> FidInfinity:
    """Fits Fréchet distances of random subsets of features (N, D) by a line in 1 / N. Algorithm 1.

    The seed draws the subsets independently, at 15 sizes from `smallest_subset` to N in equal steps.

    Raises:
        EvaluationError: fewer than 30 features, other dimensions than the reference, or features that are not finite.
    """
    if len(features) < 2 * SIZES:
        raise EvaluationError(f"fid_infinity: got {len(features)} features, expected at least {2 * SIZES}")
    generator = torch.Generator("cpu").manual_seed(seed)
    sizes = np.linspace(smallest_subset(*features.shape), len(features), SIZES).round().astype(int)
    distances = []
    for size in sizes:
        rows = torch.randperm(len(features), generator=generator, device="cpu")[:size]
        distances.append(frechet(reference, fit(features[rows.to(features.device)])).distance)
    return _line(sizes, np.array(distances))


def smallest_subset(count: int, dimension: int) -> int:
    """Returns the smallest subset size: count / 10, as in the paper, but at least the lesser of 2 D and count / 2.

    The bias is about c / N only for 2 D features or more.
    """
    return max(count // 10, min(2 * dimension, count // 2))


def _line(sizes: np.ndarray, distances: np.ndarray) -> FidInfinity:
    """Fits distance = value + slope / size by least squares."""
    (slope, value), covariance = np.polyfit(1 / sizes, distances, 1, cov=True)
    residual, total = np.var(distances - value - slope / sizes), np.var(distances)
    return FidInfinity(
        value=float(value),
        slope=float(slope),
        standard_error=float(np.sqrt(covariance[1, 1])),
        r_squared=float(1 - residual / total) if total else 1.0,
        sizes=tuple(int(size) for size in sizes),
        distances=tuple(float(distance) for distance in distances),
    )


def check(context: Context) -> None:
    """Raises EvaluationError for too few generated images; see `fid.check`, too."""
    count = context.required("num_fid")
    if 0 < count < 2 * SIZES:
        raise EvaluationError(
            f"metric fid_infinity: got {count} generated images, expected at least {2 * SIZES}; give more, or raise "
            f"{context.setting('num_fid')} if it is smaller"
        )
    check_fid(context)


def measure(context: Context) -> list[Value]:
    """Measures FID-infinity of the first `num_fid` generated images against `num_real` reference images."""
    count, seed = context.required("num_fid"), context.settings.seed
    features = context.features("generated", count).to(context.float64_device)
    result = fid_infinity(features, reference_moments(context, features.shape[1]), seed=seed)
    fields = {"num_generated": count, "sizes": list(result.sizes), "seed": seed, **context.reference_fields()}
    record = {
        **reference_record(context, count),
        "r_squared": result.r_squared,
        "slope": result.slope,
        "interval": "least squares, Student's t; the subsets overlap",
    }
    arrays = {"sizes": np.array(result.sizes), "distances": np.array(result.distances)}
    interval = student_interval(result.value, result.standard_error, SIZES - 2)
    return [
        context.value(
            "fid_infinity", result.value, count, "lower", fields, record=record, arrays=arrays, interval=interval
        )
    ]
