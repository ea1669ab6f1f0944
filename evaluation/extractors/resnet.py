"""Feature extractor for small images: a pretrained ResNet from a file, where Inception is not available.

The network is that of He et al. 2016, section 4.2, with projection shortcuts where a block changes the width. Batch
norms are folded into the convolutions before them.
"""

import math
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from evaluation.errors import EvaluationError
from evaluation.extractors.interface import Sources, find_file
from evaluation.runtime.weights_file import read_weights_file, short, weights_sha256, write_weights_file

VARIABLE = "CLASSIFIER_WEIGHTS"
BUNDLED = Path(__file__).with_name("resnet20-cifar10-jpeg.safetensors")
KIND = "resnet"
FORMAT = 2  # format 1 was a PyTorch file
VERSION = "v1"  # increment when the same weights give other features
MAX_DEPTH = 1202  # the deepest ResNet of He et al. 2016
MAX_WIDTH = 2**16  # limit of channels and of classes
MAX_SIDE = 1024
MAX_BYTES = 2**26  # unpacked size of a file of format 1; ResNet-110 takes 3.5 MB
MAX_RECORDS, MAX_LENGTH = 50, 1000


@dataclass(frozen=True, eq=False)
class Weights:
    """A trained network with float16 weights.

    Args:
        depth: 6 n + 2, in three stages of n blocks.
        channels: width of the first stage; the next two are 2 and 4 times as wide.
        image_size: side of the images it was trained on.
        state: float16 tensors by the names of `shapes`.
        record: facts about the training, as plain values.

    Raises:
        EvaluationError: a value out of range, wrong tensors, or a record that a report cannot hold.
    """

    depth: int
    channels: int
    num_classes: int
    image_size: int
    state: dict[str, Tensor]
    record: dict[str, str | int | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, least, most in (
            ("depth", 8, MAX_DEPTH),
            ("channels", 1, MAX_WIDTH),
            ("num_classes", 2, MAX_WIDTH),
            ("image_size", 4, MAX_SIDE),
        ):
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= most:
                raise EvaluationError(f"{name}: got {short(value)}, expected a whole number from {least} to {most}")
        if self.depth % 6 != 2:
            raise EvaluationError(f"depth: got {self.depth}, expected 6 n + 2, such as 20, 56 or 110")
        _check_state(self.state, shapes(self.depth, self.channels, self.num_classes))
        _check_record(self.record)


def shapes(depth: int, channels: int, num_classes: int) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of all weights and biases: `conv`, `blocks.<i>.conv1`, `.conv2`, `.shortcut`, `linear`."""
    found: dict[str, tuple[int, ...]] = {}

    def convolution(name: str, inputs: int, outputs: int, side: int) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = (outputs, inputs, side, side), (outputs,)

    convolution("conv", 3, channels, 3)
    blocks, before = (depth - 2) // 6, channels
    for index in range(3 * blocks):
        width = channels * 2 ** (index // blocks)
        convolution(f"blocks.{index}.conv1", before, width, 3)
        convolution(f"blocks.{index}.conv2", width, width, 3)
        if width != before:
            convolution(f"blocks.{index}.shortcut", before, width, 1)
        before = width
    found["linear.weight"], found["linear.bias"] = (num_classes, before), (num_classes,)
    return found


def _check_state(state: dict[str, Tensor], expected: dict[str, tuple[int, ...]]) -> None:
    if state.keys() != expected.keys():
        raise EvaluationError(f"state: got wrong names, expected the {len(expected)} tensors of this network")
    for name, shape in expected.items():
        tensor = state[name]
        if tensor.dtype != torch.float16 or tensor.shape != shape:
            got = f"{tensor.dtype} {tuple(tensor.shape)}"
            raise EvaluationError(f"state: {name}: got {got}, expected torch.float16 {shape}")
        if not bool(tensor.isfinite().all()):
            raise EvaluationError(f"state: {name}: got values that are not finite in float16, expected finite ones")


def _check_record(record: dict[str, str | int | float]) -> None:
    """Raises EvaluationError for records that reports cannot hold, and for the entry "name", which reports set."""
    if not isinstance(record, dict) or len(record) > MAX_RECORDS:
        raise EvaluationError(f"record: got {short(record)}, expected at most {MAX_RECORDS} names with values")
    for name, value in record.items():
        if not _is_line(name) or name == "name":
            raise EvaluationError(f'record: got {short(name)} for a name, expected one line other than "name"')
        whole = type(value) is int and abs(value) < 2**63
        if not (_is_line(value) or whole or (type(value) is float and math.isfinite(value))):
            raise EvaluationError(f"record: {name}: got {short(value)}, expected a number or one line of text")


def _is_line(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and len(value) <= MAX_LENGTH


class ResNetExtractor:
    """ResNet with features (N, 4 * channels), the spatial means of the last activations, and logits (N, num_classes).

    Images must have the size of the training images and are scaled to p / 128 - 1. The name contains the depth and a
    hash of the weights, because both affect every value.
    """

    def __init__(self, weights: Weights, device: torch.device | str = "cpu") -> None:
        self.fingerprint = weights_sha256(weights.state)
        self.has_logits = True
        self.name = f"resnet{weights.depth}-{self.fingerprint[:8]}"
        self.protocol: dict[str, Any] = {
            "extractor": f"resnet{weights.depth}-{VERSION}",
            "extractor_weights": self.fingerprint,
        }
        self.record: dict[str, Any] = dict(weights.record)
        self.image_size = weights.image_size
        self.blocks = (weights.depth - 2) // 6
        self.state = {name: _arranged(tensor.detach(), device) for name, tensor in weights.state.items()}

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Computes features and logits.

        Raises:
            EvaluationError: images of another size, whose features would not be comparable.
        """
        side = self.image_size
        if images.shape[2:] != (side, side):
            raise EvaluationError(
                f"extractor {self.name}: got images of {images.shape[2]}x{images.shape[3]}, expected {side}x{side}, "
                "on which it was trained; choose another extractor, such as inception, classifier or pixels"
            )
        h = self._convolved(images.float() / 128 - 1, "conv").relu()
        for index in range(3 * self.blocks):
            h = self._block(h, f"blocks.{index}", stride=2 if index in (self.blocks, 2 * self.blocks) else 1)
        features = h.mean((2, 3))
        return features, functional.linear(features, self.state["linear.weight"], self.state["linear.bias"])

    def _block(self, x: Tensor, name: str, *, stride: int) -> Tensor:
        """Computes relu(conv3x3(relu(conv3x3(x))) + shortcut(x)): (N, C, H, W) -> (N, C', H / stride, W / stride)."""
        h = self._convolved(x, f"{name}.conv1", stride).relu()
        h = self._convolved(h, f"{name}.conv2")
        shortcut = x if stride == 1 else self._convolved(x, f"{name}.shortcut", stride)
        return (h + shortcut).relu()

    def _convolved(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = self.state[f"{name}.weight"]
        return functional.conv2d(x, weight, self.state[f"{name}.bias"], stride, padding=weight.shape[2] // 2)


def _arranged(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Converts to float32, and convolutions to channels last: 1.2 ms instead of 1.35 per image on one CPU thread."""
    moved = tensor.to(device, torch.float32)
    return moved.contiguous(memory_format=torch.channels_last) if moved.ndim == 4 else moved


def load_resnet(sources: Sources) -> ResNetExtractor:
    """Loads a ResNet from a weights file: the given one, else $CLASSIFIER_WEIGHTS, else the bundled one.

    Raises:
        EvaluationError: no file, a damaged one, or one of another format.
    """
    named = f"give its path with --classifier-weights, eval.classifier_weights or ${VARIABLE}"
    advice = f"make one from your own classifier with tools/make_extractor.py, and {named}"
    path = find_file(sources.classifier_weights, VARIABLE, BUNDLED, name="ResNet weights", advice=advice)
    extractor = ResNetExtractor(load_weights(path), sources.device)
    extractor.record["weights_file"] = path.name if path == BUNDLED else str(path)
    return extractor


def load_weights(path: Path) -> Weights:
    """Reads a file that `write_weights` wrote, without running code in it.

    Raises:
        EvaluationError: the file cannot be read, is damaged, or holds something else.
    """
    try:
        return _read_format_1(path) if zipfile.is_zipfile(path) else _read(path)
    except EvaluationError as error:
        raise EvaluationError(
            f"ResNet weights: {path} is not a file of tools/make_extractor.py ({error}); make it again, or use another"
        ) from error


def _read(path: Path) -> Weights:
    header, state = read_weights_file(path, KIND, FORMAT)
    names = Weights.__dataclass_fields__.keys() - {"state"}
    if header.keys() != names:
        raise EvaluationError(f"got wrong entries, expected {', '.join(sorted(names))}")
    return Weights(**header, state=state)


def _read_format_1(path: Path) -> Weights:
    """Reads a PyTorch file of format 1. Checks the archive's checksums and sizes first, because PyTorch does not."""
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_BYTES or archive.testzip() is not None:
                raise EvaluationError(f"it is damaged, or unpacks to more than {MAX_BYTES:,} bytes")
        content = torch.load(path, map_location="cpu", weights_only=True)
        # A crafted file of a few bytes can describe a huge tensor of equal values, or a tensor without values.
        if content.pop("format") != 1 or not all(tensor.is_contiguous() for tensor in content["state"].values()):
            raise EvaluationError("it is a PyTorch file of another format")
        return Weights(**content)
    except EvaluationError:
        raise
    except Exception as error:  # a damaged pickle can raise almost any error, such as IndexError
        raise EvaluationError("it is damaged, or not a PyTorch file of that tool") from error


def write_weights(path: Path, weights: Weights) -> None:
    """Writes a safetensors file for `load_weights`, atomically. Equal weights give equal bytes.

    Raises:
        OSError: the file cannot be written.
    """
    header = {name: getattr(weights, name) for name in Weights.__dataclass_fields__ if name != "state"}
    write_weights_file(path, KIND, FORMAT, header, weights.state)
