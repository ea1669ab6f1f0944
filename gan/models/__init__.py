"""Generators and discriminators, independent of weight normalization and loss."""

from collections.abc import Callable

from torch import nn

from gan.models.compact import CompactDiscriminator
from gan.models.initialization import INITIALIZATIONS, inherit_, initialize_
from gan.models.resnet import ResNetDiscriminator, ResNetGenerator
from gan.models.sndcgan import SNDCGANBNGenerator, SNDCGANDiscriminator, SNDCGANGenerator

GENERATORS: dict[str, Callable[..., nn.Module]] = {
    "resnet": ResNetGenerator,
    "sndcgan": SNDCGANGenerator,
    "sndcgan_bn": SNDCGANBNGenerator,
}
DISCRIMINATORS: dict[str, Callable[..., nn.Module]] = {
    "resnet": ResNetDiscriminator,
    "compact": CompactDiscriminator,
    "sndcgan": SNDCGANDiscriminator,
}

__all__ = [
    "DISCRIMINATORS",
    "GENERATORS",
    "INITIALIZATIONS",
    "CompactDiscriminator",
    "ResNetDiscriminator",
    "ResNetGenerator",
    "SNDCGANBNGenerator",
    "SNDCGANDiscriminator",
    "SNDCGANGenerator",
    "inherit_",
    "initialize_",
]
