"""A small residual discriminator for minutes on a CPU: most of its channels are at 8x8 and 4x4 pixels.

Not from a paper; built of the SN-GAN blocks (Miyato et al. 2018), with the flattened features of their SNDCGAN.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan.models.blocks import DiscriminatorBlock, check_labels, check_settings, conv3x3, glorot, projection_logits, wide

WIDTHS = {32: (1, 2, 4), 48: (1, 2, 4), 64: (1, 2, 4, 8), 128: (1, 2, 4, 8, 16)}
"""Width after the first convolution and after each block, in units of `channels`, by image size."""


class CompactDiscriminator(nn.Module):
    """Maps images (N, C, H, W) in [-1, 1], and labels int64 (N,) if conditional, to logits (N,).

    Space-to-depth by 2, conv3x3, residual downsampling blocks to 4x4 (6x6 for 48x48 images), ReLU, a linear layer of
    all positions; conditional on labels by projection (Miyato & Koyama 2018). The linear layer is computed in the type
    of its parameters, float32 under autocast.

    Args:
        image_size: a key of `WIDTHS`.
        channels: width of the first convolution; each block doubles it.
        num_classes: 0 for an unconditional discriminator.
        image_channels: 1 for grey images, 3 for RGB.

    Raises:
        ValueError: another image size; labels missing if conditional, or given if unconditional.
    """

    def __init__(self, image_size: int = 32, channels: int = 32, num_classes: int = 0, image_channels: int = 3) -> None:
        super().__init__()
        check_settings(image_size, WIDTHS, num_classes)
        self.image_size, self.num_classes = image_size, num_classes
        widths = [channels * factor for factor in WIDTHS[image_size]]
        self.conv = conv3x3(image_channels * 2**2, widths[0], gain=1.0)
        self.blocks = nn.Sequential(*(DiscriminatorBlock(narrow, wide, down=True) for narrow, wide in pairwise(widths)))
        features = widths[-1] * (image_size >> len(widths)) ** 2
        self.linear = glorot(nn.Linear(features, 1))
        self.embedding = glorot(nn.Embedding(num_classes, features)) if num_classes else None

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        check_labels(labels, self.num_classes, "discriminator")
        h = self.blocks(self.conv(F.pixel_unshuffle(images, 2)))
        with torch.autocast(images.device.type, enabled=False):
            features = wide(F.relu(h)).flatten(1)  # (N, C * h * w)
            return projection_logits(features, labels, self.linear, self.embedding)
