"""ResNets for 32x32 images (He et al. 2016, section 4.2), with projection shortcuts."""

import torch.nn.functional as F
from torch import Tensor, nn

from gan.models.classifiers.blocks import check_depth, check_num_classes, classify, conv1x1, conv3x3, initialize_


class BasicBlock(nn.Module):
    """Residual block of two 3x3 convolutions: (N, in, H, W) -> (N, out, H / stride, W / stride).

    relu(BN(conv3x3(relu(BN(conv3x3(x))))) + shortcut(x)). The shortcut is x if the shape does not change, otherwise a
    1x1 convolution with batch normalization ("option B").
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            self.shortcut.append(conv1x1(in_channels, out_channels, stride)).append(nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(h)) + self.shortcut(x))


class ResNet(nn.Module):
    """Maps images (N, C, H, W) in [-1, 1] to logits float32 (N, num_classes).

    conv3x3, three stages of n blocks at full, half and quarter resolution, mean pooling, a linear layer.

    Args:
        num_classes: 2 or more.
        image_channels: 1 for grey images, 3 for RGB.
        depth: 6 n + 2; 110 in the SRN paper.
        channels: width of the first stage, 16 in the papers; the others are 2 and 4 times as wide.

    Raises:
        ValueError: an impossible depth, or fewer than two classes.
    """

    def __init__(self, num_classes: int = 100, depth: int = 110, channels: int = 16, image_channels: int = 3) -> None:
        super().__init__()
        check_num_classes(num_classes)
        blocks = check_depth(depth, 2, 6, "20, 56 or 110")
        self.conv = conv3x3(image_channels, channels)
        self.bn = nn.BatchNorm2d(channels)
        self.blocks = nn.Sequential()
        before = channels
        for stride, width in ((1, channels), (2, 2 * channels), (2, 4 * channels)):
            for index in range(blocks):
                self.blocks.append(BasicBlock(before, width, 1 if index else stride))
                before = width
        self.linear = nn.Linear(before, num_classes)
        initialize_(self)

    def forward(self, images: Tensor) -> Tensor:
        return classify(self.linear, self.blocks(F.relu(self.bn(self.conv(images)))))
