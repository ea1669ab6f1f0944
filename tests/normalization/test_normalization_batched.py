"""Tests that gan.normalization.batched computes all weights at once as it does one by one."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gan.models import ResNetDiscriminator
from gan.normalization import (
    NORMALIZATIONS,
    BatchedNormalization,
    bake,
    bidirectional_spectral_norm,
    normalize,
    spectral_norm,
    stable_rank_norm,
    update_,
)
from gan.normalization.layers import normalized_weights

SETTINGS: dict[str, dict[str, float]] = {
    "srn": {"c": 0.3},
    "srn_conv": {"c": 0.3},
    "ssn": {"scale": 1.3},
    "bssn": {"scale": 0.8},
}
WEIGHT_NORMALIZATIONS = [name for name, entry in NORMALIZATIONS.items() if entry.apply]


def discriminator(choice: str, dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    network = ResNetDiscriminator(channels=16, num_classes=5).to(dtype)
    network.to(memory_format=torch.channels_last)
    example = torch.zeros(1, 3, 32, 32, dtype=dtype), torch.zeros(1, dtype=torch.int64)
    return normalize(network, choice, example=example, **SETTINGS.get(choice, {}))


def in_steps(norm: Callable[..., nn.Module], layer: nn.Module, **settings: float | str) -> nn.Module:
    return norm(layer, update="step", **settings)


def mixed(dtype: torch.dtype) -> nn.Module:
    """Network with different normalizations, shapes, policies and numbers of iterations."""
    torch.manual_seed(0)
    network = nn.Sequential(
        in_steps(stable_rank_norm, nn.Conv2d(3, 16, 3), c=0.2),
        in_steps(stable_rank_norm, nn.Linear(12, 3), c=0.3, infeasible="floor"),
        in_steps(stable_rank_norm, nn.Linear(12, 1), c=0.3),
        in_steps(stable_rank_norm, nn.Linear(12, 8), c=1.0),
        in_steps(spectral_norm, nn.ConvTranspose2d(4, 6, 3, groups=2), scale=2.0),
        in_steps(bidirectional_spectral_norm, nn.ConvTranspose1d(4, 6, 3), scale=0.7),
        in_steps(bidirectional_spectral_norm, nn.Conv3d(2, 5, 2), n_power_iterations=3),
        in_steps(bidirectional_spectral_norm, nn.Embedding(7, 5)),
        in_steps(spectral_norm, nn.Conv1d(40, 2, 1), n_power_iterations=2),
    )
    return network.to(dtype)


def one_by_one(network: nn.Module) -> dict[str, Tensor]:
    return {
        f"{found.layer}.{found.tensor}": getattr(network.get_submodule(found.layer), found.tensor)
        for found in normalized_weights(network)
    }


def gradients(network: nn.Module, weights: dict[str, Tensor]) -> list[Tensor]:
    upstream = [
        torch.randn(weights[name].shape, dtype=torch.float64, generator=torch.Generator().manual_seed(index))
        for index, name in enumerate(sorted(weights))
    ]
    total = sum(
        (weights[name] * direction.to(weights[name].dtype)).sum()
        for name, direction in zip(sorted(weights), upstream, strict=True)
    )
    return list(torch.autograd.grad(total, [found.original for found in normalized_weights(network)]))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("choice", [*WEIGHT_NORMALIZATIONS, "mixed"])
def test_equal_to_the_weights_one_by_one(choice: str, dtype: torch.dtype, tolerance: float) -> None:
    """Buffers, weights, gradients and strides agree after three updates."""
    single = mixed(dtype) if choice == "mixed" else discriminator(choice, dtype)
    other = copy.deepcopy(single)
    batched = BatchedNormalization(other)
    for _ in range(3):
        update_(single)
        batched.update_()
    for (name, buffer), (_, twin) in zip(single.named_buffers(), other.named_buffers(), strict=True):
        torch.testing.assert_close(twin, buffer, rtol=0, atol=10 * tolerance, msg=name)
    other.load_state_dict(single.state_dict())  # the same vectors, so that only the formula is compared
    expected, got = one_by_one(single), batched.weights()
    assert got.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(got[name], weight, rtol=0, atol=tolerance, msg=name)
        if weight.ndim == 4:
            layouts = [w.is_contiguous(memory_format=torch.channels_last) for w in (got[name], weight)]
            assert layouts[0] == layouts[1], name
    for one, two in zip(gradients(single, expected), gradients(other, got), strict=True):
        torch.testing.assert_close(two, one, rtol=0, atol=4 * tolerance * float(1 + one.abs().max()))


@pytest.mark.parametrize("choice", WEIGHT_NORMALIZATIONS)
def test_the_network_uses_them_inside_and_its_own_after(choice: str) -> None:
    """Outputs with batched weights equal those of the network's own weights and of a plain copy with these weights."""
    network = discriminator(choice, torch.float32)
    batched = BatchedNormalization(network)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 4])
    expected = network(images, labels)
    batched_weights = batched.weights()
    with batched.applied():
        got = network(images, labels)
        (got.sum() + network(-images, labels).sum()).backward()
        assert network.blocks[0].conv1.weight is network.blocks[0].conv1.weight, "computed once"
    assert all(found.original.grad is not None for found in normalized_weights(network))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert all(found.parametrization._delivered is None for found in normalized_weights(network))
    assert torch.equal(network(images, labels), expected)
    functional = torch.func.functional_call(bake(network), batched_weights, (images, labels))
    torch.testing.assert_close(functional, expected, rtol=1e-4, atol=1e-4)


def test_an_error_inside_gives_the_network_back() -> None:
    network = discriminator("sn", torch.float32)
    with pytest.raises(RuntimeError, match="stop"), BatchedNormalization(network).applied():
        raise RuntimeError("stop")
    assert all(found.parametrization._delivered is None for found in normalized_weights(network))


def test_autocast_changes_nothing() -> None:
    network = discriminator("srn", torch.float32)
    batched = BatchedNormalization(network)
    states = []
    for enabled in (False, True):
        twin = copy.deepcopy(network)
        batched = BatchedNormalization(twin)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            batched.update_()
            states.append({**twin.state_dict(), **batched.weights()})
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


REPLACED = {
    "cast": lambda network: network.double(),
    "assigned": lambda network: network.load_state_dict(copy.deepcopy(network).state_dict(), assign=True),
    "normalized again": lambda network: spectral_norm(
        nn.utils.parametrize.remove_parametrizations(network, "weight"), update="step"
    ),
}


@pytest.mark.parametrize("case", REPLACED)
def test_tensors_that_were_replaced_are_refused(case: str) -> None:
    """Updates of tensors that the network no longer holds would have no effect."""
    network = in_steps(bidirectional_spectral_norm, nn.Conv2d(3, 4, 3))
    batched = BatchedNormalization(network)
    network.load_state_dict(copy.deepcopy(network).state_dict())
    network.to(memory_format=torch.channels_last)
    batched.update_()
    REPLACED[case](network)
    for use in (batched.update_, batched.weights, batched.applied().__enter__):
        with pytest.raises(ValueError, match="were replaced"):
            use()
    BatchedNormalization(network).update_()


@pytest.mark.parametrize("choice", ["srn", "bssn"])
def test_another_memory_layout_is_followed(choice: str) -> None:
    """Vectors follow the order of dimensions, stacks that of memory."""
    network = discriminator(choice, torch.float64)
    twin = copy.deepcopy(network)
    batched = BatchedNormalization(network)
    for layout in (torch.contiguous_format, torch.channels_last):
        network.to(memory_format=layout)
        batched.update_()
        update_(twin)
        for (name, buffer), (_, expected) in zip(network.named_buffers(), twin.named_buffers(), strict=True):
            torch.testing.assert_close(buffer, expected, rtol=0, atol=1e-11, msg=name)
        for name, weight in one_by_one(network).items():
            torch.testing.assert_close(batched.weights()[name], weight, rtol=0, atol=1e-12, msg=name)


def test_weights_outlive_the_next_update() -> None:
    """Gradients of weights use the singular vectors that the weights were computed with."""
    network = discriminator("srn", torch.float64)
    batched = BatchedNormalization(network)
    weights = batched.weights()
    expected = gradients(network, batched.weights())
    batched.update_()
    for got, one in zip(gradients(network, weights), expected, strict=True):
        assert torch.equal(got, one)


@pytest.mark.parametrize("choice", ["srn", "bsn", "srn_conv"])
def test_second_derivatives_equal_the_weights_one_by_one(choice: str) -> None:
    """A gradient penalty takes these derivatives."""
    network = discriminator(choice, torch.float64)
    originals = [found.original for found in normalized_weights(network)]
    results = []
    for weights in (one_by_one(network), BatchedNormalization(network).weights()):
        total = sum((weights[name].square() * (1 + index)).sum() for index, name in enumerate(sorted(weights)))
        first = torch.autograd.grad(total, originals, create_graph=True)
        results.append(torch.autograd.grad(sum(part.square().sum() for part in first), originals))
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(two, one, rtol=0, atol=1e-11 * float(1 + one.abs().max()))


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="has no normalized weight"):
        BatchedNormalization(nn.Linear(2, 2))
    network = nn.Sequential(in_steps(spectral_norm, nn.Linear(2, 2)), spectral_norm(nn.Linear(2, 2)))
    with pytest.raises(ValueError, match='update="forward" cannot be batched, got it in 1'):
        BatchedNormalization(network)
