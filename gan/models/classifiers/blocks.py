"""Building blocks of the classifiers: convolutions, initialization, last layer, checks of arguments."""

import torch
from torch import Tensor, nn


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """Returns a 3x3 convolution without bias, to be followed by batch normalization."""
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """Returns a 1x1 convolution without bias, to be followed by batch normalization."""
    return nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)


def initialize_(network: nn.Module) -> None:
    """Initializes all convolutions: normal weights of variance 2 / fan-out (He et al. 2015), zero biases."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def classify(linear: nn.Linear, h: Tensor) -> Tensor:
    """Returns the logits (N, num_classes) of features h (N, C, H, W): spatial mean, then the linear layer.

    Computes in the type of the layer, float32 even under autocast. The type is that of the bias, because each access to
    a normalized weight recomputes the weight.
    """
    with torch.autocast(h.device.type, enabled=False):
        return linear(h.to(linear.bias.dtype).mean((2, 3)))


def check_num_classes(num_classes: int) -> None:
    """Raises ValueError for fewer than two classes."""
    if num_classes < 2:
        raise ValueError(f"num_classes: got {num_classes}, expected 2 or more")


def check_depth(depth: int, layers: int, per_unit: int, examples: str) -> int:
    """Returns n of depth = per_unit * n + layers.

    Raises:
        ValueError: no n >= 1 gives this depth.
    """
    units, rest = divmod(depth - layers, per_unit)
    if units < 1 or rest:
        raise ValueError(f"depth: got {depth}, expected {per_unit} n + {layers}, such as {examples}")
    return units
