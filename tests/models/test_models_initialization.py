"""Tests of gan.models.initialization against formulas and against the variance of features."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gan import build
from gan.config import Config
from gan.models import DISCRIMINATORS, INITIALIZATIONS, ResNetGenerator, initialize_
from gan.models.initialization import fans

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[float, float]]] = {
    "linear": (lambda: nn.Linear(300, 200), (300, 200)),
    "embedding": (lambda: nn.Embedding(200, 300), (300, 200)),
    "convolution": (lambda: nn.Conv2d(64, 32, 3), (64 * 9, 32 * 9)),
    "strided": (lambda: nn.Conv2d(64, 32, 4, stride=2), (64 * 16, 32 * 16)),
    "groups": (lambda: nn.Conv2d(64, 96, (3, 5), groups=4), (16 * 15, 24 * 15)),
    "1d": (lambda: nn.Conv1d(128, 128, 4), (512, 512)),
    "transposed": (lambda: nn.ConvTranspose2d(64, 32, 4, stride=2), (64 * 16 / 4, 32 * 16)),
    "transposed, groups": (lambda: nn.ConvTranspose2d(96, 64, (3, 4), stride=(1, 2), groups=4), (24 * 12 / 2, 16 * 12)),
}
VARIANCES: dict[str, Callable[[float, float], float]] = {
    "glorot": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "lecun": lambda fan_in, fan_out: 1 / fan_in,
    "kaiming": lambda fan_in, fan_out: 2 / fan_in,
    "normal": lambda fan_in, fan_out: 0.05**2,
    # 1 - 2 * 2 * phi(2) / (Phi(2) - Phi(-2)), the variance of a standard normal variable cut at -2 and 2
    "truncated_normal": lambda fan_in, fan_out: (
        0.05**2 * (1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(2 / math.sqrt(2)))
    ),
}


def weight_of(layer: nn.Module) -> Tensor:
    assert isinstance(layer.weight, Tensor)
    return layer.weight.detach()


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", VARIANCES)
def test_variances_and_biases(name: str, layer: str) -> None:
    make, expected = LAYERS[layer]
    torch.manual_seed(0)
    made = make()
    assert fans(made) == expected
    initialize_(made, name, std=0.05)
    values, variance = weight_of(made), VARIANCES[name](*expected)
    count = values.numel()
    assert abs(float(values.mean())) < 4 * math.sqrt(variance / count)
    # The variance of a square is at most 2 for a unit normal variable.
    assert float(values.square().mean()) == pytest.approx(variance, rel=4 * math.sqrt(2 / count))
    bound = {"glorot": math.sqrt(3 * variance), "truncated_normal": 2 * 0.05}.get(name)
    if bound is not None:
        assert 0.95 * bound < float(values.abs().max()) <= bound * (1 + 1e-6)
    assert not getattr(made, "bias", torch.zeros(1)).any()


@pytest.mark.parametrize("layer", [name for name in LAYERS if name != "embedding"])
def test_lecun_keeps_the_variance_of_features(layer: str) -> None:
    """White noise through each layer, without the borders, where transposed convolutions sum fewer inputs."""
    torch.manual_seed(0)
    made = LAYERS[layer][0]()
    initialize_(made, "lecun")
    if isinstance(made, nn.Linear):
        features = made(torch.randn(2000, 300))
    else:
        side = {"Conv1d": (400,)}.get(type(made).__name__, (20, 20))
        features = made(torch.randn(64, made.in_channels, *side))[..., 4:-4]
        features = features if len(side) == 1 else features[..., 4:-4, :]
    assert float(features.detach().var()) == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("layer", LAYERS)
def test_orthogonal_weights_have_unit_singular_values(layer: str) -> None:
    """Of each group's matrix (out / groups, in / groups * kh * kw), as each group has inputs of its own."""
    made = LAYERS[layer][0]()
    initialize_(made, "orthogonal")
    for part in weight_of(made).chunk(getattr(made, "groups", 1)):
        matrix = (part.transpose(0, 1) if "Transpose" in type(made).__name__ else part).flatten(1).double()
        values = torch.linalg.svdvals(matrix)
        torch.testing.assert_close(values, torch.ones_like(values), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", INITIALIZATIONS)
def test_class_scales_and_shifts_of_batch_norms_stay(name: str) -> None:
    """Those of conditional batch normalization are embeddings."""
    generator = ResNetGenerator(channels=4, z_dim=5, num_classes=3)
    before = {key: value.clone() for key, value in generator.state_dict().items()}
    initialize_(generator, name)
    changed = {key for key, value in generator.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {key for key in before if key.endswith("weight") and "bn" not in key}


@pytest.mark.parametrize("section", ["generator", "discriminator"])
def test_the_configuration_chooses_it_before_the_normalization(smoke: Callable[..., Config], section: str) -> None:
    """Null keeps the architecture's own weights; the singular vectors are those of the chosen weights."""
    states = [build.build_state(smoke(*chosen)) for chosen in ((), (f"{section}.initialization=orthogonal",))]
    for part in ("generator", "discriminator"):
        own, other = (getattr(state, part).state_dict() for state in states)
        key = next(key for key in own if key.endswith(("conv1.weight", "conv1.parametrizations.weight.original")))
        assert torch.equal(own[key], other[key]) == (part != section)
    block = states[1].discriminator.blocks[1].conv1
    sigma = torch.linalg.matrix_norm(block.parametrizations.weight.original.detach().flatten(1), 2)
    assert float(torch.linalg.matrix_norm(block.weight.detach().flatten(1), 2)) == pytest.approx(1, rel=1e-2)
    assert (abs(float(sigma) - 1) < 1e-5) == (section == "discriminator")


@pytest.mark.parametrize("architecture", DISCRIMINATORS)
def test_equal_seeds_give_equal_weights(smoke: Callable[..., Config], architecture: str) -> None:
    settings = (f"discriminator.name={architecture}", "discriminator.initialization=truncated_normal")
    first, second, other = (
        build.build_discriminator(smoke(*settings, *more), 0).state_dict()
        for more in ((), (), ("discriminator.initialization_std=0.5",))
    )
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert not all(torch.equal(value, other[key]) for key, value in first.items())
