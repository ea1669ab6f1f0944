"""SNDCGAN, the convolutional networks of Miyato et al. 2018 (appendix B.4, Table 3) and Lin et al. 2021.

The generator of Table 3 has no batch normalization and no ReLU after its linear layer, so the linear layer and the
first transposed convolution are one linear map. The published codes of Miyato et al. (chainer-gan-lib) and of Lin et
al. have both. The two generators are `sndcgan` and `sndcgan_bn` of `gan.models.GENERATORS`.

The papers do not state the initialization; both codes draw weights from N(0, 0.02) and set biases to 0. That of Lin et
al. truncates it for the discriminator's convolutions: `discriminator.initialization`.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan.models.blocks import BATCH_NORM_EPS, batch_norm, check_labels, check_settings, projection_logits, wide

SLOPE = 0.1
"""Negative slope of the discriminator's leaky ReLUs."""
IMAGE_SIZES = (32, 48, 64)
"""Sizes of Lin et al.: CIFAR-10, STL-10 and CelebA."""
EPS = 1e-5
"""Epsilon of batch normalization in the code of Lin et al."""


def _initialized(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear) -> nn.Module:
    nn.init.normal_(layer.weight, 0.0, 0.02)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _upsampling(channels: int, num_classes: int, eps: float) -> tuple[nn.ModuleList, nn.ModuleList]:
    """Returns three transposed 4x4 convolutions of stride 2, from 8 * `channels` to `channels`, and their norms."""
    widths = [8 * channels, 4 * channels, 2 * channels, channels]
    ups = (_initialized(nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1)) for wide, narrow in pairwise(widths))
    return nn.ModuleList(ups), nn.ModuleList(batch_norm(width, num_classes, eps) for width in widths[1:])


class SNDCGANGenerator(nn.Module):
    """Maps latents float32 (N, z_dim), and labels int64 (N,) if conditional, to images (N, C, H, W) in [-1, 1].

    Table 3 of Miyato et al. 2018: linear to an eighth of the image size, three transposed 4x4 convolutions of stride 2,
    each with (conditional) batch normalization and ReLU, conv3x3, tanh.

    Args:
        image_size: 32, 48 or 64.
        z_dim: size of the latent vector.
        channels: width at full resolution, 64 in the paper; the layers before are 8, 4 and 2 times as wide.
        num_classes: 0 for an unconditional generator.
        image_channels: 1 for grey images, 3 for RGB.

    Raises:
        ValueError: an unsupported image size; labels missing if conditional, or given if unconditional.
    """

    _as_code = False
    linear_norm: nn.BatchNorm1d | None

    def __init__(
        self,
        image_size: int = 32,
        z_dim: int = 128,
        channels: int = 64,
        num_classes: int = 0,
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        check_settings(image_size, IMAGE_SIZES, num_classes)
        self.image_size, self.z_dim, self.num_classes = image_size, z_dim, num_classes
        self.bottom = image_size // 8
        features = 8 * channels * self.bottom**2
        self.linear = _initialized(nn.Linear(z_dim, features))
        self.linear_norm = nn.BatchNorm1d(features, eps=EPS) if self._as_code else None
        self.ups, self.norms = _upsampling(channels, num_classes, EPS if self._as_code else BATCH_NORM_EPS)
        last = nn.ConvTranspose2d if self._as_code else nn.Conv2d
        self.to_rgb = _initialized(last(channels, image_channels, 3, padding=1))

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        check_labels(labels, self.num_classes, "generator")
        h = self.linear(latents)
        if self.linear_norm is not None:
            h = F.relu(self.linear_norm(h))
        h = h.unflatten(1, (-1, self.bottom, self.bottom))
        for up, norm in zip(self.ups, self.norms, strict=True):
            h = F.relu(norm(up(h), labels))
        return torch.tanh(self.to_rgb(h))


class SNDCGANBNGenerator(SNDCGANGenerator):
    """Generator of the code of Lin et al. 2021, whose layers are those of Miyato et al.'s; otherwise as the base class.

    Linear to an eighth of the image size, batch normalization of each feature and position, ReLU, three transposed 4x4
    convolutions of stride 2, each with (conditional) batch normalization and ReLU, transposed conv3x3, tanh. The first
    batch normalization is unconditional in the conditional model too, which neither code has.
    """

    _as_code = True


class SNDCGANDiscriminator(nn.Module):
    """Maps images (N, C, H, W) in [-1, 1], and labels int64 (N,) if conditional, to logits (N,).

    Seven convolutions, alternating 3x3 and 4x4 of stride 2, each with leaky ReLU, then a linear layer over all
    positions; conditional on labels by projection, as `gan.models.ResNetDiscriminator`. The linear layer computes in
    the type of its parameters, float32 under autocast.

    Args:
        image_size: 32, 48 or 64.
        channels: width of the first two convolutions, 64 in the paper; the others are 2, 2, 4, 4 and 8 times as wide.
        num_classes: 0 for an unconditional discriminator.
        image_channels: 1 for grey images, 3 for RGB.

    Raises:
        ValueError: an unsupported image size; labels missing if conditional, or given if unconditional.
    """

    def __init__(self, image_size: int = 32, channels: int = 64, num_classes: int = 0, image_channels: int = 3) -> None:
        super().__init__()
        check_settings(image_size, IMAGE_SIZES, num_classes)
        self.image_size, self.num_classes = image_size, num_classes
        widths = [image_channels, *(factor * channels for factor in (1, 1, 2, 2, 4, 4, 8))]
        self.convs = nn.ModuleList(
            _initialized(nn.Conv2d(before, after, 4 if odd else 3, stride=2 if odd else 1, padding=1))
            for odd, (before, after) in zip((0, 1, 0, 1, 0, 1, 0), pairwise(widths), strict=True)
        )
        features = widths[-1] * (image_size // 8) ** 2
        self.linear = _initialized(nn.Linear(features, 1))
        self.embedding = nn.Embedding(num_classes, features) if num_classes else None
        if self.embedding is not None:
            nn.init.normal_(self.embedding.weight, 0.0, 0.02)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        check_labels(labels, self.num_classes, "discriminator")
        h = images
        for conv in self.convs:
            h = F.leaky_relu(conv(h), SLOPE)
        with torch.autocast(images.device.type, enabled=False):
            features = wide(h).flatten(1)  # (N, C * H/8 * W/8)
            return projection_logits(features, labels, self.linear, self.embedding)
