"""Reads mean and covariance of reference features from files in the format of pytorch-fid, clean-fid and ADM."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from evaluation.errors import EvaluationError
from evaluation.images.checks import fingerprint
from evaluation.runtime.files import read_arrays
from evaluation.statistics.frechet import Moments

SYMMETRIC = 1e-4  # largest difference of the covariance and its transpose, relative to its largest entry
SEMIDEFINITE = 1e-6  # most negative eigenvalue that rounding explains, relative to the largest


@dataclass(frozen=True)
class Statistics:
    """Moments from a file, with the SHA-256 of both arrays. The number of images is unknown."""

    moments: Moments
    sha256: str
    name: str


def read_statistics(path: str | Path) -> Statistics:
    """Reads mu (D,) and sigma (D, D) from an `.npz` file, without unpickling.

    Raises:
        EvaluationError: the file is missing or damaged, or its arrays are not a mean and a covariance.
    """
    path = Path(path)
    try:
        arrays = read_arrays(path)
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path}: cannot be read as an .npz file of statistics ({error})") from error
    if not {"mu", "sigma"} <= arrays.keys():
        raise EvaluationError(f"{path}: got arrays {', '.join(sorted(arrays))}, expected mu and sigma")
    mean, covariance = arrays["mu"], arrays["sigma"]
    shapes = f"mu {mean.dtype} {mean.shape}, sigma {covariance.dtype} {covariance.shape}"
    floating = mean.dtype.kind == covariance.dtype.kind == "f"
    if mean.ndim != 1 or not len(mean) or covariance.shape != (len(mean), len(mean)) or not floating:
        raise EvaluationError(f"{path}: got {shapes}, expected floats mu (D,) and sigma (D, D)")
    mu, sigma = torch.from_numpy(mean.astype(np.float64)), torch.from_numpy(covariance.astype(np.float64))
    if not bool(mu.isfinite().all() and sigma.isfinite().all()):
        raise EvaluationError(f"{path}: got statistics that are not finite, expected finite values")
    skew = float((sigma - sigma.T).abs().max())
    if skew > SYMMETRIC * float(sigma.abs().max()):
        raise EvaluationError(f"{path}: got a sigma that is not a covariance, expected a symmetric matrix")
    symmetric = (sigma + sigma.T) / 2
    eigenvalues = torch.linalg.eigvalsh(symmetric)  # ascending; about a second for D = 2048
    lowest, highest = float(eigenvalues[0]), float(eigenvalues[-1])
    if not lowest >= -SEMIDEFINITE * abs(highest):  # refuses NaN too
        raise EvaluationError(
            f"{path}: got a sigma that is not a covariance, with eigenvalues from {lowest:.3g} to {highest:.3g}, "
            "expected none below 0"
        )
    digest = fingerprint(torch.cat([mu[None], sigma]))
    return Statistics(Moments(mean=mu, covariance=symmetric, count=None), digest, path.name)
