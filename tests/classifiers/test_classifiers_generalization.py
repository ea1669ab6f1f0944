"""Tests of evaluation.generalization on gan.models.classifiers: measures reflect each normalization's constraint."""

import math

import pytest
import torch

from evaluation.generalization import complexity, layer_spectra, log_spec_fro
from gan.models.classifiers import ResNet
from gan.normalization import bake, normalize, spectra


def network() -> ResNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ResNet(10, 8, 8)


def test_both_packages_see_the_same_singular_values() -> None:
    for ours, theirs in zip(spectra(network()), layer_spectra(network()), strict=True):
        assert ours.name == theirs.name
        assert ours.sigma == pytest.approx(theirs.spectral_norm, rel=1e-5)
        assert ours.stable_rank == pytest.approx(theirs.stable_rank, rel=1e-5)


def test_spec_fro_of_a_normalized_network_is_its_stable_ranks_and_srn_lowers_it() -> None:
    found = []
    for c in (1.0, 0.5, 0.3):
        layers = layer_spectra(bake(normalize(network(), "srn", c=c)))
        found.append(log_spec_fro(layers))
        assert found[-1] == pytest.approx(math.log(sum(layer.stable_rank for layer in layers)), abs=1e-4)
    assert found[0] > found[1] > found[2]


def test_a_network_in_training_is_measured_as_it_is_used() -> None:
    normalized = normalize(network(), "srn", c=0.3).train()
    state = {name: tensor.clone() for name, tensor in normalized.state_dict().items()}
    images = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    labels = bake(normalized).eval()(images).argmax(1)
    found, exact = (complexity(one, images, labels) for one in (normalized, bake(normalized)))
    assert all(torch.equal(state[name], tensor) for name, tensor in normalized.state_dict().items())
    # 15 power iterations leave a spectral norm within 1 %; ten layers, squared.
    torch.testing.assert_close(found.spec_fro, exact.spec_fro, rtol=0, atol=0.2)
    torch.testing.assert_close(found.jac_norm, exact.jac_norm, rtol=0, atol=0.2)
