"""Inception-v3 of torch-fidelity, converted from the TensorFlow network of 2015 that defines FID and IS."""

import hashlib
import http.client
import os
import shutil
import urllib.request
from pathlib import Path

import torch
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, BasicConv2d, FeatureExtractorInceptionV3

from evaluation.errors import EvaluationError
from evaluation.extractors.interface import OFFLINE, NetworkExtractor, Sources, find_file, hub_folder
from evaluation.runtime.files import check_writable, is_file, replacing
from evaluation.runtime.isolation import isolated

VARIABLE = "INCEPTION_WEIGHTS"
OFFICIAL_PREFIX = "6726825d"  # start of the file's SHA-256; the file is named weights-inception-2015-12-05-6726825d.pth
ARCHITECTURE = "inception-v3-compat"
LAYERS = ["2048", "logits_unbiased"]
DOWNLOAD_TIMEOUT = 30.0  # seconds without a response


def load_inception(sources: Sources) -> NetworkExtractor:
    """Loads Inception from a weights file: the given one, else $INCEPTION_WEIGHTS, else torch-fidelity's download.

    Features are 2048 pooled activations. The 1008 logits have no bias, as in the first published IS code. Images of any
    size are resized to 299x299 by TensorFlow 1's bilinear rule without antialiasing, then scaled to (p - 128) / 128.
    The name is "inception" for the official weights, else "inception-<first 8 hex digits of the SHA-256>".

    Raises:
        EvaluationError: no file, a failed download, or a file of another network.
    """
    path = find_weights(sources.weights)
    sha256 = _sha256(path)
    _check_weights(path)
    # The constructor initialises 24 million weights from the global generator before it reads the file.
    with isolated(), torch.device("cpu"):
        try:
            network = FeatureExtractorInceptionV3(ARCHITECTURE, LAYERS, feature_extractor_weights_path=str(path))
        except (RuntimeError, TypeError, AttributeError) as error:
            raise _foreign(path, "its tensors do not fit the network") from error
    network = _arranged(network, sources.device)
    extractor = NetworkExtractor(network, "inception", ARCHITECTURE, sha256, resize="bilinear-tensorflow1-299")
    if sha256.startswith(OFFICIAL_PREFIX):
        extractor.name = "inception"
    extractor.record["weights_file"] = str(path)
    return extractor


def _arranged(network: FeatureExtractorInceptionV3, device: torch.device | str) -> FeatureExtractorInceptionV3:
    """Folds each batch norm into its convolution: 1.6 times as fast on a CPU; features agree to six digits."""
    for block in network.modules():
        if isinstance(block, BasicConv2d):
            block.conv = fuse_conv_bn_eval(block.conv, block.bn)
            block.bn = torch.nn.Identity()
    network.requires_grad_(False).to(device)
    if torch.device(device).type == "cpu":
        network.to(memory_format=torch.channels_last)
    return network


def download_location() -> Path:
    """Returns the path where torch-fidelity stores the official weights."""
    return hub_folder() / "checkpoints" / URL_INCEPTION_V3.rsplit("/", 1)[1]


def find_weights(weights: Path | None) -> Path:
    """Returns the weights file; downloads it if none is given and none is stored.

    Raises:
        EvaluationError: a named file is missing, or the download fails.
    """
    advice = f"download it from {URL_INCEPTION_V3}"
    if weights is not None or os.environ.get(VARIABLE):
        return find_file(weights, VARIABLE, Path(), name="Inception weights", advice=advice)
    location = download_location()
    if not is_file(location):
        _download(location)
    return location


def _download(location: Path) -> None:
    named = f"give its path with eval.inception_weights, --inception-weights or ${VARIABLE}{OFFLINE}"
    try:
        check_writable(location.parent)
    except OSError as error:
        raise EvaluationError(
            f"Inception weights: not found, and a download cannot be kept ({error}); "
            f"set TORCH_HOME to a writable folder, or download {URL_INCEPTION_V3} and {named}"
        ) from error
    try:
        with (
            replacing(location) as beside,
            urllib.request.urlopen(URL_INCEPTION_V3, timeout=DOWNLOAD_TIMEOUT) as answer,
        ):
            with beside.open("wb") as file:
                shutil.copyfileobj(answer, file)
            if not _sha256(beside).startswith(OFFICIAL_PREFIX):
                raise EvaluationError(
                    f"Inception weights: the download from {URL_INCEPTION_V3} is damaged (its SHA-256 does not begin "
                    f"with {OFFICIAL_PREFIX}); try again, or download it on another machine and save it as {location}"
                )
    except (OSError, http.client.HTTPException) as error:  # urllib's own errors are OSErrors
        raise EvaluationError(
            f"Inception weights: not found, and the download failed ({error}); download {URL_INCEPTION_V3} elsewhere "
            f"and save it as {location}, or {named}"
        ) from error


def _check_weights(path: Path) -> None:
    """Raises EvaluationError for files with other content than tensors, because torch-fidelity unpickles the file."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise almost any error, such as IndexError
        raise _foreign(path, "the file is damaged or not a PyTorch file of tensors") from error
    if not isinstance(state, dict) or "fc.weight" not in state:
        raise _foreign(path, "there is no tensor fc.weight in it")


def _foreign(path: Path, reason: str) -> EvaluationError:
    return EvaluationError(
        f"Inception weights: {path} does not hold torch-fidelity's Inception-v3 ({reason}); download {URL_INCEPTION_V3}"
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
