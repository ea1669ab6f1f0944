"""CLIP and DINOv2 from torch-fidelity: features not limited to ImageNet's classes, without logits.

Both resize by TensorFlow 1's bilinear rule, as all of torch-fidelity does. CMMD (Jayasumana et al. 2024) and FD-DINOv2
(Stein et al. 2023) resize by bicubic interpolation, so their published values differ.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_clip import MODEL_METADATA, MODEL_URLS, FeatureExtractorCLIP
from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2

from evaluation.errors import EvaluationError
from evaluation.extractors.interface import OFFLINE, NetworkExtractor, Sources, find_file, hub_folder
from evaluation.runtime.files import first_line
from evaluation.runtime.isolation import isolated
from evaluation.runtime.weights_file import weights_sha256

CLIP = "clip-vit-l-14-336px"  # used by CMMD
DINOV2 = "dinov2-vit-l-14"  # used by FD-DINOv2
CLIP_VARIABLE = "CLIP_WEIGHTS"
HUB_REPOSITORY = "facebookresearch/dinov2"


def load_clip(sources: Sources) -> NetworkExtractor:
    """Loads CLIP from a weights file: the given one, else $CLIP_WEIGHTS, else torch hub's. Downloads nothing.

    The file is the TorchScript archive published by OpenAI, which also defines the size of the network.

    Raises:
        EvaluationError: no file, or one that is not a CLIP model.
    """
    named = f"give its path with eval.clip_weights, --clip-weights or ${CLIP_VARIABLE}{OFFLINE}"
    advice, location = f"download {MODEL_URLS[CLIP]} and {named}", Path()
    if sources.clip_weights is None and not os.environ.get(CLIP_VARIABLE):
        location = clip_location()
        advice = f"download {MODEL_URLS[CLIP]} and save it as {location}, or {named}"
    path = find_file(sources.clip_weights, CLIP_VARIABLE, location, name="CLIP weights", advice=advice)
    with _built("clip", f"{path} is not a CLIP model as OpenAI publishes it"):
        network = FeatureExtractorCLIP(CLIP, ["clip"], feature_extractor_weights_path=str(path))
    return _extractor(network.to(sources.device), "clip", "clip", network.resolution)


def load_dinov2(sources: Sources) -> NetworkExtractor:
    """Loads DINOv2's code and weights from torch hub's folder, else downloads them there. Runs the loaded code.

    Raises:
        EvaluationError: they are missing and the download fails.
    """
    before = os.environ.get("XFORMERS_DISABLED")
    try:
        with _built("dinov2", f"torch hub has no {HUB_REPOSITORY} with weights in {hub_folder()}", OFFLINE):
            network = FeatureExtractorDinoV2(DINOV2, ["dinov2"])
    finally:
        os.environ.pop("XFORMERS_DISABLED", None)
        if before is not None:
            os.environ["XFORMERS_DISABLED"] = before
    return _extractor(network.to(sources.device), "dinov2", DINOV2, FeatureExtractorDinoV2.INPUT_IMAGE_SIZE)


def _extractor(network: FeatureExtractorBase, kind: str, architecture: str, side: int) -> NetworkExtractor:
    sha256, resize = weights_sha256(network.state_dict()), f"bilinear-tensorflow1-{side}"
    return NetworkExtractor(
        lambda images: (*network(images), None), kind, architecture, sha256, has_logits=False, resize=resize
    )


def clip_location() -> Path:
    """Returns the path where torch-fidelity stores CLIP's weights."""
    return hub_folder() / "checkpoints" / f"{CLIP}-{MODEL_METADATA[CLIP]['hash']}.pt"


@contextmanager
def _built(name: str, reason: str, advice: str = "") -> Iterator[None]:
    """Context manager for constructors: restores global random generators, and turns errors into EvaluationError."""
    with isolated(), torch.device("cpu"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch deprecates the archive format of CLIP's weights
        try:
            yield
        except Exception as error:
            raise EvaluationError(f"extractor {name}: {reason} ({first_line(error)[:200]}){advice}") from error
