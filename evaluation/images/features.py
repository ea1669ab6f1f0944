"""Extraction of features and logits, batch by batch."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from evaluation.errors import EvaluationError
from evaluation.extractors import Extractor
from evaluation.images.checks import three_channels
from evaluation.images.streams import ahead, upload
from evaluation.runtime.isolation import isolated
from evaluation.runtime.processes import gathered, own_part
from evaluation.runtime.progress import progress

HELD = 4096  # images whose features are collected on the device between copies to the CPU; 50 MB with Inception


class Features(NamedTuple):
    """Features and logits of N images, on the CPU."""

    features: Tensor  # float32 (N, D)
    logits: Tensor | None  # float32 (N, K)

    def first(self, count: int) -> "Features":
        """Returns the first `count` rows."""
        return Features(self.features[:count], None if self.logits is None else self.logits[:count])

    def joined(self, more: "Features") -> "Features":
        """Returns these rows, followed by those of `more`."""
        both = self.logits is not None and more.logits is not None
        logits = torch.cat([self.logits, more.logits]) if both else None  # type: ignore[list-item]
        return Features(torch.cat([self.features, more.features]), logits)

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns arrays by name; the inverse of `of_arrays`."""
        arrays = {"features": self.features.numpy()}
        return arrays if self.logits is None else {**arrays, "logits": self.logits.numpy()}

    @classmethod
    def of_arrays(cls, arrays: dict[str, np.ndarray]) -> "Features":
        """Builds features from arrays by name."""
        logits = arrays.get("logits")
        return cls(torch.from_numpy(arrays["features"]), None if logits is None else torch.from_numpy(logits))


def check_rows(features: Tensor, name: str) -> None:
    """Checks that features are floats (N, D); `name` begins the error message.

    Raises:
        EvaluationError: not a tensor, or a wrong shape or dtype.
    """
    if not isinstance(features, Tensor):
        raise EvaluationError(f"{name}: got {type(features).__name__}, expected a torch tensor of floats (N, D)")
    if features.ndim != 2 or not features.is_floating_point():
        raise EvaluationError(f"{name}: got features {tuple(features.shape)}, expected floats (N, D)")


def float64_rows(features: Tensor, name: str, *, at_least: int = 2) -> Tensor:
    """Checks features (N, D) and returns them as float64; `name` begins the error message.

    Raises:
        EvaluationError: not a tensor, a wrong shape or dtype, fewer than `at_least` rows, or values not finite.
    """
    check_rows(features, name)
    if len(features) < at_least:
        raise EvaluationError(f"{name}: got {len(features)} features, expected at least {at_least}")
    if not bool(features.isfinite().all()):
        raise EvaluationError(f"{name}: got features that are not finite, expected finite values")
    return features.double()


def float64_pair(x: Tensor, y: Tensor, name: str, *, at_least: int = 2) -> tuple[Tensor, Tensor]:
    """Checks features (N, D) and (M, D) and returns them as float64.

    Raises:
        EvaluationError: see `float64_rows`; or different D.
    """
    rows_x, rows_y = float64_rows(x, name, at_least=at_least), float64_rows(y, name, at_least=at_least)
    if rows_x.shape[1] != rows_y.shape[1]:
        raise EvaluationError(f"{name}: got {tuple(x.shape)} and {tuple(y.shape)}, expected features of one dimension")
    return rows_x, rows_y


def extract(images: Tensor, extractor: Extractor, *, batch_size: int, device: torch.device | str) -> Features:
    """Extracts features and logits of uint8 images (N, C, H, W), in float32 without TF32 or autocast.

    The batch size affects memory, speed and the rounding of values. With several processes, each process extracts its
    part of the batches and returns all features.

    Raises:
        EvaluationError: the extractor returns values that are not finite.
    """
    device = torch.device(device)
    own = images[own_part(len(images), batch_size)]
    batches = (upload(batch, device) for batch in (own.split(batch_size) if len(own) else ()))
    features = _FeatureBuffer(extractor)
    _collect(batches, [features], len(own), f"{extractor.name} features", device)
    return features.all()


def extract_as_made(
    batches: Iterable[Tensor], extractors: Sequence[Extractor], *, count: int, device: torch.device | str
) -> tuple[Tensor, list[Features]]:
    """Collects images that are generated batch by batch, and extracts their features with each extractor.

    On a CUDA device a batch is generated while the extractors process the previous one. With several processes, each
    process generates its part of the batches and returns all images and features.

    Args:
        batches: batches of this process, uint8 (B, C, H, W) on the device; generated without TF32 or autocast.
        count: number of images of this process.

    Returns:
        images uint8 (N, C, H, W) on the CPU, and `Features` in the order of the extractors.

    Raises:
        EvaluationError: an extractor returns values that are not finite.
    """
    images, features = _RowBuffer(), [_FeatureBuffer(extractor) for extractor in extractors]
    _collect(batches, [images, *features], count, "images and their features", torch.device(device))
    return images.all(), [one.all() for one in features]


def _collect(
    batches: Iterable[Tensor],
    buffers: "Sequence[_RowBuffer | _FeatureBuffer]",
    count: int,
    title: str,
    device: torch.device,
) -> None:
    with isolated(), torch.inference_mode(), progress(count, title, "images") as counter:
        for batch in ahead(batches, device):
            for buffer in buffers:
                buffer.add(batch)
            counter.advance(len(batch))


class _RowBuffer:
    """Collects rows batch by batch and copies them to the CPU, thousands at a time.

    Each copy waits for all operations queued on the device, so few large copies are faster than many small ones.
    """

    def __init__(self) -> None:
        self._parts: list[Tensor] = []
        self._held: list[Tensor] = []

    def add(self, rows: Tensor) -> None:
        """Appends rows."""
        self._held.append(rows)
        if sum(map(len, self._held)) >= HELD:
            self._release()

    def all(self) -> Tensor:
        """Returns the rows of all processes, on the CPU."""
        rows = self.all_or_none()
        assert rows is not None, "there are rows"
        return rows

    def all_or_none(self) -> Tensor | None:
        """Returns the rows of all processes, on the CPU; None if no process has any."""
        self._release()
        return gathered(torch.cat(self._parts) if self._parts else None)

    def _release(self) -> None:
        self._parts += [rows.cpu() for rows in self._held]
        self._held = []


class _FeatureBuffer:
    """Collects the features and logits of one extractor, batch by batch."""

    def __init__(self, extractor: Extractor) -> None:
        self.extractor, self.features, self.logits = extractor, _RowBuffer(), _RowBuffer()

    def add(self, batch: Tensor) -> None:
        """Extracts and appends the features of a batch of images; extractors see grey images with three channels."""
        features, logits = self.extractor(three_channels(batch))
        self.features.add(features.float())
        if logits is not None:
            self.logits.add(logits.float())

    def all(self) -> Features:
        """Returns the features of all processes; raises EvaluationError for values that are not finite."""
        found = Features(self.features.all(), self.logits.all_or_none())
        if not all(bool(part.isfinite().all()) for part in found if part is not None):
            raise EvaluationError(
                f"extractor {self.extractor.name}: got features that are not finite, expected finite values; "
                "its weights do not belong to this network or are damaged"
            )
        return found
