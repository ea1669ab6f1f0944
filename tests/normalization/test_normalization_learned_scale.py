"""Tests of spectral normalization with a learned scale, for all layers or for each."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from gan import build
from gan.config import Config
from gan.models import SNDCGANDiscriminator
from gan.normalization import NORMALIZATIONS, bake, learned_scale_norm, normalize, refresh_, spectra, spectral_norm

CHOICES = {"sn_same_gamma": 1, "sn_gamma": 8}
"""Numbers of scales of the eight layers of SNDCGAN."""


def discriminator(choice: str) -> nn.Module:
    """A discriminator whose biases are not 0."""
    torch.manual_seed(0)
    network = SNDCGANDiscriminator(channels=4).double()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    return normalize(network, choice)


def gammas(network: nn.Module) -> list[nn.Parameter]:
    return [parameter for name, parameter in network.named_parameters() if name.endswith("gamma")]


@pytest.mark.parametrize(("choice", "count"), CHOICES.items())
def test_number_and_start_of_the_scales(choice: str, count: int) -> None:
    """At 1 the network equals the spectrally normalized one, and the penalty is the gradient's."""
    network, plain = discriminator(choice), discriminator("sn")
    assert [gamma.tolist() for gamma in gammas(network)] == [1.0] * count
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    assert torch.equal(network(images), plain(images))
    assert NORMALIZATIONS[choice].penalty == "gradient"


def test_the_layers_output_is_multiplied_weight_and_bias() -> None:
    """gamma * (W x / sigma + b), for convolutions, transposed ones, linear layers and embeddings."""
    for make, inputs in (
        (lambda: nn.Conv2d(3, 5, 3), torch.randn(2, 3, 8, 8)),
        (lambda: nn.ConvTranspose2d(3, 5, 3, bias=False), torch.randn(2, 3, 8, 8)),
        (lambda: nn.Linear(4, 5), torch.randn(2, 4)),
        (lambda: nn.Embedding(4, 5), torch.tensor([0, 3])),
    ):
        torch.manual_seed(0)
        layer = learned_scale_norm(make(), update="step")
        torch.manual_seed(0)
        plain = spectral_norm(make(), update="step")
        with torch.no_grad():
            layer.parametrizations.weight[0].gamma.fill_(-1.7)
        torch.testing.assert_close(layer(inputs), -1.7 * plain(inputs))
        assert spectra(layer)[0].normalized_sigma == pytest.approx(1.7, rel=1e-2)


def test_a_scale_of_all_layers_is_a_power_of_the_output_without_biases() -> None:
    """Leaky ReLUs are positively homogeneous: eight layers give gamma^8; its derivative at 1 is 8 times the output."""
    network = discriminator("sn_same_gamma")
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    (gamma,) = gammas(network)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if ".bias." in name and name.endswith("original"):
                parameter.zero_()
    output = network(images)
    (derivative,) = torch.autograd.grad(output.sum(), gamma)
    torch.testing.assert_close(derivative, 8 * output.sum())
    with torch.no_grad():
        gamma.fill_(1.5)
        torch.testing.assert_close(network(images), 1.5**8 * output)


@pytest.mark.parametrize("choice", CHOICES)
def test_baking_multiplies_weights_and_biases(choice: str) -> None:
    network = discriminator(choice)
    with torch.no_grad():
        for number, gamma in enumerate(gammas(network)):
            gamma.fill_(1 + number / 10)
    refresh_(network)
    plain = bake(network)
    assert list(plain.state_dict()) == list(SNDCGANDiscriminator(channels=4).state_dict())
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(plain(images), network(images), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("choice", "count"), CHOICES.items())
def test_training_moves_the_scales_also_after_loading(smoke: Callable[..., Config], choice: str, count: int) -> None:
    """A shared scale is one parameter of Adam in a new state and in a loaded one."""
    config = smoke(f"discriminator.normalization={choice}", "discriminator.name=sndcgan")
    trained, loaded = (build.build_state(config) for _ in range(2))
    images, before = torch.randn(4, 3, 32, 32), [1.0] * count
    for state in (trained, loaded):
        state.load_state_dict(trained.state_dict())
        assert [float(gamma.detach()) for gamma in gammas(state.discriminator)] == before
        state.discriminator(images).mean().backward()
        state.d_optimizer.step()
        now = [float(gamma.detach()) for gamma in gammas(state.discriminator)]
        assert len(now) == count
        assert all(one != other for one, other in zip(now, before, strict=True))
        before = now
