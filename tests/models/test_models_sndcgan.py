"""Tests of gan.models.sndcgan against Table 3 of Miyato et al. 2018."""

import pytest
import torch
from torch import nn

from gan.models import SNDCGANDiscriminator, SNDCGANGenerator
from gan.normalization import NORMALIZED_LAYERS


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_parameters_by_hand() -> None:
    """Counts weights and biases of the table's layers, and two numbers per channel of each batch norm."""
    ups = [(512, 256), (256, 128), (128, 64)]
    generator = 129 * 512 * 16 + sum(16 * a * b + 3 * b for a, b in ups) + 9 * 64 * 3 + 3
    assert count(SNDCGANGenerator()) == generator == 3_812_355
    convs = [(9, 3, 64), (16, 64, 64), (9, 64, 128), (16, 128, 128), (9, 128, 256), (16, 256, 256), (9, 256, 512)]
    discriminator = sum(k * a * b + b for k, a, b in convs) + 512 * 16 + 1
    assert count(SNDCGANDiscriminator()) == discriminator


@pytest.mark.parametrize("image_size", [32, 64])
@pytest.mark.parametrize("num_classes", [0, 3])
def test_shapes_and_ranges(image_size: int, num_classes: int) -> None:
    generator = SNDCGANGenerator(image_size, z_dim=5, channels=2, num_classes=num_classes)
    discriminator = SNDCGANDiscriminator(image_size, channels=2, num_classes=num_classes)
    labels = torch.tensor([0, 2]) if num_classes else None
    images = generator(torch.randn(2, 5), labels)
    assert images.shape == (2, 3, image_size, image_size)
    assert float(images.detach().abs().max()) <= 1
    logits = discriminator(images, labels)
    assert logits.shape == (2,)
    assert logits.dtype == torch.float32


def test_each_class_has_a_logit_of_its_own() -> None:
    """Projection: logit(y) - logit(y') = (e[y] - e[y']) . h, linear in the embedding."""
    discriminator = SNDCGANDiscriminator(channels=2, num_classes=2)
    images = torch.randn(1, 3, 32, 32)
    first, second = (discriminator(images, torch.tensor([label])) for label in (0, 1))
    assert discriminator.embedding is not None
    with torch.no_grad():
        discriminator.embedding.weight[1] = discriminator.embedding.weight[0]
    assert not torch.equal(first, second)
    assert torch.equal(discriminator(images, torch.tensor([1])), first)


def test_every_weight_of_the_discriminator_can_be_normalized() -> None:
    layers = [module for module in SNDCGANDiscriminator(num_classes=2).modules() if list(module.parameters(False))]
    assert len(layers) == 9
    assert all(isinstance(layer, NORMALIZED_LAYERS) for layer in layers)


@pytest.mark.parametrize("network", [SNDCGANGenerator, SNDCGANDiscriminator])
def test_other_sizes_are_refused(network: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match="image_size: got 48"):
        network(48)
