"""Random crops of padded images, on the device; together with flips the standard augmentation of 32x32 images."""

import torch
import torch.nn.functional as F
from torch import Tensor

from gan.noise import random_generator

PADDING = 4
"""Width of the black border, in pixels."""


def draw_shifts(count: int, seed: int, k: int) -> Tensor:
    """Draws the (row, column) at which crops of batch k start, int64 (count, 2) in [0, 2 * PADDING], on the CPU."""
    return torch.randint(2 * PADDING + 1, (count, 2), generator=random_generator(seed, "data shifts", k))


def shifted(images: Tensor, shifts: Tensor) -> Tensor:
    """Pads images (N, 3, H, W) with PADDING black pixels on each side and crops them to their original size.

    Crop n starts at row shifts[n, 0] and column shifts[n, 1] of the padded image; (PADDING, PADDING) is the image
    itself. A single gather, without synchronization with the host.

    Args:
        images: any type; black is 0.
        shifts: int64 (N, 2), on the images' device.
    """
    count, channels, height, width = images.shape
    padded = F.pad(images, (PADDING,) * 4)
    rows = shifts[:, 0, None] + torch.arange(height, device=images.device)  # (N, H)
    columns = shifts[:, 1, None] + torch.arange(width, device=images.device)  # (N, W)
    sample = torch.arange(count, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[:, None, None]
    return padded[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]
