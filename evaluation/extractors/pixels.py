"""Pixels as features, for quick checks and tests."""

from typing import Any

from torch import Tensor
from torch.nn import functional

from evaluation.extractors.interface import Sources

SIDE = 8


class Pixels:
    """Images average-pooled to 8x8, in [0, 1]: features (N, 192), no logits."""

    def __init__(self, sources: Sources | None = None) -> None:
        self.name = "pixels"
        self.fingerprint = f"pixels-{SIDE}x{SIDE}"
        self.has_logits = False
        self.protocol: dict[str, Any] = {"extractor": self.fingerprint}
        self.record: dict[str, Any] = {}

    def __call__(self, images: Tensor) -> tuple[Tensor, None]:
        return functional.adaptive_avg_pool2d(images.float() / 255, SIDE).flatten(1), None
