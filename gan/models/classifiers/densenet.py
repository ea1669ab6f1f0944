"""DenseNet-BC (Huang et al. 2017): bottleneck layers, transitions that halve the width, no dropout."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan.models.classifiers.blocks import check_depth, check_num_classes, classify, conv1x1, conv3x3, initialize_

BOTTLENECK = 4
"""Width of the 1x1 convolutions, in units of the growth rate."""


class DenseLayer(nn.Module):
    """Concatenates x with BN, ReLU, conv1x1, BN, ReLU, conv3x3 of x: (N, in, H, W) -> (N, in + growth, H, W)."""

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv1x1(in_channels, BOTTLENECK * growth)
        self.bn2 = nn.BatchNorm2d(BOTTLENECK * growth)
        self.conv2 = conv3x3(BOTTLENECK * growth, growth)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.relu(self.bn1(x)))
        return torch.cat([x, self.conv2(F.relu(self.bn2(h)))], dim=1)


class Transition(nn.Module):
    """Halves width and resolution by BN, ReLU, conv1x1, mean pooling: (N, C, H, W) -> (N, C // 2, H / 2, W / 2)."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(in_channels)
        self.conv = conv1x1(in_channels, in_channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.conv(F.relu(self.bn(x))), 2)


class DenseNet(nn.Module):
    """Maps images (N, C, H, W) in [-1, 1] to logits float32 (N, num_classes).

    conv3x3 of 2 * growth channels, three dense blocks of n layers with transitions between them, BN, ReLU, mean
    pooling, a linear layer.

    Args:
        num_classes: 2 or more.
        image_channels: 1 for grey images, 3 for RGB.
        depth: 6 n + 4; 100 in the SRN paper.
        growth: number of channels that each layer adds; 12 in the SRN paper.

    Raises:
        ValueError: an impossible depth, or fewer than two classes.
    """

    def __init__(self, num_classes: int = 100, depth: int = 100, growth: int = 12, image_channels: int = 3) -> None:
        super().__init__()
        check_num_classes(num_classes)
        layers = check_depth(depth, 4, 6, "22, 40 or 100")
        width = 2 * growth
        self.conv = conv3x3(image_channels, width)
        self.blocks = nn.Sequential()
        for block in range(3):
            if block:
                self.blocks.append(Transition(width))
                width //= 2
            for _ in range(layers):
                self.blocks.append(DenseLayer(width, growth))
                width += growth
        self.bn = nn.BatchNorm2d(width)
        self.linear = nn.Linear(width, num_classes)
        initialize_(self)

    def forward(self, images: Tensor) -> Tensor:
        return classify(self.linear, F.relu(self.bn(self.blocks(self.conv(images)))))
