"""Tests that networks compute in the type of their parameters, and of the discriminator's pooling."""

import copy
import inspect
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from gan.build import build_discriminator, build_generator
from gan.config import IMAGE_SIZES, load_config
from gan.errors import ConfigError
from gan.models import DISCRIMINATORS, GENERATORS, ResNetDiscriminator
from gan.models.classifiers import CLASSIFIERS
from gan.normalization import normalize, r1_penalty

SIZES = {"resnet": 8, "wide_resnet": 10, "densenet": 10, "vgg": 11}


def classifier(name: str) -> nn.Module:
    sizes = {"depth": SIZES.get(name), "width": 1, "growth": 4, "channels": 4}
    accepted = inspect.signature(CLASSIFIERS[name]).parameters
    return CLASSIFIERS[name](5, **{key: size for key, size in sizes.items() if key in accepted and size})


def images(count: int) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


Case = tuple[Callable[[], nn.Module], tuple[Tensor, ...]]
CASES: dict[str, Case] = {
    **{
        f"generator {name}": (partial(make, channels=4, z_dim=3), (torch.ones(4, 3),))
        for name, make in GENERATORS.items()
    },
    **{
        f"conditional {name}": (partial(make, channels=4, num_classes=3), (images(2), torch.tensor([0, 2])))
        for name, make in DISCRIMINATORS.items()
    },
    **{f"discriminator {name}": (partial(make, channels=4), (images(2),)) for name, make in DISCRIMINATORS.items()},
    "mean": (partial(ResNetDiscriminator, channels=4, pooling="mean"), (images(2),)),
    **{f"classifier {name}": (partial(classifier, name), (images(2),)) for name in CLASSIFIERS},
}


@pytest.mark.parametrize("case", CASES)
def test_every_network_runs_in_float64_and_bfloat16(case: str) -> None:
    """float64 keeps its digits: directional derivatives equal finite differences to 1e-6; bfloat16 agrees roughly."""
    make, (first, *rest) = CASES[case]
    torch.manual_seed(0)
    network = normalize(make(), "srn", c=0.5).eval()
    expected = network(first, *rest)
    assert expected.dtype == torch.float32
    wide = copy.deepcopy(network).double()
    x = first.double().requires_grad_()
    result = wide(x, *rest)
    assert result.dtype == torch.float64
    torch.testing.assert_close(result.float(), expected, rtol=1e-4, atol=1e-5)
    upstream, along = torch.randn_like(result), torch.randn_like(x)
    slope = (torch.autograd.grad(result, x, upstream)[0] * along).sum()
    step = 1e-7
    difference = wide(x + step * along, *rest) - wide(x - step * along, *rest)
    torch.testing.assert_close((difference * upstream).sum() / (2 * step), slope, rtol=1e-6, atol=1e-9)
    narrow = copy.deepcopy(network).bfloat16()(first.bfloat16(), *rest)
    torch.testing.assert_close(narrow.float(), expected, rtol=0.1, atol=0.1 * float(expected.detach().abs().max()))


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_second_derivatives_in_float64(name: str) -> None:
    """R1's gradient in all parameters equals finite differences along a random direction."""
    torch.manual_seed(0)
    network = DISCRIMINATORS[name](channels=2).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0.0, 0.3)
    real = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    parameters = list(network.parameters())

    def penalty() -> Tensor:
        return r1_penalty(network, real)

    gradients = torch.autograd.grad(penalty(), parameters, allow_unused=True)
    along = [torch.randn_like(parameter) for parameter in parameters]
    slope = sum((g * a).sum() for g, a in zip(gradients, along, strict=True) if g is not None)
    values = []
    for step in (1e-7, -2e-7):
        with torch.no_grad():
            for parameter, direction in zip(parameters, along, strict=True):
                parameter.add_(step * direction)
        values.append(float(penalty().detach()))
    assert (values[0] - values[1]) / 2e-7 == pytest.approx(float(slope), rel=1e-4)


def test_pooling_divides_logits_by_the_number_of_positions() -> None:
    """The critic of Gulrajani et al. averages."""
    for size, positions in ((32, 64), (48, 9), (64, 4), (128, 16), (256, 16)):
        torch.manual_seed(0)
        summed = ResNetDiscriminator(size, channels=2)
        averaged = ResNetDiscriminator(size, channels=2, pooling="mean")
        averaged.load_state_dict(summed.state_dict())
        x = torch.randn(2, 3, size, size)
        torch.testing.assert_close(positions * averaged(x), summed(x), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="pooling: got 'max', expected one of sum, mean"):
        ResNetDiscriminator(pooling="max")


@pytest.mark.parametrize("size", IMAGE_SIZES)
@pytest.mark.parametrize(
    "name",
    [*(f"generator.name={name}" for name in GENERATORS), *(f"discriminator.name={name}" for name in DISCRIMINATORS)],
)
def test_every_network_has_a_size_or_names_those_it_has(name: str, size: int) -> None:
    small = ["generator.channels=2", "discriminator.channels=2", "train.batch_size=2"]
    config = load_config("smoke", [*small, name, f"data.image_size={size}"])
    latents, images = torch.randn(2, config.generator.z_dim), torch.randn(2, 3, size, size)
    message = ""
    try:
        network = build_generator(config, 0) if name.startswith("generator") else build_discriminator(config, 0)
    except ConfigError as error:
        message = str(error)
    if message:
        assert f"image_size: got {size}, expected one of 32, 48" in message
    elif name.startswith("generator"):
        assert network(latents).shape == images.shape
    else:
        assert network(images).shape == (2,)


def test_the_configuration_chooses_the_pooling() -> None:
    """The default, null, is not part of identities; networks without positions ignore the setting."""
    config = load_config("smoke")
    mean = load_config("smoke", ["discriminator.pooling=mean"])
    assert config.identity() != mean.identity()
    assert build_discriminator(mean, 0).pooling == "mean"
    assert build_discriminator(config, 0).pooling == "sum"
    other = load_config("smoke", ["discriminator.name=sndcgan", "discriminator.pooling=mean"])
    assert other.identity() == load_config("smoke", ["discriminator.name=sndcgan"]).identity()
    build_discriminator(other, 0)
