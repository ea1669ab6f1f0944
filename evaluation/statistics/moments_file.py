"""Reads and writes mean and covariance of reference features in the format of pytorch-fid, clean-fid and ADM."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation.errors import EvaluationError
from evaluation.images.checks import fingerprint
from evaluation.runtime.files import check_writable, read_arrays, replacing
from evaluation.statistics.frechet import CentredFeatures, Gaussian, Moments

SYMMETRIC = 1e-4  # largest difference of the covariance and its transpose, relative to its largest entry
SEMIDEFINITE = 1e-6  # most negative eigenvalue that rounding explains, relative to the largest
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Origin of statistics, which files of this package record.

    Attributes:
        reference: name of the images.
        num_images: number of images.
        image_size: height and width of the images, such as "32x32".
        extractor: name of the extractor.
        images: protocol fields of the images, as in `Context.image_fields`.
        features: protocol fields of the extractor, as in `Context.extractor_fields`.
    """

    reference: str
    num_images: int
    image_size: str
    extractor: str
    images: dict[str, Any]
    features: dict[str, Any]

    @classmethod
    def read(cls, text: str) -> "Origin":
        """Reads the form that `write_statistics` writes; raises ValueError, KeyError or TypeError for another one."""
        content = json.loads(text)
        if content.pop("format") != FORMAT:
            raise ValueError("format")
        found = cls(**content)
        for name, kind in cls.__annotations__.items():
            if not isinstance(getattr(found, name), dict if "dict" in str(kind) else kind):
                raise ValueError(name)
        return found

    @property
    def summary(self) -> str:
        """One line on the statistics."""
        return f"statistics of {self.num_images:,} images ({self.reference}) by extractor {self.extractor}"

    def text(self) -> str:
        """The inverse of `read`."""
        return json.dumps({"format": FORMAT, **vars(self)}, sort_keys=True)


@dataclass(frozen=True)
class Statistics:
    """Moments from a file, with the SHA-256 of both arrays. origin: None for files of other programs."""

    moments: Gaussian
    sha256: str
    name: str
    origin: Origin | None = field(default=None)


def check_target(path: Path) -> None:
    """Checks, without creating anything, that statistics can be written to a path.

    Raises:
        EvaluationError: another suffix, or the file cannot be written.
    """
    if path.suffix != ".npz":
        raise EvaluationError(f"statistics: got {path}, expected a file name that ends with .npz")
    if path.is_dir():
        raise EvaluationError(f"statistics: {path} is a folder, expected a file name that ends with .npz")
    try:
        check_writable(path.parent)
    except OSError as error:
        raise EvaluationError(
            f"statistics: {path} cannot be written: {error.filename}: {error.strerror}; choose another file"
        ) from None


def write_statistics(path: str | Path, moments: Gaussian, origin: Origin) -> None:
    """Writes statistics as an `.npz` file, atomically; `read_statistics` reads exactly these moments.

    Arrays: `mu` (D,) and `sigma` (D, D), float64, which pytorch-fid and clean-fid read; `origin`, a JSON text; `sha256`
    of the numbers and the origin. If there are no more images than dimensions, sigma is singular and its root loses
    digits, so `root` (N, D), the centred features over sqrt(N - 1), is kept too.

    Raises:
        EvaluationError: another suffix, or the file cannot be written.
    """
    path = Path(path)
    check_target(path)
    moments = moments.to(torch.device("cpu"))
    if isinstance(moments, CentredFeatures):
        numbers = {"mu": moments.mean, "sigma": moments.root.T @ moments.root, "root": moments.root}
    else:
        numbers = {"mu": moments.mean, "sigma": moments.covariance}
    texts = {"origin": np.array(origin.text()), "sha256": np.array(_digest(numbers, origin.text()))}
    arrays = {**{name: tensor.numpy() for name, tensor in numbers.items()}, **texts}
    try:
        with replacing(path) as partial:
            np.savez(partial, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be written ({error.strerror or error})") from error


def read_statistics(path: str | Path) -> Statistics:
    """Reads mu (D,) and sigma (D, D) from an `.npz` file, without unpickling, and the origin if it is recorded.

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
    mu, sigma = _checked(arrays["mu"], arrays["sigma"], path)
    digest = fingerprint(torch.cat([mu[None], sigma]))
    symmetric = (sigma + sigma.T) / 2
    _check_semidefinite(symmetric, path)
    origin, root = _origin(arrays, path)
    if origin is None:
        return Statistics(Moments(mean=mu, covariance=symmetric, count=None), digest, path.name)
    moments: Gaussian = Moments(mu, sigma, origin.num_images) if root is None else CentredFeatures(mu, root)
    return Statistics(moments, digest, path.name, origin)


def _checked(mean: np.ndarray, covariance: np.ndarray, path: Path) -> tuple[Tensor, Tensor]:
    """Returns finite mu (D,) and symmetric sigma (D, D), float64."""
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
    return mu, sigma


def _check_semidefinite(symmetric: Tensor, path: Path) -> None:
    eigenvalues = torch.linalg.eigvalsh(symmetric)  # ascending; about a second for D = 2048
    lowest, highest = float(eigenvalues[0]), float(eigenvalues[-1])
    if not lowest >= -SEMIDEFINITE * abs(highest):  # refuses NaN too
        raise EvaluationError(
            f"{path}: got a sigma that is not a covariance, with eigenvalues from {lowest:.3g} to {highest:.3g}, "
            "expected none below 0"
        )


def _origin(arrays: dict[str, np.ndarray], path: Path) -> tuple[Origin | None, Tensor | None]:
    """Returns the recorded origin and root of a file of `write_statistics`, None for files of other programs.

    Raises:
        EvaluationError: the file was changed.
    """
    if not {"origin", "sha256"} <= arrays.keys():
        return None, None
    try:
        origin = Origin.read(str(arrays["origin"]))
        names = ["mu", "sigma", "root"] if "root" in arrays else ["mu", "sigma"]
        numbers = {name: torch.from_numpy(arrays[name]) for name in names}
        if _digest(numbers, origin.text()) != str(arrays["sha256"]):
            raise ValueError("sha256")
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise EvaluationError(
            f"{path}: was changed after it was written ({error!r}); write it again with --write-statistics"
        ) from error
    return origin, numbers.get("root")


def _digest(numbers: dict[str, Tensor], origin: str) -> str:
    rows = torch.cat([tensor if tensor.ndim == 2 else tensor[None] for tensor in numbers.values()])
    return fingerprint(rows, torch.tensor(list(origin.encode())))
