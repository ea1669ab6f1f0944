"""Augmentations on the device: random crops for classifiers, and DiffAugment for GANs of few images.

Random crops of padded images, together with flips, are the standard augmentation of 32x32 images. `AUGMENTATIONS` are
those of Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training".
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from gan.noise import random_generator

PADDING = 4
"""Width of the black border, in pixels."""


def draw_shifts(count: int, seed: int, k: int) -> Tensor:
    """Draws the (row, column) at which crops of batch k start, int64 (count, 2) in [0, 2 * PADDING], on the CPU."""
    return torch.randint(2 * PADDING + 1, (count, 2), generator=random_generator(seed, "data shifts", k))


def shifted(images: Tensor, shifts: Tensor, *, padding: int = PADDING) -> Tensor:
    """Pads images (N, C, H, W) with `padding` zeros on each side and crops them to their original size.

    Crop n starts at row shifts[n, 0] and column shifts[n, 1] of the padded image; (padding, padding) is the image
    itself. A single gather, differentiable, without synchronization with the host.

    Args:
        images: any type; 0 is black in uint8 and grey in [-1, 1].
        shifts: int64 (N, 2) in [0, 2 * padding], on the images' device.
    """
    count, channels, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)
    rows = shifts[:, 0, None] + torch.arange(height, device=images.device)  # (N, H)
    columns = shifts[:, 1, None] + torch.arange(width, device=images.device)  # (N, W)
    sample = torch.arange(count, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[:, None, None]
    return padded[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]


class Augment(Protocol):
    """Function of images (N, C, H, W), float, and of uniform numbers in [0, 1), (N, draws); differentiable."""

    def __call__(self, images: Tensor, uniforms: Tensor) -> Tensor: ...


class Augmentation(NamedTuple):
    """An augmentation and the number of uniform numbers that it needs for each image."""

    apply: Augment
    draws: int


def color(images: Tensor, uniforms: Tensor) -> Tensor:
    """Changes brightness, saturation and contrast of images in [-1, 1], whose values may then leave that range.

    With uniform numbers (b, s, c) of an image: x + b - 1/2; then differences from each pixel's mean over the channels
    are multiplied by 2 s; then differences from the image's mean by c + 1/2.
    """
    brightness, saturation, contrast = uniforms[:, :, None, None, None].unbind(1)  # (N, 1, 1, 1) each
    images = images + (brightness - 0.5)
    grey = images.mean(1, keepdim=True)
    images = torch.lerp(grey, images, (2 * saturation).to(images.dtype))
    mean = images.mean((1, 2, 3), keepdim=True)
    return torch.lerp(mean, images, (contrast + 0.5).to(images.dtype))


def translation(images: Tensor, uniforms: Tensor) -> Tensor:
    """Shifts images by up to an eighth of their size along each axis, filled up with zeros: grey in [-1, 1]."""
    most = images.shape[2] // 8
    return shifted(images, _integers(uniforms, 2 * most + 1), padding=most)


def cutout(images: Tensor, uniforms: Tensor) -> Tensor:
    """Sets a square of half the images' size to zero; its centre is anywhere, so the border may cut it off."""
    size = images.shape[2]
    length = size // 2
    starts = _integers(uniforms, size + 1 - length % 2) - length // 2  # (N, 2)
    offsets = torch.arange(size, device=images.device) - starts[:, :, None]  # (N, 2, H)
    rows, columns = ((offsets >= 0) & (offsets < length)).unbind(1)
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)


def _integers(uniforms: Tensor, count: int) -> Tensor:
    """Integers from 0 to count - 1, int64, of uniform numbers in [0, 1); rounding of the product may reach count."""
    return (uniforms * count).long().clamp(max=count - 1)


AUGMENTATIONS: dict[str, Augmentation] = {
    "color": Augmentation(color, 3),
    "translation": Augmentation(translation, 2),
    "cutout": Augmentation(cutout, 2),
}


def num_draws(names: Sequence[str]) -> int:
    """Number of uniform numbers that `augmented` needs for each image."""
    return sum(AUGMENTATIONS[name].draws for name in names)


def augmented(images: Tensor, uniforms: Tensor, names: Sequence[str]) -> Tensor:
    """Applies augmentations to square images, in order; differentiable.

    Args:
        images: float (N, C, H, H) in [-1, 1].
        uniforms: numbers in [0, 1), (N, num_draws(names)), on the images' device.
        names: keys of `AUGMENTATIONS`.
    """
    parts = uniforms.split([AUGMENTATIONS[name].draws for name in names], dim=1)
    for name, part in zip(names, parts, strict=True):
        images = AUGMENTATIONS[name].apply(images, part)
    return images
