"""Tests of networks for grey images: their first and last layers, by the networks for RGB as an oracle."""

import pytest
import torch
from torch import Tensor, nn

from gan import build, build_classifier
from gan.config import load_config
from gan.config.classifier import load_classifier_config
from gan.errors import ConfigError
from gan.models import DISCRIMINATORS, GENERATORS
from gan.models.classifiers import CLASSIFIERS

SMALL = {"channels": 4}


def adapt(grey: nn.Module, rgb: nn.Module, *, total: bool) -> None:
    """Copies the weights for RGB to the network for grey: sums over three channels, or those of the first channel."""
    state = grey.state_dict()
    changed = []
    for name, tensor in rgb.state_dict().items():
        dims = [d for d in range(tensor.ndim) if tensor.shape[d] != state[name].shape[d]]
        for d in dims:
            tensor = tensor.unflatten(d, (3, state[name].shape[d]))
            tensor = tensor.sum(d) if total else tensor.select(d, 0)
            changed.append(name)
        state[name] = tensor
    assert changed
    grey.load_state_dict(state)


def equal(found: Tensor, expected: Tensor) -> bool:
    scale = float(expected.detach().abs().max())
    return torch.allclose(found, expected, rtol=0, atol=1e-12 * scale)


@pytest.mark.parametrize("name", GENERATORS)
def test_grey_generators_are_one_channel_of_those_for_rgb(name: str) -> None:
    make = GENERATORS[name]
    rgb, grey = make(z_dim=3, **SMALL).double(), make(z_dim=3, image_channels=1, **SMALL).double()
    adapt(grey, rgb, total=False)
    latents = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    images = grey(latents)
    assert images.shape == (4, 1, 32, 32)
    assert equal(images, rgb(latents)[:, :1])


@pytest.mark.parametrize("name", [*DISCRIMINATORS, *CLASSIFIERS])
def test_networks_of_grey_images_sum_the_weights_of_equal_channels(name: str) -> None:
    make = DISCRIMINATORS.get(name) or CLASSIFIERS[name]
    rgb, grey = make().double().eval(), make(image_channels=1).double().eval()
    adapt(grey, rgb, total=True)
    images = torch.rand(2, 1, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        assert equal(grey(images), rgb(images.repeat(1, 3, 1, 1)))


def test_the_setting_reaches_the_networks() -> None:
    config = load_config("smoke", ["data.channels=1"])
    state = build.build_state(config)
    assert state.generator(torch.zeros(2, 16)).shape == (2, 1, 32, 32)
    assert state.discriminator(torch.zeros(2, 1, 32, 32)).shape == (2,)
    small = load_classifier_config("classifier_smoke", ["data.channels=1"])
    assert build_classifier.build_classifier(small, 10)(torch.zeros(2, 1, 32, 32)).shape == (2, 10)


def test_grey_is_another_experiment_and_rgb_the_same() -> None:
    identities = [load_config("smoke", [f"data.channels={channels}"]).identity() for channels in ("null", 3, 1)]
    assert identities[0] == identities[1] == load_config("smoke").identity() != identities[2]


def test_an_architecture_without_grey_images_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DISCRIMINATORS, "rgb", lambda image_size, channels, num_classes: nn.Flatten())
    config = load_config("smoke", ["data.channels=1", "discriminator.name=rgb"])
    with pytest.raises(ConfigError, match=r"data\.channels: got 1, but this architecture of discriminator\.name has"):
        build.build_discriminator(config, 0)
