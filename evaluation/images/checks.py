"""Checks of image tensors, uint8 (N, C, H, W), and of labels; their fingerprint and the critics' input range."""

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from evaluation.errors import EvaluationError

MAX_CLASSES = 2**20
CHANNELS = (1, 3)
"""Numbers of channels of images: grey and RGB."""

# Function that draws latents and labels and returns quantized generated images: (count, seed) -> (uint8 images, labels
# or None).
Sampler = Callable[[int, int], tuple[Tensor, Tensor | None]]


def check_images(images: Tensor, name: str) -> None:
    """Checks that images are uint8 (N, 3, H, W) or (N, 1, H, W) with N > 0; `name` is the set's name in error messages.

    Raises:
        EvaluationError: a wrong type, dtype or shape, or no images.
    """
    if not isinstance(images, Tensor):
        raise EvaluationError(f"{name} images: got {type(images).__name__}, expected a uint8 tensor (N, 3, H, W)")
    if images.dtype != torch.uint8:
        raise EvaluationError(
            f"{name} images: got dtype {_plain(images.dtype)}, expected uint8; "
            "quantize network outputs first, because the rounding is part of the protocol"
        )
    if images.ndim != 4 or images.shape[1] not in CHANNELS or 0 in images.shape[2:]:
        raise EvaluationError(
            f"{name} images: got shape {tuple(images.shape)}, expected (N, 3, H, W), or (N, 1, H, W) for grey images"
        )
    if len(images) == 0:
        raise EvaluationError(f"{name} images: got none, expected at least one")


def check_inputs(images: Tensor, name: str) -> None:
    """Checks that a network's input is float32 or float64 (N, ...) with N > 0, and finite.

    Raises:
        EvaluationError: a wrong type, dtype or shape, no images, or values that are not finite.
    """
    if not isinstance(images, Tensor) or images.dtype not in (torch.float32, torch.float64):
        got = _plain(images.dtype) if isinstance(images, Tensor) else type(images).__name__
        raise EvaluationError(
            f"{name} images: got {got}, expected float32 in the {name} input range; scale pixels by p / 128 - 1"
        )
    if images.ndim < 2 or images.numel() == 0:
        raise EvaluationError(f"{name} images: got shape {tuple(images.shape)}, expected (N, 3, H, W) with N > 0")
    if not bool(images.isfinite().all()):
        raise EvaluationError(f"{name} images: got values that are not finite, expected numbers in [-1, 1]")


def check_labels(labels: Tensor | None, count: int, name: str) -> None:
    """Checks that labels are int64 (count,) and non-negative.

    Raises:
        EvaluationError: a wrong type, dtype or shape, or a label out of range.
    """
    if labels is None:
        return
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.shape != (count,):
        got = f"{_plain(labels.dtype)} {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        raise EvaluationError(f"{name} labels: got {got}, expected int64 ({count},), one for each image")
    if count and int(labels.min()) < 0:
        raise EvaluationError(f"{name} labels: got {int(labels.min())}, expected class numbers from 0")
    if count and int(labels.max()) >= MAX_CLASSES:
        raise EvaluationError(f"{name} labels: got {int(labels.max())}, expected class numbers below {MAX_CLASSES}")


def check_same_size(images: Tensor, name: str, other: Tensor, other_name: str) -> None:
    """Checks that two image sets have the same height, width and number of channels.

    Raises:
        EvaluationError: they differ.
    """
    if images.shape[1] != other.shape[1]:
        kinds = ["grey" if is_grey(tensor) else "RGB" for tensor in (images, other)]
        raise EvaluationError(
            f"{name} images are {kinds[0]} and {other_name} images are {kinds[1]}, expected one kind; give both as "
            "files (--generated, --reference), of which grey ones are compared as RGB, or convert one set beforehand"
        )
    if images.shape[2:] != other.shape[2:]:
        sizes = ["{}x{}".format(*tensor.shape[2:]) for tensor in (images, other)]
        raise EvaluationError(
            f"{name} images are {sizes[0]} and {other_name} images are {sizes[1]}, expected one size; "
            "resize both with the settings resize and image_size (--resize, --image-size; gan-eval: --set "
            "eval.resize=lanczos), or one of them beforehand: the method changes the value"
        )


def to_critic(images: Tensor) -> Tensor:
    """Scales uint8 pixels to float32 p / 128 - 1 in [-1, 1), the input range of Neural Divergence critics."""
    return images.float() / 128 - 1


def three_channels(images: Tensor) -> Tensor:
    """Repeats grey images (N, 1, H, W) to three channels; returns images (N, 3, H, W) as they are."""
    return images.repeat(1, 3, 1, 1) if is_grey(images) else images


def without_colours(images: Tensor) -> Tensor:
    """Returns one channel (N, 1, H, W) of images whose channels are all equal, and other images as they are."""
    equal = is_grey(images) or all(bool((part == part[:, :1]).all()) for part in images.split(1024))
    return images[:, :1] if equal else images


def is_grey(images: Tensor) -> bool:
    """Returns whether images (N, C, H, W) have one channel."""
    return images.ndim == 4 and images.shape[1] == 1


def fingerprint(images: Tensor, labels: Tensor | None = None) -> str:
    """Returns the SHA-256 of shape, pixels and, if given, labels; equal on every device.

    Grey images have the fingerprint of their three equal channels, because feature extractors see them so.
    """
    shape = (len(images), 3, *images.shape[2:]) if is_grey(images) else tuple(images.shape)
    digest = hashlib.sha256(repr(shape).encode())
    for start in range(0, len(images), 4096):
        digest.update(three_channels(images[start : start + 4096]).cpu().contiguous().numpy().data)
    if labels is not None:
        digest.update(b"labels")
        digest.update(labels.cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
