"""Interface of feature extractors, and the files and images they are built from."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from evaluation.errors import EvaluationError
from evaluation.runtime.files import home_folder, is_file

OFFLINE = (  # end of messages about weights that are missing
    "; or choose an extractor that needs no download: resnet (32x32 images), classifier (labelled real images) or "
    "pixels (any images; without classes, so not for is)"
)


class Extractor(Protocol):
    """A feature extractor: images uint8 (N, 3, H, W) on its device -> features (N, D), logits (N, K) or None.

    `name` is part of every value's key, unless it is "inception", Inception with the official weights. `protocol` holds
    the settings that affect the features, `record` other facts for reports.
    """

    name: str
    fingerprint: str
    has_logits: bool
    protocol: dict[str, Any]
    record: dict[str, Any]

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]: ...


class NetworkExtractor:
    """An `Extractor` around a network. Its name contains a hash of the weights, because they affect every value.

    Args:
        network: images -> features, logits or None.
        kind: first part of the name.
        architecture: name of the network in protocol hashes.
        sha256: hash of the weights.
        protocol: further protocol fields.
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

    weights, clip_weights, classifier_weights: weights files of `inception`, `clip` and `resnet`.
    images, labels: training split of `classifier`; test_images, test_labels: measure its accuracy.
    cache: folder of trained classifiers; None: the user's cache folder.
    seed, classifier_steps: seed and number of updates of the classifier's training.
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
    classifier_steps: int = 600  # updates with batches of 128 images; half a minute on a CPU core


def hub_folder() -> Path:
    """Returns torch hub's folder for downloaded weights.

    Torch itself takes "~" for the name of a folder if the user has no home, and an empty $XDG_CACHE_HOME for ".".

    Raises:
        EvaluationError: this user has no home folder, and $TORCH_HOME names no other.
    """
    folder = Path(torch.hub.get_dir())
    if folder.is_absolute() or (os.environ.get("TORCH_HOME") and folder.parts[0] != "~"):
        return folder
    home = home_folder()
    if home is None:
        raise EvaluationError(
            "torch hub: this user has no home folder to look for weights in; set TORCH_HOME to a folder for them"
        )
    return home / ".cache" / "torch" / "hub"


def find_file(given: Path | None, variable: str, default: Path, *, name: str, advice: str) -> Path:
    """Returns the given path, else the path in the environment variable, else the default.

    Raises:
        EvaluationError: the file does not exist; the message begins with `name` and ends with `advice`.
    """
    named = os.environ.get(variable) if given is None else None
    path = Path(given or named or default)
    if not is_file(path):
        raise EvaluationError(f"{name}{f' (${variable})' if named else ''}: no file {path}; {advice}")
    return path
