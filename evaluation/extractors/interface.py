"""The interface of a feature extractor, and the files and images that one may be made from."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor


class Extractor(Protocol):
    """Images uint8 (N, 3, H, W) on the extractor's device -> features (N, D), logits (N, K) or None.

    `name` is part of every value's key, except for the name "inception", which stands for the official weights
    alone. `protocol` holds the settings that decide the features, `record` further facts.
    """

    name: str
    fingerprint: str
    has_logits: bool
    protocol: dict[str, Any]
    record: dict[str, Any]

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]: ...


@dataclass(frozen=True)
class Sources:
    """Files and images that extractors are built from. Each extractor refuses if something it needs is missing.

    images, labels: the training split, from which `classifier` learns; test_images, test_labels: its accuracy.
    weights: a file for `inception`; clip_weights: one for `clip`; classifier_weights: one for `resnet`.
    cache: folder of trained classifiers, None for the user's cache folder.
    seed, classifier_steps: of the classifier's training.
    """

    device: torch.device | str = "cpu"
    weights: Path | None = None
    clip_weights: Path | None = None
    classifier_weights: Path | None = None
    images: Tensor | None = None
    labels: Tensor | None = None
    test_images: Tensor | None = None
    test_labels: Tensor | None = None
    cache: Path | None = None
    seed: int = 0
    classifier_steps: int = 600  # of batch 128; half a minute on two CPU cores


def weights_sha256(state: dict[str, Tensor]) -> str:
    """SHA-256 over names and values of a network's tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()
