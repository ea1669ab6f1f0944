"""Tests that the ResNets of gan.models have the papers' architectures."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan.config import IMAGE_SIZES
from gan.models import ResNetDiscriminator, ResNetGenerator
from gan.models.blocks import (
    ConditionalBatchNorm,
    DiscriminatorBlock,
    FirstDiscriminatorBlock,
    GeneratorBlock,
    conv3x3,
    convolve_then_downsample,
    downsample,
    upsample,
    upsample_then_convolve,
)
from gan.models.resnet import WIDTHS


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("num_classes", "expected"), [(0, 4_276_739), (10, 4_304_387), (100, 4_580_867)])
def test_generator_parameters(num_classes: int, expected: int) -> None:
    """Counts are those of the original code; StudioGAN's log prints the one with 10 classes."""
    assert count(ResNetGenerator(num_classes=num_classes)) == expected


@pytest.mark.parametrize(("num_classes", "expected"), [(0, 1_053_824), (10, 1_055_104), (100, 1_066_624)])
def test_discriminator_parameters(num_classes: int, expected: int) -> None:
    assert count(ResNetDiscriminator(num_classes=num_classes)) == expected


PRINTED = {
    48: ([512, 256, 128, 64], "64 128 256 512 1024-", 4_878_083, 10_141_441),  # Miyato et al. 2018, Table 5
    64: ([1024, 512, 256, 128, 64], "64 128 256 512 1024", 12_220_675, 10_141_441),
    128: ([1024, 1024, 512, 256, 128, 64], "64 128 256 512 1024 1024-", 32_150_787, 29_017_857),  # Table 6
    256: ([1024, 1024, 512, 512, 256, 128, 64], "64 128 256 512 512 1024 1024-", 37_135_107, 34_000_129),
}
"""By image size: widths of the generator, of the discriminator with - for a block that keeps the resolution, counts.

Counts of 48, 64 and 128 are those of the networks of torch-mimicry (commit 01680c9), which were counted; those of 256
follow from the widths of the original code.
"""


def convolution(kernel: int, before: int, after: int) -> int:
    return kernel**2 * before * after + after


@pytest.mark.parametrize("image_size", PRINTED)
def test_parameters_of_the_larger_networks(image_size: int) -> None:
    """Counts by hand from the printed tables; the head has a bias here."""
    widths, blocks, of_generator, of_discriminator = PRINTED[image_size]
    bottom = 6 if image_size == 48 else 4
    generator = 129 * bottom**2 * widths[0] + 2 * widths[-1] + convolution(3, widths[-1], 3)
    for a, b in pairwise(widths):
        generator += convolution(3, a, b) + convolution(3, b, b) + convolution(1, a, b) + 2 * a + 2 * b
    assert count(ResNetGenerator(image_size, channels=64)) == generator == of_generator
    after = [int(block.strip("-")) for block in blocks.split()]
    discriminator = convolution(3, 3, 64) + convolution(3, 64, 64) + convolution(1, 3, 64) + after[-1] + 1
    for (a, b), block in zip(pairwise(after), blocks.split()[1:], strict=True):
        shortcut = convolution(1, a, b) if a != b or "-" not in block else 0
        discriminator += convolution(3, a, a) + convolution(3, a, b) + shortcut
    network = ResNetDiscriminator(image_size, channels=64)
    assert count(network) == discriminator == of_discriminator
    assert [block.down for block in network.blocks[1:]] == ["-" not in block for block in blocks.split()[1:]]


def test_parameters_of_the_conditional_128_pixel_networks() -> None:
    """1,000 classes: the generator's as in torch-mimicry; the discriminator's embedding is 1000 x 1024."""
    assert count(ResNetGenerator(128, channels=64, num_classes=1000)) == 41_996_931
    assert count(ResNetDiscriminator(128, channels=64, num_classes=1000)) == 29_017_857 + 1_024_000


def test_there_are_networks_of_every_configured_size() -> None:
    assert tuple(WIDTHS) == IMAGE_SIZES


@pytest.mark.parametrize("image_size", WIDTHS)
@pytest.mark.parametrize("num_classes", [0, 3])
def test_shapes_and_ranges(image_size: int, num_classes: int) -> None:
    generator = ResNetGenerator(image_size, z_dim=5, channels=2, num_classes=num_classes)
    discriminator = ResNetDiscriminator(image_size, channels=2, num_classes=num_classes)
    labels = torch.tensor([0, 2]) if num_classes else None
    images = generator(torch.randn(2, 5), labels)
    assert images.shape == (2, 3, image_size, image_size)
    assert images.abs().max() <= 1
    logits = discriminator(images, labels)
    assert logits.shape == (2,)
    assert logits.dtype == torch.float32


@pytest.mark.parametrize("network", [ResNetGenerator, ResNetDiscriminator])
def test_wrong_use_is_refused(network: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match="image_size: got 96"):
        network(96)
    x = torch.zeros(1, 128) if network is ResNetGenerator else torch.zeros(1, 3, 32, 32)
    with pytest.raises(ValueError, match="with labels"):
        network(32, channels=1, num_classes=2)(x)
    with pytest.raises(ValueError, match="without labels"):
        network(32, channels=1)(x, torch.tensor([0]))


def test_a_3x3_convolution_and_pooling_are_one_strided_convolution() -> None:
    conv, x = conv3x3(3, 5).double(), torch.randn(2, 3, 8, 6, dtype=torch.float64)
    nn.init.normal_(conv.bias)
    torch.testing.assert_close(convolve_then_downsample(conv, x), downsample(conv(x)), rtol=0, atol=1e-12)


def test_upsampling_and_a_3x3_convolution_are_one_transposed_convolution() -> None:
    conv, x = conv3x3(3, 5).double(), torch.randn(2, 3, 4, 6, dtype=torch.float64)
    nn.init.normal_(conv.bias)
    torch.testing.assert_close(upsample_then_convolve(conv, x), conv(upsample(x)), rtol=0, atol=1e-12)


def test_the_rewrites_have_the_plain_gradients() -> None:
    for fast, plain in (
        (convolve_then_downsample, lambda conv, x: downsample(conv(x))),
        (upsample_then_convolve, lambda conv, x: conv(upsample(x))),
    ):
        conv, x = conv3x3(2, 3).double(), torch.randn(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
        inputs = [x, conv.weight, conv.bias]
        seen = [torch.autograd.grad(function(conv, x).square().sum(), inputs) for function in (fast, plain)]
        for one, other in zip(*seen, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


def test_generator_block_is_the_original_written_plainly() -> None:
    """BN, ReLU, up, conv, BN, ReLU, conv, plus conv1x1(up(x)): the shortcut takes x unchanged."""
    block, x = GeneratorBlock(4, 3, 0).double(), torch.randn(5, 4, 4, 4, dtype=torch.float64)
    h = block.conv1(upsample(F.relu(block.bn1(x))))
    expected = block.conv2(F.relu(block.bn2(h))) + block.shortcut(upsample(x))
    torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("widths", "down"), [((4, 6), True), ((4, 4), False), ((4, 6), False)])
def test_discriminator_block_is_the_original_written_plainly(widths: tuple[int, int], down: bool) -> None:
    block, x = DiscriminatorBlock(*widths, down=down).double(), torch.randn(5, 4, 4, 4, dtype=torch.float64)
    before = x.clone()
    h = block.conv2(F.relu(block.conv1(F.relu(x))))
    expected = h + (x if block.shortcut is None else block.shortcut(x))
    assert (block.shortcut is None) == (widths[0] == widths[1])
    if down:
        expected = downsample(expected)
    torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-11)
    assert torch.equal(x, before), "the block changed its input: the in-place ReLU trap"
    assert block.conv1.out_channels == widths[0], "the hidden width is the input's"


def test_first_discriminator_block_is_the_original_written_plainly() -> None:
    block, x = FirstDiscriminatorBlock(3, 4).double(), torch.randn(5, 3, 4, 4, dtype=torch.float64)
    expected = downsample(block.conv2(F.relu(block.conv1(x)))) + block.shortcut(downsample(x))
    torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-11)


def test_features_are_summed_not_averaged() -> None:
    """With a head that is zero except for one channel, the logit is that channel's sum over the 8x8 positions."""
    network = ResNetDiscriminator(channels=4)
    images = torch.randn(3, 3, 32, 32)
    h = images
    for block in network.blocks:
        h = block(h)
    assert h.shape == (3, 4, 8, 8)
    with torch.no_grad():
        network.linear.weight.zero_()
        network.linear.weight[0, 1] = 1
    torch.testing.assert_close(network(images), F.relu(h)[:, 1].sum((1, 2)))
    assert network.linear.bias is None


def test_projection_adds_the_labels_inner_product() -> None:
    network = ResNetDiscriminator(channels=4, num_classes=3)
    images, labels = torch.randn(3, 3, 32, 32), torch.tensor([2, 0, 1])
    h = images
    for block in network.blocks:
        h = block(h)
    h = F.relu(h).sum((2, 3))
    assert network.embedding is not None
    expected = network.linear(h)[:, 0] + (network.embedding.weight[labels] * h).sum(1)
    torch.testing.assert_close(network(images, labels), expected)


def test_conditional_batch_norm_is_one_batch_norm_per_class() -> None:
    layer = ConditionalBatchNorm(2, 3)
    assert layer.gamma.weight.eq(1).all()
    assert layer.beta.weight.eq(0).all()
    nn.init.normal_(layer.gamma.weight)
    nn.init.normal_(layer.beta.weight)
    x, labels = torch.randn(6, 2, 4, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    normalized = (x - mean[:, None, None]) / (var + 2e-5).sqrt()[:, None, None]
    expected = normalized * layer.gamma.weight[labels][:, :, None, None] + layer.beta.weight[labels][:, :, None, None]
    torch.testing.assert_close(layer(x, labels), expected)


def test_the_last_batch_norm_is_unconditional() -> None:
    generator = ResNetGenerator(channels=2, num_classes=3)
    assert not isinstance(generator.bn, ConditionalBatchNorm)
    conditional = [module for module in generator.modules() if isinstance(module, ConditionalBatchNorm)]
    assert len(conditional) == 6


def test_initialisers() -> None:
    """Glorot-uniform of gain sqrt(2) inside blocks, 1 in shortcuts, heads and the last convolution; zero biases."""

    def gain(weight: Tensor) -> float:
        fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(weight)
        return float(weight.detach().std() / math.sqrt(2 / (fan_in + fan_out)))

    torch.manual_seed(0)
    generator, discriminator = ResNetGenerator(channels=64), ResNetDiscriminator(channels=64, num_classes=100)
    for network in (generator, discriminator):
        for name, module in network.named_modules():
            if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
                expected = math.sqrt(2) if ".conv" in name else 1.0
                spread = 4 / math.sqrt(module.weight.numel())  # the estimate of a standard deviation from n draws
                assert abs(gain(module.weight) / expected - 1) < max(spread, 0.02), name
                assert getattr(module, "bias", None) is None or module.bias.eq(0).all()
            if isinstance(module, nn.BatchNorm2d):
                assert (module.eps, module.momentum) == (2e-5, 0.1)


def test_logits_stay_float32_under_autocast() -> None:
    network = ResNetDiscriminator(channels=4)
    with torch.autocast("cpu", torch.bfloat16):
        assert network(torch.randn(2, 3, 32, 32)).dtype == torch.float32
