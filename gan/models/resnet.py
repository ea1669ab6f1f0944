"""The SN-GAN ResNets for 32x32 and 64x64 images, unconditional and class-conditional.

Miyato et al. 2018 (SN-GAN) and Miyato & Koyama 2018 (projection discriminator), after the authors' code. The weights
are plain; `gan.normalization.normalize` adds a normalization.
"""

from collections.abc import Sequence
from itertools import pairwise

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

BOTTOM_WIDTH = 4
"""Side in pixels of the generator's first feature map."""
GENERATOR_WIDTHS = {32: (1, 1, 1, 1), 64: (16, 8, 4, 2, 1)}
"""Width of the generator at 4x4, 8x8, ... pixels, in units of `channels`."""
POOLINGS = ("sum", "mean")
"""Values of `ResNetDiscriminator`'s argument `pooling`."""
DISCRIMINATOR_WIDTHS = {32: (1, 1, 1, 1), 64: (1, 2, 4, 8, 16)}
"""Width of the discriminator after each block, in units of `channels`."""
DISCRIMINATOR_DOWN = {32: (True, True, False, False), 64: (True, True, True, True, True)}
"""Whether each block of the discriminator halves the resolution."""


class ResNetGenerator(nn.Module):
    """Maps latents float32 (N, z_dim), and labels int64 (N,) if conditional, to images (N, 3, H, W) in [-1, 1].

    Linear to 4x4, then residual upsampling blocks with (conditional) batch normalization, then BN, ReLU, conv3x3, tanh.
    The last batch normalization is unconditional in the conditional model too.

    Args:
        image_size: 32 or 64.
        z_dim: size of the latent vector.
        channels: width at full resolution. At 32x32 every block has this width, 256 in the paper. At 64x64 the widths
            are 16, 8, 4, 2, 1 times this, 64 in the authors' code.
        num_classes: 0 for an unconditional generator.
        widths: widths at 4x4, 8x8, ... up to full resolution, in units of `channels`; None: those of the papers.

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
    ) -> None:
        super().__init__()
        check_settings(image_size, GENERATOR_WIDTHS, num_classes)
        usual = GENERATOR_WIDTHS[image_size]
        factors = usual if widths is None else widths
        if len(factors) != len(usual) or min(factors) < 1:
            raise ValueError(
                f"widths: got {list(factors)}, expected {len(usual)} whole numbers of at least 1, such as {list(usual)}"
            )
        self.image_size, self.z_dim, self.num_classes = image_size, z_dim, num_classes
        channels_at = [channels * factor for factor in factors]
        self.linear = glorot(nn.Linear(z_dim, BOTTOM_WIDTH**2 * channels_at[0]))
        self.blocks = nn.ModuleList(GeneratorBlock(wide, narrow, num_classes) for wide, narrow in pairwise(channels_at))
        self.bn = BatchNorm(channels_at[-1])
        self.to_rgb = conv3x3(channels_at[-1], 3, gain=1.0)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        check_labels(labels, self.num_classes, "generator")
        h = self.linear(latents).unflatten(1, (-1, BOTTOM_WIDTH, BOTTOM_WIDTH))
        for block in self.blocks:
            h = block(h, labels)
        return torch.tanh(self.to_rgb(F.relu(self.bn(h))))


class ResNetDiscriminator(nn.Module):
    """Maps images (N, 3, H, W) in [-1, 1], and labels int64 (N,) if conditional, to logits (N,).

    Residual downsampling blocks, ReLU, sum over the positions, a linear layer; conditional on labels by projection
    (Miyato & Koyama 2018). The sum is computed in float32 under autocast too, or in float64 if the images are, the
    layers after it in the type of their parameters.

    Args:
        image_size: 32 or 64.
        channels: at 32x32 the width of every block, 128 in the paper. At 64x64 the widths of the blocks are 1, 2, 4, 8,
            16 times this, 64 in the authors' code.
        num_classes: 0 for an unconditional discriminator.
        pooling: "sum" or "mean" of the last feature map's positions, 8x8 at 32x32 and 2x2 at 64x64. Miyato et al. sum,
            the critic of Gulrajani et al. 2017 averages, so that logits and gradients are 64 or 4 times smaller.

    Raises:
        ValueError: an unsupported image size or pooling; labels missing if conditional, or given if unconditional.
    """

    def __init__(self, image_size: int = 32, channels: int = 128, num_classes: int = 0, pooling: str = "sum") -> None:
        super().__init__()
        check_settings(image_size, GENERATOR_WIDTHS, num_classes)
        if pooling not in POOLINGS:
            raise ValueError(f"pooling: got {pooling!r}, expected one of {', '.join(POOLINGS)}")
        self.image_size, self.num_classes, self.pooling = image_size, num_classes, pooling
        widths = [channels * factor for factor in DISCRIMINATOR_WIDTHS[image_size]]
        downs = DISCRIMINATOR_DOWN[image_size][1:]
        self.blocks = nn.ModuleList([FirstDiscriminatorBlock(widths[0])])
        self.blocks.extend(
            DiscriminatorBlock(narrow, wide, down=down)
            for narrow, wide, down in zip(widths[:-1], widths[1:], downs, strict=True)
        )
        # The authors' 32x32 network has no bias here, their 64x64 network has one.
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
