"""One pass of images through an extractor."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from evaluation.errors import EvaluationError
from evaluation.extractors import Extractor
from evaluation.isolation import isolated
from evaluation.processes import gathered, own_part
from evaluation.progress import progress


class Features(NamedTuple):
    """What an extractor says of N images, on the CPU."""

    features: Tensor  # float32 (N, D)
    logits: Tensor | None  # float32 (N, K)

    def first(self, count: int) -> "Features":
        return Features(self.features[:count], None if self.logits is None else self.logits[:count])

    def joined(self, more: "Features") -> "Features":
        """These rows, then those."""
        both = self.logits is not None and more.logits is not None
        logits = torch.cat([self.logits, more.logits]) if both else None  # type: ignore[list-item]
        return Features(torch.cat([self.features, more.features]), logits)

    def arrays(self) -> dict[str, np.ndarray]:
        """As `of_arrays` takes them."""
        arrays = {"features": self.features.numpy()}
        return arrays if self.logits is None else {**arrays, "logits": self.logits.numpy()}

    @classmethod
    def of_arrays(cls, arrays: dict[str, np.ndarray]) -> "Features":
        logits = arrays.get("logits")
        return cls(torch.from_numpy(arrays["features"]), None if logits is None else torch.from_numpy(logits))


def check_rows(features: Tensor, name: str) -> None:
    """Refuses what are no features (N, D); `name` says who asks.

    Raises:
        EvaluationError: no tensor, or one of another shape or dtype.
    """
    if not isinstance(features, Tensor):
        raise EvaluationError(f"{name}: got {type(features).__name__}, expected a torch tensor of floats (N, D)")
    if features.ndim != 2 or not features.is_floating_point():
        raise EvaluationError(f"{name}: got features {tuple(features.shape)}, expected floats (N, D)")


def float64_rows(features: Tensor, name: str, *, at_least: int = 2) -> Tensor:
    """Features (N, D) as float64; `name` says who asks.

    Raises:
        EvaluationError: no tensor, another shape or dtype, fewer than `at_least` rows, or values that are not finite.
    """
    check_rows(features, name)
    if len(features) < at_least:
        raise EvaluationError(f"{name}: got {len(features)} features, expected at least {at_least}")
    if not bool(features.isfinite().all()):
        raise EvaluationError(f"{name}: got features that are not finite, expected numbers")
    return features.double()


def float64_pair(x: Tensor, y: Tensor, name: str, *, at_least: int = 2) -> tuple[Tensor, Tensor]:
    """Features (N, D) and (M, D) as float64.

    Raises:
        EvaluationError: as `float64_rows`, or another D.
    """
    rows_x, rows_y = float64_rows(x, name, at_least=at_least), float64_rows(y, name, at_least=at_least)
    if rows_x.shape[1] != rows_y.shape[1]:
        raise EvaluationError(f"{name}: got {tuple(x.shape)} and {tuple(y.shape)}, expected features of one dimension")
    return rows_x, rows_y


def extract(images: Tensor, extractor: Extractor, *, batch_size: int, device: torch.device | str) -> Features:
    """Features and logits of uint8 images (N, 3, H, W), in float32 without TF32 or autocast.

    The batch size decides memory and speed; beyond float rounding it does not decide the values. Of several processes
    each takes its part of the batches, and has all features in the end.

    Raises:
        EvaluationError: the extractor gives values that are not finite.
    """
    features, logits = [], []
    own = images[own_part(len(images), batch_size)]
    with isolated(), torch.inference_mode(), progress(len(own), f"{extractor.name} features", "images") as counter:
        for batch in own.split(batch_size) if len(own) else ():
            batch_features, batch_logits = extractor(batch.to(device))
            features.append(batch_features.float().cpu())
            if batch_logits is not None:
                logits.append(batch_logits.float().cpu())
            counter.advance(len(batch))
    rows, classes = (gathered(torch.cat(parts) if parts else None) for parts in (features, logits))
    assert rows is not None, "there are images"
    joined = Features(rows, classes)
    if not all(bool(part.isfinite().all()) for part in joined if part is not None):
        raise EvaluationError(
            f"extractor {extractor.name}: got features that are not finite, expected numbers; "
            "its weights do not belong to this network or are damaged"
        )
    return joined
