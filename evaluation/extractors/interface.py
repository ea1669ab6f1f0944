"""The interface of a feature extractor, and the files and images that one may be made from."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from evaluation.errors import EvaluationError


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


class NetworkExtractor:
    """An `Extractor` of a network with weights.

    Its name contains a hash of the weights, because they decide every value.

    Args:
        network: takes images and returns features, and logits or None.
        kind: first part of the name.
        architecture: name of the network in protocol hashes, with further protocol fields in `protocol`.
        sha256: hash of the weights.
    """

    def __init__(
        self,
        network: Callable[[Tensor], tuple[Tensor, Tensor | None]],
        kind: str,
        architecture: str,
        sha256: str,
        *,
        has_logits: bool = True,
        **protocol: Any,
    ) -> None:
        self.network, self.fingerprint, self.has_logits = network, sha256, has_logits
        self.name = f"{kind}-{sha256[:8]}"
        self.protocol: dict[str, Any] = {"extractor": architecture, "extractor_weights": sha256, **protocol}
        self.record: dict[str, Any] = {}

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.network(images)


@dataclass(frozen=True)
class Sources:
    """Files and images that extractors are built from. An extractor raises if something it needs is missing.

    images, labels: the training split of `classifier`; test_images, test_labels: for its accuracy.
    weights: a file for `inception`; clip_weights: one for `clip`; classifier_weights: one for `resnet`.
    cache: folder of trained classifiers, None for the user's cache folder.
    seed, classifier_steps: seed and updates of the classifier's training.
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


def find_file(given: Path | None, variable: str, default: Path, *, name: str, advice: str) -> Path:
    """The given file, else the file named by the environment variable, else the default.

    Raises:
        EvaluationError: there is no such file; the message begins with `name` and ends with `advice`.
    """
    named = os.environ.get(variable) if given is None else None
    path = Path(given or named or default)
    if not path.is_file():
        raise EvaluationError(f"{name}{f' (${variable})' if named else ''}: no file {path}; {advice}")
    return path


def weights_sha256(state: dict[str, Tensor]) -> str:
    """SHA-256 over names and values of a network's tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()
