"""Wide ResNets (Zagoruyko & Komodakis 2016): pre-activation blocks, no dropout."""

import torch.nn.functional as F
from torch import Tensor, nn

from gan.models.classifiers.blocks import check_depth, check_num_classes, classify, conv1x1, conv3x3, initialize_


class PreActivationBlock(nn.Module):
    """Residual block with activations before the convolutions: (N, in, H, W) -> (N, out, H / stride, W / stride).

    conv3x3(relu(BN(conv3x3(relu(BN(x)))))) + shortcut. The shortcut is x if the shape does not change, otherwise a 1x1
    convolution of relu(BN(x)), followed by batch normalization if `shortcut_bn`.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, *, shortcut_bn: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.shortcut: nn.Sequential | None = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(conv1x1(in_channels, out_channels, stride))
            if shortcut_bn:
                self.shortcut.append(nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.bn1(x))
        h = self.conv2(F.relu(self.bn2(self.conv1(activated))))
        return h + (x if self.shortcut is None else self.shortcut(activated))


class WideResNet(nn.Module):
    """Maps images (N, C, H, W) in [-1, 1] to logits float32 (N, num_classes).

    conv3x3 of 16 channels, three stages of n blocks at full, half and quarter resolution, BN, ReLU, mean pooling, a
    linear layer.

    Args:
        num_classes: 2 or more.
        image_channels: 1 for grey images, 3 for RGB.
        depth: 6 n + 4; 28 in the SRN paper.
        width: the stages are 16, 32 and 64 times this wide; 10 in the SRN paper.
        shortcut_bn: adds batch normalization to the three 1x1 shortcuts, as the SRN paper's parameter count implies.

    Raises:
        ValueError: an impossible depth, or fewer than two classes.
    """

    def __init__(
        self,
        num_classes: int = 100,
        depth: int = 28,
        width: int = 10,
        *,
        shortcut_bn: bool = False,
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        check_num_classes(num_classes)
        blocks = check_depth(depth, 4, 6, "16, 28 or 40")
        self.conv = conv3x3(image_channels, 16)
        self.blocks = nn.Sequential()
        before = 16
        for stride, channels in ((1, 16 * width), (2, 32 * width), (2, 64 * width)):
            for index in range(blocks):
                block = PreActivationBlock(before, channels, 1 if index else stride, shortcut_bn=shortcut_bn)
                self.blocks.append(block)
                before = channels
        self.bn = nn.BatchNorm2d(before)
        self.linear = nn.Linear(before, num_classes)
        initialize_(self)

    def forward(self, images: Tensor) -> Tensor:
        return classify(self.linear, F.relu(self.bn(self.blocks(self.conv(images)))))
