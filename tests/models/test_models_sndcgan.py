"""Tests of gan.models.sndcgan against Table 3 of Miyato et al. 2018 and the code of Lin et al. 2021."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan import build
from gan.config import load_config
from gan.errors import ConfigError
from gan.models import SNDCGANBNGenerator, SNDCGANDiscriminator, SNDCGANGenerator
from gan.models.sndcgan import IMAGE_SIZES
from gan.normalization import NORMALIZED_LAYERS


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_parameters_by_hand() -> None:
    """Counts weights and biases of the table's layers, and two numbers per channel of each batch norm."""
    ups = [(512, 256), (256, 128), (128, 64)]
    generator = 129 * 512 * 16 + sum(16 * a * b + 3 * b for a, b in ups) + 9 * 64 * 3 + 3
    assert count(SNDCGANGenerator()) == generator == 3_812_355
    assert count(SNDCGANBNGenerator()) == generator + 2 * 512 * 16 == 3_828_739  # the published code's
    convs = [(9, 3, 64), (16, 64, 64), (9, 64, 128), (16, 128, 128), (9, 128, 256), (16, 256, 256), (9, 256, 512)]
    discriminator = sum(k * a * b + b for k, a, b in convs) + 512 * 16 + 1
    assert count(SNDCGANDiscriminator()) == discriminator


@pytest.mark.parametrize("network", [SNDCGANGenerator, SNDCGANBNGenerator])
@pytest.mark.parametrize("image_size", IMAGE_SIZES)
@pytest.mark.parametrize("num_classes", [0, 3])
def test_shapes_and_ranges(network: type[nn.Module], image_size: int, num_classes: int) -> None:
    generator = network(image_size, z_dim=5, channels=2, num_classes=num_classes)
    discriminator = SNDCGANDiscriminator(image_size, channels=2, num_classes=num_classes)
    labels = torch.tensor([0, 2]) if num_classes else None
    images = generator(torch.randn(2, 5), labels)
    assert images.shape == (2, 3, image_size, image_size)
    assert float(images.detach().abs().max()) <= 1
    logits = discriminator(images, labels)
    assert logits.shape == (2,)
    assert logits.dtype == torch.float32


def test_the_published_generator_normalizes_after_its_linear_layer() -> None:
    """Written plainly, in training: each feature and position, then each channel, has mean 0 and variance 1, eps 1e-5.

    The last transposed 3x3 convolution of stride 1 is a convolution with the flipped kernel.
    """
    torch.manual_seed(0)
    network = SNDCGANBNGenerator(z_dim=5, channels=2).double()
    latents = torch.randn(8, 5, dtype=torch.double)

    def normalized(h: Tensor, dims: tuple[int, ...]) -> Tensor:
        variance, mean = torch.var_mean(h, dims, correction=0, keepdim=True)
        return F.relu((h - mean) / (variance + 1e-5).sqrt())

    h = normalized(network.linear(latents), (0,)).view(8, 16, 4, 4)
    for up in network.ups:
        h = normalized(up(h), (0, 2, 3))
    kernel = network.to_rgb.weight.flip(2, 3).transpose(0, 1)
    expected = torch.tanh(F.conv2d(h, kernel, network.to_rgb.bias, padding=1))
    torch.testing.assert_close(network(latents), expected)


def test_without_them_latents_reach_the_second_layer_by_one_linear_map() -> None:
    """Its output is affine in the latents, so of rank z_dim; the published generator's is not."""
    torch.manual_seed(0)
    latents = torch.randn(64, 5)
    ranks = []
    for network in (SNDCGANGenerator(z_dim=5, channels=2), SNDCGANBNGenerator(z_dim=5, channels=2)):
        found: list[Tensor] = []
        network.ups[0].register_forward_hook(lambda *call, found=found: found.append(call[-1].flatten(1)))
        network(latents)
        ranks.append(int(torch.linalg.matrix_rank(found[0] - found[0].mean(0))))
    assert ranks[0] == 5 < ranks[1]


def test_batches_of_one_image_are_refused_where_single_features_are_normalized() -> None:
    """Their variance over the batch is 0; torch's own error comes in the first step and names no setting."""
    one = ["train.batch_size=1", "generator.channels=2", "discriminator.channels=2", "data.name=shapes"]
    build.build_state(load_config("smoke", [*one, "generator.name=sndcgan"]))
    with pytest.raises(ConfigError, match=r"train\.batch_size: got 1, but generator\.name=sndcgan_bn .* at least 2"):
        build.build_state(load_config("smoke", [*one, "generator.name=sndcgan_bn"]))


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


@pytest.mark.parametrize("network", [SNDCGANGenerator, SNDCGANBNGenerator, SNDCGANDiscriminator])
def test_other_sizes_are_refused(network: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match="image_size: got 128, expected one of 32, 48, 64; set data"):
        network(128)
