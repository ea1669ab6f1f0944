"""gan.models.CompactDiscriminator, and the widths of the generator that trains with it."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gan.build import build_discriminator, build_generator
from gan.config import load_config
from gan.errors import ConfigError
from gan.models import CompactDiscriminator, ResNetGenerator
from gan.normalization import NORMALIZED_LAYERS


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def block(narrow: int, wide: int) -> int:
    """Weights and biases of two 3x3 convolutions and a 1x1 shortcut."""
    return 9 * narrow**2 + narrow + 9 * narrow * wide + wide + narrow * wide + wide


@pytest.mark.parametrize(
    ("image_size", "widths", "positions"),
    [
        (32, [32, 64, 128], 16),
        (48, [32, 64, 128], 36),
        (64, [32, 64, 128, 256], 16),
        (128, [32, 64, 128, 256, 512], 16),
    ],
)
def test_parameters_by_hand(image_size: int, widths: list[int], positions: int) -> None:
    """conv3x3 of 12 channels, blocks that double the width down to 4x4 or 6x6, a linear layer and an embedding."""
    trunk = 9 * 12 * 32 + 32 + sum(block(*pair) for pair in pairwise(widths))
    assert count(CompactDiscriminator(image_size)) == trunk + positions * widths[-1] + 1
    network = CompactDiscriminator(image_size, num_classes=10)
    assert count(network) == trunk + 11 * positions * widths[-1] + 1
    assert network(torch.zeros(1, 3, image_size, image_size), torch.tensor([0])).shape == (1,)


def test_it_computes_what_its_docstring_says() -> None:
    """From its weights by plain convolutions and pooling, and with each 2x2 of pixels as one position."""
    torch.manual_seed(0)
    network = CompactDiscriminator(channels=4, num_classes=3).double()
    images, labels = torch.randn(5, 3, 32, 32, dtype=torch.double), torch.tensor([0, 1, 2, 2, 0])
    corners = [images[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]  # (N, 3, 16, 16) each
    h = F.conv2d(torch.stack(corners, 2).flatten(1, 2), network.conv.weight, network.conv.bias, padding=1)
    for part in network.blocks:
        residual = part.conv2(F.relu(part.conv1(F.relu(h))))
        h = F.avg_pool2d(residual + part.shortcut(h), 2)
    features = F.relu(h).flatten(1).float()  # the head is in float32
    assert network.embedding is not None
    expected = network.float().linear(features)[:, 0] + (network.embedding(labels) * features).sum(1)
    torch.testing.assert_close(network(images.float(), labels), expected, rtol=1e-4, atol=1e-5)


def test_every_weight_can_be_normalized() -> None:
    layers = [module for module in CompactDiscriminator(num_classes=2).modules() if list(module.parameters(False))]
    assert len(layers) == 9
    assert all(isinstance(layer, NORMALIZED_LAYERS) for layer in layers)


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="image_size: got 256"):
        CompactDiscriminator(256)
    with pytest.raises(ValueError, match="the discriminator is unconditional"):
        CompactDiscriminator()(torch.zeros(1, 3, 32, 32), torch.tensor([0]))


def test_widths_of_the_generator() -> None:
    """[1, 1, 1, 1] is the paper's network; otherwise each block has its own width."""
    assert count(ResNetGenerator(widths=[1, 1, 1, 1])) == count(ResNetGenerator())
    generator = ResNetGenerator(z_dim=8, channels=2, widths=[8, 4, 2, 1])
    assert [part.conv1.weight.shape[:2] for part in generator.blocks] == [(8, 16), (4, 8), (2, 4)]
    assert generator(torch.randn(2, 8)).shape == (2, 3, 32, 32)
    assert len(ResNetGenerator(64, channels=2, widths=[4, 4, 2, 2, 1]).blocks) == 4


def test_the_configuration_gives_the_widths() -> None:
    config = load_config("quickstart")
    assert count(build_generator(config, 10)) == 296_547
    assert count(build_discriminator(config, 10)) == 174_977
    other = load_config("quickstart", ["generator.name=sndcgan"])  # has no such setting: nothing is refused
    assert other.identity() == load_config("quickstart", ["generator.name=sndcgan", "generator.widths=null"]).identity()
    build_generator(other, 10)


@pytest.mark.parametrize(
    ("widths", "says"),
    [
        ("[4, 2, 1]", "generator: resnet: widths: got [4, 2, 1], expected 4 whole numbers"),
        ("[4, 2, 0, 1]", "generator.widths.2: got 0, expected greater than or equal to 1"),
        ("4", "generator.widths: got 4, expected a list, such as [4, 2, 1]"),
    ],
)
def test_other_widths_are_refused(widths: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        build_generator(load_config("quickstart", [f"generator.widths={widths}"]), 10)
    assert says in str(error.value)


def test_absurd_widths_are_refused_before_memory_is_allocated() -> None:
    from gan.build import build_state

    config = load_config("quickstart", ["generator.channels=4096", "generator.widths=[1000, 1000, 1, 1]"])
    with pytest.raises(ConfigError, match="choose narrower networks"):
        build_state(config)
