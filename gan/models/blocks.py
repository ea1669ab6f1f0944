"""Building blocks of the SN-GAN ResNets (Miyato et al. 2018, appendix B.4, and the authors' code).

No activation is in place: an in-place ReLU before the residual branch would turn the shortcut into relu(x).

Three equivalent forms save arithmetic and change only rounding. A 1x1 convolution commutes with nearest upsampling and
mean pooling, so shortcuts run at the lower resolution. A 3x3 convolution followed by 2x2 mean pooling is a 4x4
convolution of stride 2. Nearest upsampling followed by a 3x3 convolution is a transposed 4x4 convolution of stride 2.
The stored and normalized weight is the 3x3 one. The last two forms do not call the layer; if it has forward hooks, the
plain form is computed, so that they run.
"""

import math
from collections.abc import Collection
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear, nn.Embedding)

BATCH_NORM_EPS = 2e-5
"""Epsilon of batch normalization: Chainer's default, used by the authors' code; PyTorch's is 1e-5."""


def check_settings(image_size: int, image_sizes: Collection[int], num_classes: int) -> None:
    """Raises ValueError for an unsupported image size or a negative number of classes."""
    if image_size not in image_sizes:
        sizes = ", ".join(map(str, sorted(image_sizes)))
        raise ValueError(
            f"image_size: got {image_size}, expected one of {sizes}; set data.image_size to one of them or choose "
            "another architecture"
        )
    if num_classes < 0:
        raise ValueError(f"num_classes: got {num_classes}, expected 0 (unconditional) or more")


def check_labels(labels: Tensor | None, num_classes: int, network: str) -> None:
    """Raises ValueError if a conditional network gets no labels or an unconditional one gets labels."""
    if num_classes and labels is None:
        raise ValueError(f"the {network} is conditional on {num_classes} classes: call it with labels, int64 (N,)")
    if not num_classes and labels is not None:
        raise ValueError(f"the {network} is unconditional: call it without labels")


def wide(h: Tensor) -> Tensor:
    """Returns h in float32, or in float64 if it is; sums over positions lose digits in narrower types."""
    return h.to(torch.promote_types(h.dtype, torch.float32))


def projection_logits(h: Tensor, labels: Tensor | None, linear: nn.Module, embedding: nn.Module | None) -> Tensor:
    """Returns the logits w . h + e[label] . h, (N,), of features h (N, C). Miyato & Koyama 2018.

    Without an embedding e, only the first term. Computes in the type of the linear layer's parameters.
    """
    # Not of its weight, as each access recomputes a normalized one. Replicas of nn.DataParallel have no parameters.
    h = h.to(next(linear.parameters(), h).dtype)
    logits = linear(h).squeeze(1)  # (N,)
    return logits if embedding is None else logits + (embedding(labels) * h).sum(1)


def glorot(layer: Layer, gain: float = 1.0) -> Layer:
    """Initializes the weight Glorot-uniformly and the bias with 0, as GlorotUniform(gain) of the authors' code."""
    nn.init.xavier_uniform_(layer.weight, gain)
    if not isinstance(layer, nn.Embedding) and layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def conv3x3(in_channels: int, out_channels: int, gain: float = math.sqrt(2)) -> nn.Conv2d:
    """Returns a 3x3 convolution that keeps the image size; the default gain is that of the authors' blocks."""
    return glorot(nn.Conv2d(in_channels, out_channels, 3, padding=1), gain)


def conv1x1(in_channels: int, out_channels: int) -> nn.Conv2d:
    """Returns a 1x1 convolution of gain 1, for shortcuts."""
    return glorot(nn.Conv2d(in_channels, out_channels, 1))


def upsample(x: Tensor) -> Tensor:
    """Doubles the resolution by nearest neighbour: (N, C, H, W) -> (N, C, 2H, 2W)."""
    with torch.autocast(x.device.type, enabled=False):  # on a GPU it would return float32
        return F.interpolate(x, scale_factor=2.0, mode="nearest")


def downsample(x: Tensor) -> Tensor:
    """Halves the resolution by 2x2 mean pooling: (N, C, H, W) -> (N, C, H/2, W/2)."""
    return F.avg_pool2d(x, 2)


def convolve_then_downsample(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Computes downsample(conv(x)) for a 3x3 convolution with padding 1, at 4/9 of the multiplications.

    The kernel is the mean of the four shifts of W that contribute to a pooled position: a 2x2 mean of the padded W.
    """
    if _has_hooks(conv):
        return downsample(conv(x))
    kernel = F.avg_pool2d(F.pad(conv.weight, (1, 1, 1, 1)), 2, stride=1)  # (out, in, 4, 4)
    return F.conv2d(x, kernel, conv.bias, stride=2, padding=1)


def upsample_then_convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Computes conv(upsample(x)) for a 3x3 convolution with padding 1, at 4/9 of the multiplications.

    The kernel is the sum of the four shifts of W that are applied to the four copies of an input pixel.
    """
    if _has_hooks(conv):
        return conv(upsample(x))
    kernel = 4 * F.avg_pool2d(F.pad(conv.weight.flip(2, 3), (1, 1, 1, 1)), 2, stride=1)  # (out, in, 4, 4)
    return F.conv_transpose2d(x, kernel.transpose(0, 1), conv.bias, stride=2, padding=1)


def _has_hooks(layer: nn.Module) -> bool:
    return bool(layer._forward_hooks or layer._forward_pre_hooks)


class BatchNorm(nn.BatchNorm2d):
    """Batch normalization that accepts labels and ignores them.

    The running variance starts at 1, as in PyTorch. Chainer's starts at 0, which makes the output of an untrained
    generator explode in eval mode.
    """

    def __init__(self, channels: int, eps: float = BATCH_NORM_EPS) -> None:
        super().__init__(channels, eps=eps)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        return super().forward(x)


class ConditionalBatchNorm(nn.BatchNorm2d):
    """Batch normalization with a scale and a shift per class: y = gamma[label] * normalize(x) + beta[label].

    Dumoulin et al. 2017; gamma starts at 1 and beta at 0 for every class, as in the code of Miyato & Koyama 2018.
    """

    def __init__(self, channels: int, num_classes: int, eps: float = BATCH_NORM_EPS) -> None:
        super().__init__(channels, eps=eps, affine=False)
        self.gamma = nn.Embedding(num_classes, channels)
        self.beta = nn.Embedding(num_classes, channels)
        nn.init.ones_(self.gamma.weight)
        nn.init.zeros_(self.beta.weight)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        assert labels is not None, "checked by the generator"
        normalized = super().forward(x)
        gamma = self.gamma(labels)[:, :, None, None].to(normalized.dtype)  # (N, C, 1, 1)
        beta = self.beta(labels)[:, :, None, None].to(normalized.dtype)
        return torch.addcmul(beta, gamma, normalized)


def batch_norm(channels: int, num_classes: int, eps: float = BATCH_NORM_EPS) -> nn.Module:
    """Returns a batch normalization, conditional on labels if `num_classes` is not 0."""
    return ConditionalBatchNorm(channels, num_classes, eps) if num_classes else BatchNorm(channels, eps)


class GeneratorBlock(nn.Module):
    """Residual block (N, in, H, W) -> (N, out, 2H, 2W).

    BN, ReLU, upsampling, conv3x3, BN, ReLU, conv3x3; the shortcut is conv1x1, upsampling.
    """

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
    """Residual block (N, in, H, W) -> (N, out, H/2, W/2) without ReLU on the image.

    conv3x3, ReLU, conv3x3, mean pooling; the shortcut is mean pooling, conv1x1. The authors call it OptimizedBlock.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.shortcut = conv1x1(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        h = convolve_then_downsample(self.conv2, F.relu(self.conv1(x)))
        return h + self.shortcut(downsample(x))


class DiscriminatorBlock(nn.Module):
    """Residual block (N, in, H, W) -> (N, out, H/2, W/2), or (N, in, H, W) -> (N, out, H, W) without `down`.

    ReLU, conv3x3, ReLU, conv3x3, and mean pooling if `down`. The shortcut is mean pooling if `down`, then conv1x1 if
    the resolution or the width changes. The hidden width equals the input width, as in the authors' code.
    """

    def __init__(self, in_channels: int, out_channels: int, *, down: bool) -> None:
        super().__init__()
        self.down = down
        self.conv1 = conv3x3(in_channels, in_channels)
        self.conv2 = conv3x3(in_channels, out_channels)
        self.shortcut = conv1x1(in_channels, out_channels) if down or in_channels != out_channels else None

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.conv1(F.relu(x)))
        if self.shortcut is None:
            return self.conv2(h) + x
        if not self.down:
            return self.conv2(h) + self.shortcut(x)
        return convolve_then_downsample(self.conv2, h) + self.shortcut(downsample(x))
