"""CLIP and DINOv2 networks of torch-fidelity: features that represent more than ImageNet's classes; no logits.

Both resize by TensorFlow 1's bilinear rule, as torch-fidelity does everywhere. CMMD (Jayasumana et al. 2024) and
FD-DINOv2 (Stein et al. 2023) resize by bicubic interpolation, so their published values differ.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_clip import MODEL_METADATA, MODEL_URLS, FeatureExtractorCLIP
from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2

from evaluation.errors import EvaluationError
from evaluation.extractors.interface import weights_sha256
from evaluation.runtime.isolation import isolated

CLIP = "clip-vit-l-14-336px"  # CMMD's
DINOV2 = "dinov2-vit-l-14"  # FD-DINOv2's
CLIP_VARIABLE = "CLIP_WEIGHTS"
HUB_REPOSITORY = "facebookresearch/dinov2"


class FidelityExtractor:
    """A network of torch-fidelity. Its name holds a hash of the weights, which decide every value."""

    def __init__(self, network: nn.Module, name: str, model: str, side: int) -> None:
        self.network = network
        self.fingerprint = weights_sha256(network.state_dict())
        self.has_logits = False
        self.name = f"{name}-{self.fingerprint[:8]}"
        self.protocol: dict[str, Any] = {
            "extractor": model,
            "extractor_weights": self.fingerprint,
            "resize": f"bilinear-tensorflow1-{side}",
        }
        self.record: dict[str, Any] = {}

    def __call__(self, images: Tensor) -> tuple[Tensor, None]:
        (features,) = self.network(images)
        return features, None


def load_clip(weights: Path | None, *, device: torch.device | str) -> FidelityExtractor:
    """Loads a weights file, by default the file named by $CLIP_WEIGHTS, else torch hub's folder. Downloads nothing.

    The file is the TorchScript archive that OpenAI publishes; the size of the network follows from it.

    Raises:
        EvaluationError: no file, or one that is no CLIP model.
    """
    path = _find_clip(weights)
    with _built("clip", f"{path} is not a CLIP model as OpenAI publishes it"):
        network = FeatureExtractorCLIP(CLIP, ["clip"], feature_extractor_weights_path=str(path))
    return FidelityExtractor(network.to(device), "clip", "clip", network.resolution)


def load_dinov2(*, device: torch.device | str) -> FidelityExtractor:
    """Loads repository and weights from torch hub's folder, or downloads them there. Runs the code of the repository.

    Raises:
        EvaluationError: they are missing and the download fails.
    """
    before = os.environ.get("XFORMERS_DISABLED")
    try:
        with _built("dinov2", f"torch hub has no {HUB_REPOSITORY} with weights in {torch.hub.get_dir()}"):
            network = FeatureExtractorDinoV2(DINOV2, ["dinov2"])
    finally:
        os.environ.pop("XFORMERS_DISABLED", None)
        if before is not None:
            os.environ["XFORMERS_DISABLED"] = before
    return FidelityExtractor(network.to(device), "dinov2", DINOV2, FeatureExtractorDinoV2.INPUT_IMAGE_SIZE)


def clip_location() -> Path:
    """Path at which torch-fidelity keeps CLIP's weights."""
    return Path(torch.hub.get_dir()) / "checkpoints" / f"{CLIP}-{MODEL_METADATA[CLIP]['hash']}.pt"


def _find_clip(weights: Path | None) -> Path:
    named = weights or (Path(os.environ[CLIP_VARIABLE]) if os.environ.get(CLIP_VARIABLE) else None)
    path = named or clip_location()
    if not path.is_file():
        raise EvaluationError(
            f"CLIP weights: no file {path}; fetch {MODEL_URLS[CLIP]} and save it as {clip_location()}, "
            f"or name it by eval.clip_weights or ${CLIP_VARIABLE}"
        )
    return path


@contextmanager
def _built(name: str, reason: str) -> Iterator[None]:
    """Isolates a constructor, which draws from global generators, and turns its errors into EvaluationError."""
    with isolated(), torch.device("cpu"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch has deprecated the archive format that CLIP is published in
        try:
            yield
        except Exception as error:
            first_line = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise EvaluationError(f"extractor {name}: {reason} ({first_line})") from error
