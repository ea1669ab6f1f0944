"""AlexNet for 32x32 images: the five convolutions of Krizhevsky et al. 2012, no normalization, one linear layer."""

from torch import Tensor, nn

from gan.models.classifiers.blocks import check_num_classes, classify


class AlexNet(nn.Module):
    """Maps images (N, C, H, W) in [-1, 1], 32x32 or larger, to logits float32 (N, num_classes).

    An 11x11 convolution of stride 4, a 5x5 and three 3x3 convolutions, each with ReLU; 2x2 max pooling after the first,
    the second and the last; mean pooling, a linear layer. All layers have PyTorch's default initialization.

    Args:
        num_classes: 2 or more.
        image_channels: 1 for grey images, 3 for RGB.
        channels: width of the first convolution, 64 for the published number of parameters; the others are 3, 6, 4 and
            4 times as wide.

    Raises:
        ValueError: fewer than two classes.
    """

    def __init__(self, num_classes: int = 100, channels: int = 64, image_channels: int = 3) -> None:
        super().__init__()
        check_num_classes(num_classes)
        c = channels
        self.features = nn.Sequential(
            nn.Conv2d(image_channels, c, 11, stride=4, padding=5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(c, 3 * c, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(3 * c, 6 * c, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(6 * c, 4 * c, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(4 * c, 4 * c, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.linear = nn.Linear(4 * c, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return classify(self.linear, self.features(images))
