"""Networks that turn images into features, by name."""

import hashlib
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
    alone. `protocol` holds what decides the features, `record` what is worth knowing besides.
    """

    name: str
    fingerprint: str
    has_logits: bool
    protocol: dict[str, Any]
    record: dict[str, Any]

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]: ...


@dataclass(frozen=True)
class Sources:
    """What an extractor may be made from. Each takes what it needs and refuses by name what is missing.

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


def _inception(sources: Sources) -> Extractor:
    from evaluation.extractors.inception import Inception

    return Inception.load(sources.weights, device=sources.device)


def _classifier(sources: Sources) -> Extractor:
    from evaluation.extractors.classifier import trained_classifier

    return trained_classifier(sources)


def _resnet(sources: Sources) -> Extractor:
    from evaluation.extractors.resnet import load_resnet

    return load_resnet(sources.classifier_weights, device=sources.device)


def _pixels(sources: Sources) -> Extractor:
    from evaluation.extractors.pixels import Pixels

    return Pixels()


def _clip(sources: Sources) -> Extractor:
    from evaluation.extractors.fidelity import load_clip

    return load_clip(sources.clip_weights, device=sources.device)


def _dinov2(sources: Sources) -> Extractor:
    from evaluation.extractors.fidelity import load_dinov2

    return load_dinov2(device=sources.device)


EXTRACTORS: dict[str, Callable[[Sources], Extractor]] = {
    "inception": _inception,
    "classifier": _classifier,
    "resnet": _resnet,
    "pixels": _pixels,
    "dinov2": _dinov2,
    "clip": _clip,
}


def weights_sha256(state: dict[str, Tensor]) -> str:
    """SHA-256 over names and values of a network's tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def build_extractors(names: str, sources: Sources) -> tuple[Extractor, ...]:
    """The extractors of names separated by commas.

    Raises:
        EvaluationError: see `build_extractor`; or no name.
    """
    wanted = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    if not wanted:
        raise EvaluationError(f"extractor: got {names!r}, expected one or several of {', '.join(EXTRACTORS)}")
    return tuple(build_extractor(name, sources) for name in wanted)


def build_extractor(name: str, sources: Sources) -> Extractor:
    """The extractor of that name.

    Raises:
        EvaluationError: an unknown name, or what it needs is missing.
    """
    if name not in EXTRACTORS:
        raise EvaluationError(f"extractor: got {name!r}, expected one of {', '.join(EXTRACTORS)}")
    return EXTRACTORS[name](sources)
