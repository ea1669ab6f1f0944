"""Architectures. They know no weight normalization and no loss."""

from collections.abc import Callable

from torch import nn

from gan.models.resnet import ResNetDiscriminator, ResNetGenerator

GENERATORS: dict[str, Callable[..., nn.Module]] = {
    "resnet": ResNetGenerator,
}
DISCRIMINATORS: dict[str, Callable[..., nn.Module]] = {
    "resnet": ResNetDiscriminator,
}

__all__ = ["DISCRIMINATORS", "GENERATORS", "ResNetDiscriminator", "ResNetGenerator"]
