"""Random crops of padded images, on the device: with flips the standard augmentation of 32x32 images."""

import torch
import torch.nn.functional as F
from torch import Tensor

from gan.noise import random_generator

PADDING = 4


def draw_shifts(count: int, seed: int, k: int) -> Tensor:
    """Where the crops of batch k begin in the padded images, int64 (count, 2), each in [0, 2 * PADDING], on the CPU."""
    return torch.randint(2 * PADDING + 1, (count, 2), generator=random_generator(seed, "data shifts", k))


def shifted(images: Tensor, shifts: Tensor) -> Tensor:
    """Crops of the images' own size from images with a black border of PADDING pixels: (N, 3, H, W) -> the same.

    Crop n begins at row shifts[n, 0] and column shifts[n, 1] of the padded image: PADDING, PADDING is the image itself.
    One gather, without a number from the host.

    Args:
        images: any type; uint8 0 is black.
        shifts: int64 (N, 2), on the images' device.
    """
    count, channels, height, width = images.shape
    padded = F.pad(images, (PADDING,) * 4)
    rows = shifts[:, 0, None] + torch.arange(height, device=images.device)  # (N, H)
    columns = shifts[:, 1, None] + torch.arange(width, device=images.device)  # (N, W)
    which = torch.arange(count, device=images.device)[:, None, None, None]
    planes = torch.arange(channels, device=images.device)[:, None, None]
    return padded[which, planes, rows[:, None, :, None], columns[:, None, None, :]]
