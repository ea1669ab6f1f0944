"""The SN-GAN ResNets for 32x32 to 256x256 images, unconditional and class-conditional.

Miyato et al. 2018 (SN-GAN) and Miyato & Koyama 2018 (projection discriminator), after the authors' code. The weights
are plain; `gan.normalization.normalize` adds a normalization.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan.models.blocks import (
    BatchNorm,
    DiscriminatorBlock,
    FirstDiscriminatorBlock,
    GeneratorBlock,
    check_labels,
    check_settings,
    conv3x3,
    glorot,
    projection_logits,
    wide,
)


class Widths(NamedTuple):
    """Widths of the two networks of one image size, in units of `channels`.

    generator: at the first feature map, and after each block, which doubles the resolution. So the side of the first
        feature map is the image size halved once per block: 4 pixels, or 6 for 48x48 images.
    discriminator: after each block.
    halvings: number of the discriminator's first blocks that halve the resolution; later blocks keep it.
    """

    generator: tuple[int, ...]
    discriminator: tuple[int, ...]
    halvings: int


WIDTHS = {
    32: Widths((1, 1, 1, 1), (1, 1, 1, 1), halvings=2),  # Miyato et al. 2018, CIFAR-10
    48: Widths((8, 4, 2, 1), (1, 2, 4, 8, 16), halvings=4),  # Miyato et al. 2018, STL-10
    64: Widths((16, 8, 4, 2, 1), (1, 2, 4, 8, 16), halvings=5),  # code of Miyato & Koyama 2018
    128: Widths((16, 16, 8, 4, 2, 1), (1, 2, 4, 8, 16, 16), halvings=5),  # Miyato & Koyama 2018, ImageNet
    256: Widths((16, 16, 8, 8, 4, 2, 1), (1, 2, 4, 8, 8, 16, 16), halvings=6),  # code of Miyato & Koyama 2018
}
"""Widths by image size. At 32x32 the papers' `channels` are 256 and 128, at the other sizes 64 and 64."""
POOLINGS = ("sum", "mean")
"""Values of `ResNetDiscriminator`'s argument `pooling`."""


class ResNetGenerator(nn.Module):
    """Maps latents float32 (N, z_dim), and labels int64 (N,) if conditional, to images (N, C, H, W) in [-1, 1].

    Linear to 4x4 (6x6 for 48x48 images), then residual upsampling blocks with (conditional) batch normalization, then
    BN, ReLU, conv3x3, tanh. The last batch normalization is unconditional in the conditional model too.

    Args:
        image_size: a key of `WIDTHS`.
        z_dim: size of the latent vector.
        channels: width at full resolution, see `WIDTHS`.
        num_classes: 0 for an unconditional generator.
        image_channels: 1 for grey images, 3 for RGB.
        widths: widths of the first feature map and of each block, in units of `channels`; None: those of `WIDTHS`.

    Raises:
        ValueError: an unsupported image size, another number of widths; labels missing if conditional, or given if
            unconditional.
    """

    def __init__(
        self,
        image_size: int = 32,
        z_dim: int = 128,
        channels: int = 256,
        num_classes: int = 0,
        widths: Sequence[int] | None = None,
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        check_settings(image_size, WIDTHS, num_classes)
        usual = WIDTHS[image_size].generator
        factors = usual if widths is None else widths
        if len(factors) != len(usual) or min(factors) < 1:
            raise ValueError(
                f"widths: got {list(factors)}, expected {len(usual)} whole numbers of at least 1, such as {list(usual)}"
            )
        self.image_size, self.z_dim, self.num_classes = image_size, z_dim, num_classes
        channels_at = [channels * factor for factor in factors]
        self.bottom = image_size >> len(usual) - 1  # side in pixels of the first feature map
        self.linear = glorot(nn.Linear(z_dim, self.bottom**2 * channels_at[0]))
        self.blocks = nn.ModuleList(GeneratorBlock(wide, narrow, num_classes) for wide, narrow in pairwise(channels_at))
        self.bn = BatchNorm(channels_at[-1])
        self.to_rgb = conv3x3(channels_at[-1], image_channels, gain=1.0)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        check_labels(labels, self.num_classes, "generator")
        h = self.linear(latents).unflatten(1, (-1, self.bottom, self.bottom))
        for block in self.blocks:
            h = block(h, labels)
        return torch.tanh(self.to_rgb(F.relu(self.bn(h))))


class ResNetDiscriminator(nn.Module):
    """Maps images (N, C, H, W) in [-1, 1], and labels int64 (N,) if conditional, to logits (N,).

    Residual downsampling blocks, ReLU, sum over the positions, a linear layer; conditional on labels by projection
    (Miyato & Koyama 2018). The sum is computed in float32 under autocast too, or in float64 if the images are, the
    layers after it in the type of their parameters.

    Args:
        image_size: a key of `WIDTHS`.
        channels: width of the first block, see `WIDTHS`.
        num_classes: 0 for an unconditional discriminator.
        image_channels: 1 for grey images, 3 for RGB.
        pooling: "sum" or "mean" of the last feature map's positions: 8x8 at 32x32, 3x3 at 48x48, 2x2 at 64x64, 4x4
            above. Miyato et al. sum, the critic of Gulrajani et al. 2017 averages, so that logits and gradients are 64,
            9, 4 or 16 times smaller.

    Raises:
        ValueError: an unsupported image size or pooling; labels missing if conditional, or given if unconditional.
    """

    def __init__(
        self,
        image_size: int = 32,
        channels: int = 128,
        num_classes: int = 0,
        pooling: str = "sum",
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        check_settings(image_size, WIDTHS, num_classes)
        if pooling not in POOLINGS:
            raise ValueError(f"pooling: got {pooling!r}, expected one of {', '.join(POOLINGS)}")
        self.image_size, self.num_classes, self.pooling = image_size, num_classes, pooling
        usual = WIDTHS[image_size]
        widths = [channels * factor for factor in usual.discriminator]
        self.blocks = nn.ModuleList([FirstDiscriminatorBlock(image_channels, widths[0])])
        self.blocks.extend(
            DiscriminatorBlock(before, after, down=number < usual.halvings)
            for number, (before, after) in enumerate(pairwise(widths), start=1)
        )
        # The authors' 32x32 network has no bias here, their larger networks have one.
        self.linear = glorot(nn.Linear(widths[-1], 1, bias=image_size != 32))
        self.embedding = glorot(nn.Embedding(num_classes, widths[-1])) if num_classes else None

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        check_labels(labels, self.num_classes, "discriminator")
        h = images
        for block in self.blocks:
            h = block(h)
        with torch.autocast(images.device.type, enabled=False):
            h = wide(F.relu(h))
            features = h.sum((2, 3)) if self.pooling == "sum" else h.mean((2, 3))  # (N, C)
            return projection_logits(features, labels, self.linear, self.embedding)
