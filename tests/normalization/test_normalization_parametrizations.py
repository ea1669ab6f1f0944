"""gan.normalization: spectral and stable rank normalization as parametrizations."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations as torch_parametrizations

from gan.normalization import (
    NORMALIZATIONS,
    bake,
    normalize,
    refresh_,
    spectra,
    spectral_norm,
    stable_rank,
    stable_rank_norm,
    update_,
)

LAYERS = {
    "linear": lambda: nn.Linear(7, 5),
    "conv1d": lambda: nn.Conv1d(4, 6, 3),
    "conv2d": lambda: nn.Conv2d(4, 6, 3),
    "conv3d": lambda: nn.Conv3d(2, 6, 3),
    "grouped": lambda: nn.Conv2d(4, 6, 3, groups=2),
    "transposed": lambda: nn.ConvTranspose2d(4, 6, 3),
    "embedding": lambda: nn.Embedding(9, 5),
}


def matrix_of(module: nn.Module, weight: Tensor) -> np.ndarray:
    """The weight as (output units, everything else), written with NumPy."""
    array = weight.detach().double().numpy()
    if isinstance(module, nn.ConvTranspose2d):
        array = np.moveaxis(array, 1, 0)
    return array.reshape(len(array), -1)


def with_spectrum(singular_values: list[float], rows: int, columns: int) -> Tensor:
    generator = np.random.default_rng(0)
    left = np.linalg.qr(generator.normal(size=(rows, rows)))[0]
    right = np.linalg.qr(generator.normal(size=(columns, columns)))[0]
    middle = np.zeros((rows, columns))
    np.fill_diagonal(middle, singular_values)
    return torch.tensor(left @ middle @ right)


def linear_with(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer


def test_stable_rank_in_closed_form() -> None:
    assert stable_rank(torch.eye(3)) == pytest.approx(3)
    assert stable_rank(torch.diag(torch.tensor([5.0, 4.0, 3.0]))) == pytest.approx(2)
    assert stable_rank(torch.ones(2, 3, 2, 2)) == pytest.approx(1)


@pytest.mark.parametrize("layer", LAYERS)
def test_spectral_norm_against_numpy(layer: str) -> None:
    module = LAYERS[layer]()
    before = matrix_of(module, module.weight)
    assert spectral_norm(module) is module
    refresh_(module)
    expected = before / np.linalg.svd(before, compute_uv=False)[0]
    np.testing.assert_allclose(matrix_of(module, module.weight), expected, atol=1e-6)


@pytest.mark.parametrize("layer", LAYERS)
def test_stable_rank_norm_against_a_plain_statement_of_algorithm_2(layer: str) -> None:
    """Residual form, in NumPy, with exact singular pairs."""
    module = LAYERS[layer]()
    before = matrix_of(module, module.weight)
    stable_rank_norm(module, c=0.5)
    refresh_(module)
    u, s, vt = np.linalg.svd(before)
    leading = np.outer(u[:, 0], vt[0])
    residual = before / s[0] - leading
    target = 0.5 * min(before.shape)
    if np.linalg.norm(residual) > np.sqrt(target - 1):
        residual *= np.sqrt(target - 1) / np.linalg.norm(residual)
    after = matrix_of(module, module.weight)
    np.testing.assert_allclose(after, leading + residual, atol=1e-6)
    values = np.linalg.svd(after, compute_uv=False)
    assert values[0] == pytest.approx(1, abs=1e-6)
    assert (values**2).sum() <= target * (1 + 1e-6)


def test_stable_rank_norm_of_a_known_matrix() -> None:
    """diag(5, 4, 3) to r = 1.5: gamma = 1 / sqrt(2), singular values 1, 0.8 gamma, 0.6 gamma."""
    layer = linear_with(torch.diag(torch.tensor([5.0, 4.0, 3.0], dtype=torch.float64)))
    stable_rank_norm(layer, c=0.5)
    refresh_(layer)
    expected = torch.tensor([1, 0.8 / 2**0.5, 0.6 / 2**0.5], dtype=torch.float64)
    torch.testing.assert_close(layer.weight.diagonal(), expected, rtol=0, atol=1e-12)


def test_the_bound_holds_for_any_unit_vectors() -> None:
    """Away from convergence: |W'|_F^2 = r exactly, and r >= stable rank >= r / (1 + delta)^2."""
    for seed in range(20):
        torch.manual_seed(seed)
        layer = nn.Linear(12, 8, dtype=torch.float64)
        stable_rank_norm(layer, c=0.3)
        with torch.no_grad():
            parametrization = layer.parametrizations.weight[0]
            for buffer in (parametrization._u, parametrization._v):
                buffer.copy_(nn.functional.normalize(buffer + 0.1 * torch.randn_like(buffer), dim=0))
            sigma = torch.linalg.matrix_norm(layer.parametrizations.weight.original, 2)
            delta = float(sigma / parametrization.sigma(layer.parametrizations.weight.original) - 1)
        after = layer.weight.detach()
        assert float(after.square().sum()) == pytest.approx(0.3 * 8, abs=1e-12)
        assert 0.3 * 8 / (1 + delta) ** 2 - 1e-12 <= float(stable_rank(after)) <= 0.3 * 8 + 1e-12


def test_stable_rank_norm_is_spectral_norm_where_the_bound_is_slack() -> None:
    weight = with_spectrum([3, 1, 0.5, 0.2], 4, 6)  # stable rank 1.14
    one, other = linear_with(weight), linear_with(weight)
    stable_rank_norm(one, c=0.7)
    spectral_norm(other)
    for layer in (one, other):
        refresh_(layer)
    torch.testing.assert_close(one.weight, other.weight, rtol=0, atol=1e-15)
    assert not spectra(one)[0].active


@pytest.mark.parametrize("rows", [1, 3])
def test_layers_with_r_at_most_one_stay_spectrally_normalized(rows: int) -> None:
    """c * min(rows, columns) <= 1 would leave u v^T, whose gradient is zero: the layer must go on learning."""
    layer = nn.Linear(8, rows)
    original = layer.weight.detach().clone()
    stable_rank_norm(layer, c=0.3)
    refresh_(layer)
    torch.testing.assert_close(layer.weight.detach(), original / torch.linalg.matrix_norm(original, 2))
    assert spectra(layer)[0].target_rank is None
    layer(torch.randn(4, 8)).square().sum().backward()
    assert layer.parametrizations.weight.original.grad.abs().max() > 0


def test_the_gradient_is_that_of_the_formula_with_constant_vectors() -> None:
    layer = nn.Linear(6, 5, dtype=torch.float64)
    stable_rank_norm(layer, c=0.4)
    weight = layer.parametrizations.weight.original
    parametrization = layer.parametrizations.weight[0]
    assert torch.autograd.gradcheck(parametrization, (weight.detach().requires_grad_(),))
    assert torch.autograd.gradgradcheck(parametrization, (weight.detach().requires_grad_(),))
    (gradient,) = torch.autograd.grad((layer.weight * torch.randn_like(weight)).sum(), weight)
    assert abs(float((gradient * weight.detach()).sum())) < 1e-12, (
        "the weight's scale has no effect, so no gradient along it"
    )


def test_forward_mode_is_torch_bit_for_bit() -> None:
    one, other = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)
    other.load_state_dict(one.state_dict())
    torch.manual_seed(1)
    torch_parametrizations.spectral_norm(one)
    torch.manual_seed(1)
    spectral_norm(other, update="forward")
    for _ in range(5):
        assert torch.equal(one.weight, other.weight)
    one.eval()
    other.eval()
    assert torch.equal(one.weight, other.weight)


@pytest.mark.parametrize("norm", [spectral_norm, stable_rank_norm])
def test_checkpoints_of_torch_load_and_the_other_way_round(norm: object) -> None:
    theirs, ours = torch_parametrizations.spectral_norm(nn.Linear(4, 3)), norm(nn.Linear(4, 3))  # type: ignore[operator]
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert torch.equal(ours.parametrizations.weight[0]._u, theirs.parametrizations.weight[0]._u)


@pytest.mark.parametrize("choice", [name for name, entry in NORMALIZATIONS.items() if entry.apply])
def test_vectors_move_only_when_told(choice: str) -> None:
    """Two forwards, a backward, eval mode and reading the weight leave u and v alone; update_ moves them."""
    network = normalize(nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6)), choice)
    before = copy.deepcopy(network.state_dict())
    x = torch.randn(3, 6)
    assert torch.equal(network(x), network(x))
    (network(x) + network(x)).sum().backward()
    network.eval()(x)
    spectra(network)
    after = network.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    update_(network)
    assert not torch.equal(
        before["0.parametrizations.weight.0._u"], network.state_dict()["0.parametrizations.weight.0._u"]
    )


def test_an_update_between_forward_and_backward_does_no_harm() -> None:
    network = normalize(nn.Linear(6, 6), "srn", c=0.5)
    x = torch.randn(3, 6)
    expected = torch.autograd.grad(network(x).square().sum(), network.parametrizations.weight.original)[0]
    loss = network(x).square().sum()
    update_(network)
    assert torch.equal(torch.autograd.grad(loss, network.parametrizations.weight.original)[0], expected)


@pytest.mark.parametrize("choice", NORMALIZATIONS)
def test_baking_gives_a_plain_network_with_the_same_output(choice: str) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))
    normalize(network, choice)
    refresh_(network)
    x = torch.randn(2, 3, 5, 5)
    expected = network(x)
    baked = bake(network)
    assert not any("parametrizations" in key for key in baked.state_dict())
    torch.testing.assert_close(baked(x), expected)
    assert torch.equal(network(x), expected), "the network itself must still work"


@pytest.mark.parametrize("choice", NORMALIZATIONS)
def test_a_deep_copy_is_independent(choice: str) -> None:
    network = normalize(nn.Linear(4, 4), choice)
    twin = copy.deepcopy(network)
    x = torch.randn(2, 4)
    expected = network(x)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.normal_()
    update_(twin)
    assert torch.equal(network(x), expected)


def test_vectors_stay_float32_and_updates_ignore_autocast() -> None:
    one, other = nn.Linear(16, 16), nn.Linear(16, 16)
    other.load_state_dict(one.state_dict())
    torch.manual_seed(0)
    stable_rank_norm(one, c=0.5)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        stable_rank_norm(other, c=0.5)
        update_(other)
        weight = other.weight
    update_(one)
    assert weight.dtype == torch.float32
    assert torch.equal(one.weight, weight)
    half = nn.Linear(16, 16, dtype=torch.bfloat16)
    stable_rank_norm(half, c=0.5)
    assert half.weight.dtype == torch.bfloat16
    assert half.parametrizations.weight[0]._u.dtype == torch.float32


def test_channels_last_is_kept() -> None:
    for choice in NORMALIZATIONS:
        layer = nn.Conv2d(8, 8, 3).to(memory_format=torch.channels_last)
        assert normalize(layer, choice).weight.is_contiguous(memory_format=torch.channels_last), choice


def test_spectra_report_before_and_after() -> None:
    weight = with_spectrum([4, 3, 2, 1], 4, 6)  # stable rank 30 / 16
    layer = linear_with(weight)
    stable_rank_norm(layer, c=0.4)
    refresh_(layer)
    (row,) = spectra(layer)
    assert row.sigma == pytest.approx(4)
    assert row.stable_rank == pytest.approx(30 / 16)
    assert row.target_rank == pytest.approx(1.6)
    assert row.active
    assert row.normalized_sigma == pytest.approx(1)
    assert row.normalized_stable_rank == pytest.approx(1.6)


WRONG = {
    "c=0": (lambda: stable_rank_norm(nn.Linear(3, 3), c=0), r"c: got 0, expected a number in \(0, 1\]"),
    "c=2": (lambda: stable_rank_norm(nn.Linear(3, 3), c=2), "c: got 2"),
    "vector": (lambda: spectral_norm(nn.Linear(3, 3), "bias"), "no matrix"),
    "missing": (lambda: spectral_norm(nn.Linear(3, 3), "wheight"), "no tensor named 'wheight'"),
    "none there": (lambda: spectral_norm(nn.ReLU()), "ReLU has no tensor named 'weight'"),
    "twice": (lambda: spectral_norm(spectral_norm(nn.Linear(3, 3))), "normalize a weight once"),
    "update": (lambda: spectral_norm(nn.Linear(3, 3), update="never"), "expected one of step, forward"),
    "iterations": (lambda: spectral_norm(nn.Linear(3, 3), n_power_iterations=0), "expected 1 or more"),
    "scale": (lambda: spectral_norm(nn.Linear(3, 3), scale=0), "positive"),
    "choice": (lambda: normalize(nn.Linear(3, 3), "snr"), "normalization: got 'snr', expected one of none, sn, srn"),
    "setting": (lambda: normalize(nn.Linear(3, 3), "sn", c=0.5), "sn: does not take c"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_use_is_refused(case: str) -> None:
    call, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_a_weight_without_singular_pair_is_refused_and_left_as_it_was(value: float) -> None:
    network = nn.Sequential(nn.Linear(3, 3))
    nn.init.constant_(network[0].weight, value)
    with pytest.raises(ValueError, match="0: the weight is all zero or not finite"):
        normalize(network, "srn")
    assert "0.weight" in network.state_dict()
