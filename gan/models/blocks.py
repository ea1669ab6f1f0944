"""Building blocks of the SN-GAN ResNets (Miyato et al. 2018, appendix B.4, and the authors' code).

Activations are never in place: an in-place ReLU before the residual branch would turn the shortcut into relu(x).

Three rewrites save work and change nothing but rounding. A 1x1 convolution commutes with nearest upsampling and with
mean pooling, so shortcuts run at the lower resolution. A 3x3 convolution and the 2x2 mean pooling after it are one 4x4
convolution of stride 2. Nearest upsampling and the 3x3 convolution after it are one transposed 4x4 convolution of
stride 2. The weight that is stored, and normalized, is the 3x3 one.
"""

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear, nn.Embedding)

BATCH_NORM_EPS = 2e-5
"""Chainer's default, used by the original code; PyTorch's is 1e-5."""


def glorot(layer: Layer, gain: float = 1.0) -> Layer:
    """Glorot-uniform weight, zero bias. The original's GlorotUniform(gain) is xavier_uniform_(gain=gain) exactly."""
    nn.init.xavier_uniform_(layer.weight, gain)
    if not isinstance(layer, nn.Embedding) and layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def conv3x3(in_channels: int, out_channels: int, gain: float = math.sqrt(2)) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size; the gain is the original's inside blocks."""
    return glorot(nn.Conv2d(in_channels, out_channels, 3, padding=1), gain)


def conv1x1(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A shortcut's convolution, of gain 1."""
    return glorot(nn.Conv2d(in_channels, out_channels, 1))


def upsample(x: Tensor) -> Tensor:
    """Nearest-neighbour doubling: (N, C, H, W) -> (N, C, 2H, 2W)."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def downsample(x: Tensor) -> Tensor:
    """2x2 mean pooling: (N, C, H, W) -> (N, C, H/2, W/2)."""
    return F.avg_pool2d(x, 2)


def convolve_then_downsample(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """downsample(conv(x)) for a 3x3 convolution with padding 1, at 4/9 of the multiplications.

    The mean of the four shifts of W that a pooled position sees is W's padded 2x2 mean.
    """
    kernel = F.avg_pool2d(F.pad(conv.weight, (1, 1, 1, 1)), 2, stride=1)  # (out, in, 4, 4)
    return F.conv2d(x, kernel, conv.bias, stride=2, padding=1)


def upsample_then_convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """conv(upsample(x)) for a 3x3 convolution with padding 1, at 4/9 of the multiplications.

    Each input pixel meets the sum of the four shifts of W that its four copies would meet.
    """
    kernel = 4 * F.avg_pool2d(F.pad(conv.weight.flip(2, 3), (1, 1, 1, 1)), 2, stride=1)  # (out, in, 4, 4)
    return F.conv_transpose2d(x, kernel.transpose(0, 1), conv.bias, stride=2, padding=1)


class BatchNorm(nn.BatchNorm2d):
    """Batch normalization that takes labels and ignores them.

    The running variance starts at 1 as PyTorch's does; Chainer's starts at 0, which would blow up an untrained
    generator in eval mode and is forgotten at a rate of 0.9 per step.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=BATCH_NORM_EPS)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        return super().forward(x)


class ConditionalBatchNorm(nn.BatchNorm2d):
    """Batch normalization with a scale and a shift per class: y = gamma[label] * normalize(x) + beta[label].

    Dumoulin et al. 2017; gamma starts at 1 and beta at 0 for every class, as in Miyato & Koyama 2018's code.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__(channels, eps=BATCH_NORM_EPS, affine=False)
        self.gamma = nn.Embedding(num_classes, channels)
        self.beta = nn.Embedding(num_classes, channels)
        nn.init.ones_(self.gamma.weight)
        nn.init.zeros_(self.beta.weight)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        assert labels is not None, "the generator checks this at its door"
        normalized = super().forward(x)
        gamma = self.gamma(labels)[:, :, None, None].to(normalized.dtype)  # (N, C, 1, 1)
        beta = self.beta(labels)[:, :, None, None].to(normalized.dtype)
        return torch.addcmul(beta, gamma, normalized)


def batch_norm(channels: int, num_classes: int) -> nn.Module:
    """Conditional on labels where there are classes."""
    return ConditionalBatchNorm(channels, num_classes) if num_classes else BatchNorm(channels)


class GeneratorBlock(nn.Module):
    """(N, in, H, W) -> (N, out, 2H, 2W): BN, ReLU, up, conv3x3, BN, ReLU, conv3x3, plus up(conv1x1(x))."""

    def __init__(self, in_channels: int, out_channels: int, num_classes: int) -> None:
        super().__init__()
        self.bn1 = batch_norm(in_channels, num_classes)
        self.conv1 = conv3x3(in_channels, out_channels)
        self.bn2 = batch_norm(out_channels, num_classes)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.shortcut = conv1x1(in_channels, out_channels)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        h = upsample_then_convolve(self.conv1, F.relu(self.bn1(x, labels)))
        h = self.conv2(F.relu(self.bn2(h, labels)))
        return h + upsample(self.shortcut(x))


class FirstDiscriminatorBlock(nn.Module):
    """(N, 3, H, W) -> (N, out, H/2, W/2), the original's "OptimizedBlock": no ReLU on the image itself."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(3, out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.shortcut = conv1x1(3, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        h = convolve_then_downsample(self.conv2, F.relu(self.conv1(x)))
        return h + self.shortcut(downsample(x))


class DiscriminatorBlock(nn.Module):
    """ReLU, conv3x3, ReLU, conv3x3 (, mean pool), plus conv1x1(x) pooled where it downsamples, x itself where not.

    The hidden width is the input's, as in the original.
    """

    def __init__(self, in_channels: int, out_channels: int, *, down: bool) -> None:
        super().__init__()
        assert down or in_channels == out_channels
        self.down = down
        self.conv1 = conv3x3(in_channels, in_channels)
        self.conv2 = conv3x3(in_channels, out_channels)
        self.shortcut = conv1x1(in_channels, out_channels) if down else None

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.conv1(F.relu(x)))
        if self.shortcut is None:
            return self.conv2(h) + x
        return convolve_then_downsample(self.conv2, h) + self.shortcut(downsample(x))
