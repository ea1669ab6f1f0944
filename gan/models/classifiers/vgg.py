"""VGG with batch normalization for 32x32 images: convolutions of Simonyan & Zisserman 2014, one linear layer."""

from torch import Tensor, nn

from gan.models.classifiers.blocks import check_num_classes, classify, initialize_

STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Number of convolutions in each stage, by depth. The depth counts the three linear layers of the original."""
WIDTHS = (1, 2, 4, 8, 8)
"""Width of each stage, in units of `channels`."""


class VGG(nn.Module):
    """Maps images (N, C, H, W) in [-1, 1], 32x32 or larger, to logits float32 (N, num_classes).

    Five stages of conv3x3, BN, ReLU, each followed by 2x2 max pooling; mean pooling, a linear layer.

    Args:
        num_classes: 2 or more.
        image_channels: 1 for grey images, 3 for RGB.
        depth: 11, 13, 16 or 19; 19 in the SRN paper.
        channels: width of the first stage, 64 in the papers; the others are 2, 4, 8 and 8 times as wide.

    Raises:
        ValueError: an impossible depth, or fewer than two classes.
    """

    def __init__(self, num_classes: int = 100, depth: int = 19, channels: int = 64, image_channels: int = 3) -> None:
        super().__init__()
        check_num_classes(num_classes)
        if depth not in STAGES:
            raise ValueError(f"depth: got {depth}, expected one of {', '.join(map(str, STAGES))}")
        self.features = nn.Sequential()
        before = image_channels
        for convolutions, factor in zip(STAGES[depth], WIDTHS, strict=True):
            for _ in range(convolutions):
                width = factor * channels
                for layer in (nn.Conv2d(before, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()):
                    self.features.append(layer)
                before = width
            self.features.append(nn.MaxPool2d(2))
        self.linear = nn.Linear(before, num_classes)
        initialize_(self)

    def forward(self, images: Tensor) -> Tensor:
        return classify(self.linear, self.features(images))
