"""Tests of normalized layers: oracles, others' checkpoints, memory layouts, copies, precision, errors."""

import copy
import math
from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.utils import parametrizations as torch_parametrizations
from torch.nn.utils import prune
from torch.nn.utils import spectral_norm as torch_hook

from gan.normalization import (
    NORMALIZATIONS,
    BatchedNormalization,
    bake,
    bidirectional_spectral_norm,
    normalize,
    normalized_weights,
    refresh_,
    spectra,
    spectral_norm,
    stable_rank_norm,
    update_,
)
from gan.training.ema import averaged_copy, update_average_

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(7, 5),
    "head": lambda: nn.Linear(7, 1),
    "conv1d": lambda: nn.Conv1d(4, 6, 3),
    "conv2d": lambda: nn.Conv2d(4, 6, 3),
    "conv2d 1x1": lambda: nn.Conv2d(4, 6, 1),
    "conv3d": lambda: nn.Conv3d(2, 6, 3),
    "grouped": lambda: nn.Conv2d(4, 6, 3, groups=2),
    "depthwise": lambda: nn.Conv2d(6, 6, 3, groups=6),
    "transposed1d": lambda: nn.ConvTranspose1d(4, 6, 3),
    "transposed2d": lambda: nn.ConvTranspose2d(4, 6, 3),
    "transposed3d": lambda: nn.ConvTranspose3d(2, 6, 3),
    "transposed grouped": lambda: nn.ConvTranspose2d(4, 6, 3, groups=2),
    "embedding": lambda: nn.Embedding(9, 5),
}
WEIGHT_NORMALIZATIONS = [name for name, entry in NORMALIZATIONS.items() if entry.apply]


def settings_of(choice: str, *shape: int, c: float = 0.5, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Settings with which a choice differs from others, and an example of this shape, (channels, *size), if any."""
    example = {"example": (torch.zeros(1, *shape, dtype=dtype),)} if shape else {}
    return example | ({"c": c} if choice in ("srn", "srn_conv") else {})


def example_of(layer: nn.Module) -> tuple[int, ...]:
    """Shape of an image for a convolution; nothing for other layers."""
    weight = layer.weight
    return (layer.in_channels, *(5,) * (weight.ndim - 2)) if weight.ndim > 2 else ()  # type: ignore[operator, union-attr, return-value]


def rows_first(module: nn.Module, weight: Tensor) -> np.ndarray:
    array = weight.detach().double().numpy()
    return np.moveaxis(array, 1, 0) if "Transpose" in type(module).__name__ else array


def norms(module: nn.Module, weight: Tensor) -> tuple[float, float]:
    """sigma_out and sigma_in, computed by NumPy."""
    array = rows_first(module, weight)
    swapped = np.moveaxis(array, 1, 0)
    out, into = (np.linalg.svd(a.reshape(len(a), -1), compute_uv=False)[0] for a in (array, swapped))
    return float(out), float(into)


@pytest.mark.parametrize("layer", LAYERS)
def test_spectral_norms_against_numpy(layer: str) -> None:
    """SN gives scale * W / sigma_out, BSN scale * W / ((sigma_out + sigma_in) / 2); vectors are sized out and in."""
    for norm in (spectral_norm, bidirectional_spectral_norm):
        module = LAYERS[layer]().double()
        before = module.weight.detach().clone()
        out, into = norms(module, before)
        assert norm(module, scale=1.3) is module
        refresh_(module)
        sigma = out if norm is spectral_norm else (out + into) / 2
        torch.testing.assert_close(module.weight.detach(), 1.3 * before / sigma, rtol=0, atol=1e-12)
    normalizer, array = module.parametrizations.weight[0], rows_first(module, before)
    assert (len(normalizer._u), len(normalizer._u2)) == array.shape[:2]
    assert len(normalizer._v) == array[0].size
    assert len(normalizer._v2) == array[:, 0].size


@pytest.mark.parametrize("layer", LAYERS)
def test_stable_rank_norm_is_algorithm_2_in_numpy(layer: str) -> None:
    """Algorithm 2 in the paper's residual form, with exact singular pairs."""
    module = LAYERS[layer]().double()
    before = rows_first(module, module.weight)
    before = before.reshape(len(before), -1)
    stable_rank_norm(module, c=0.5)
    refresh_(module)
    u, s, vt = np.linalg.svd(before)
    leading, target = np.outer(u[:, 0], vt[0]), 0.5 * min(before.shape)
    residual = before / s[0] - leading
    if target > 1 and np.linalg.norm(residual) > np.sqrt(target - 1):
        residual *= np.sqrt(target - 1) / np.linalg.norm(residual)
    after = rows_first(module, module.weight).reshape(before.shape)
    np.testing.assert_allclose(after, leading + residual, rtol=0, atol=1e-12)
    values = np.linalg.svd(after, compute_uv=False)
    assert values[0] == pytest.approx(1, abs=1e-12)
    assert target <= 1 or (values**2).sum() <= target * (1 + 1e-12)


@pytest.mark.parametrize("layer", ["linear", "conv2d 1x1", "embedding", "head"])
@pytest.mark.parametrize("update", ["step", "forward"])
def test_of_one_matrix_both_directions_are_one(layer: str, update: str) -> None:
    """For linear, embedding and 1x1 layers BSN equals SN at every state of the power iteration."""
    torch.manual_seed(0)
    plain = LAYERS[layer]()
    other = copy.deepcopy(plain)
    for module, norm in ((plain, spectral_norm), (other, bidirectional_spectral_norm)):
        torch.manual_seed(1)
        norm(module, update=update)
        for _ in range(2):
            update_(module)
    assert torch.equal(plain.eval().weight, other.eval().weight)
    norm = other.parametrizations.weight[0]
    assert torch.equal(norm._u2, norm._v)
    assert torch.equal(norm._v2, norm._u)


def test_bidirectional_examples_by_hand() -> None:
    """sigma_out = 1, sigma_in = sqrt(2) for two ones at different positions; all ones: sqrt(24) both ways."""
    conv = nn.Conv2d(2, 2, (1, 2), bias=False, dtype=torch.float64)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[0, 0, 0, 0] = conv.weight[1, 0, 0, 1] = 1
    bidirectional_spectral_norm(conv)
    refresh_(conv)
    norm, weight = conv.parametrizations.weight[0], conv.parametrizations.weight.original.detach()
    assert float(norm.sigma(weight)) == pytest.approx((1 + 2**0.5) / 2, abs=1e-12)
    ones = nn.Conv2d(3, 2, 2, bias=False, dtype=torch.float64)
    nn.init.ones_(ones.weight)
    bidirectional_spectral_norm(ones)
    refresh_(ones)
    torch.testing.assert_close(ones.weight, torch.full((2, 3, 2, 2), 24**-0.5, dtype=torch.float64), rtol=0, atol=1e-12)


def test_derivatives_of_the_bidirectional_norm() -> None:
    """gradcheck and gradgradcheck pass for BSN, with two different singular pairs."""
    layer = bidirectional_spectral_norm(nn.Conv2d(2, 3, 2, dtype=torch.float64), scale=1.2).eval()
    norm = layer.parametrizations.weight[0]
    weight = layer.parametrizations.weight.original.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(norm, (weight,))
    assert torch.autograd.gradgradcheck(norm, (weight,))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("choice", WEIGHT_NORMALIZATIONS)
def test_only_the_size_of_entries_changes_not_their_place(layer: str, choice: str) -> None:
    """The result is a multiple of the weight plus, for SRN, a multiple of u v^T in the same layout.

    A mixed-up layout of transposed convolutions, as in the SRN authors' published layer, violates this.
    """
    module = LAYERS[layer]().double()
    before = module.weight.detach().clone()
    normalize(module, choice, **settings_of(choice, *example_of(module), dtype=torch.float64))
    for _ in range(3):
        update_(module)
    norm = module.parametrizations.weight[0]
    outer = torch.outer(norm._u, norm._v).view(*torch.tensor(rows_first(module, before)).shape)
    outer = outer.movedim(0, norm.dim)
    basis = torch.stack([before.flatten(), outer.flatten()], 1)
    after = module.weight.detach().flatten()
    fitted = basis @ torch.linalg.lstsq(basis, after[:, None], driver="gelsd").solution
    torch.testing.assert_close(fitted[:, 0], after, rtol=0, atol=1e-10)
    assert module.weight.shape == before.shape
    assert module.weight.stride() == before.stride()


@pytest.mark.parametrize("layer", ["conv2d", "conv2d 1x1", "grouped", "transposed2d", "conv3d"])
@pytest.mark.parametrize("choice", WEIGHT_NORMALIZATIONS)
def test_channels_last_changes_the_layout_and_nothing_else(layer: str, choice: str) -> None:
    """Weight, vectors and gradient equal those of the contiguous layer up to summation order."""
    torch.manual_seed(0)
    plain = LAYERS[layer]()
    other = copy.deepcopy(plain)
    memory_format = torch.channels_last_3d if layer == "conv3d" else torch.channels_last
    other.to(memory_format=memory_format)
    gradients = []
    for module in (plain, other):
        torch.manual_seed(1)
        normalize(module, choice, **settings_of(choice, *example_of(module)))
        for _ in range(3):
            update_(module)
        upstream = torch.randn(module.weight.shape, generator=torch.Generator().manual_seed(0))
        gradients.append(torch.autograd.grad(module.weight, module.parametrizations.weight.original, upstream)[0])
    assert other.weight.is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(other.weight, plain.weight)
    torch.testing.assert_close(gradients[1], gradients[0])
    for name, buffer in plain.named_buffers():
        torch.testing.assert_close(other.get_buffer(name), buffer)


def in_memory_order(tensor: Tensor, order: list[int]) -> Tensor:
    """Tensor with the same values in which dimension order[0] has the largest stride and order[-1] stride 1."""
    return tensor.permute(order).contiguous().permute([order.index(d) for d in range(tensor.ndim)])


@pytest.mark.parametrize("layer", ["linear", "conv1d", "conv2d", "grouped", "transposed2d", "embedding", "head"])
@pytest.mark.parametrize("update", ["step", "forward"])
@pytest.mark.parametrize("choice", ["sn", "srn", "bsn", "sn_conv", "srn_conv"])
def test_any_order_of_dimensions_in_memory_is_kept(choice: str, update: str, layer: str) -> None:
    """Strides equal those of the weight divided by a number, except in dimensions of size 1."""
    torch.manual_seed(0)
    plain = LAYERS[layer]()
    settings = settings_of(choice, *example_of(plain))
    torch.manual_seed(1)
    expected = normalize(copy.deepcopy(plain), choice, update=update, **settings).eval().weight
    for order in permutations(range(plain.weight.ndim)):
        module = copy.deepcopy(plain)
        module.weight = nn.Parameter(in_memory_order(module.weight.detach(), list(order)))
        strides = module.weight.stride()
        torch.manual_seed(1)
        used = normalize(module, choice, update=update, **settings).eval().weight
        torch.testing.assert_close(used, expected)
        kept = [d for d, size in enumerate(used.shape) if size > 1]
        assert [used.stride(d) for d in kept] == [strides[d] for d in kept], order
        if update == "step":
            batched = BatchedNormalization(module).weights()["weight"]
            assert [batched.stride(d) for d in kept] == [strides[d] for d in kept], order


@pytest.mark.parametrize("layer", ["linear", "conv2d", "conv3d", "grouped", "transposed2d", "embedding", "wide"])
def test_forward_mode_is_torch_bit_for_bit_for_every_layer(layer: str) -> None:
    """Weights, vectors and gradients with three iterations; "wide" is channels-last."""
    torch.manual_seed(0)
    wide = nn.Conv2d(64, 32, 3).to(memory_format=torch.channels_last)
    theirs = wide if layer == "wide" else LAYERS[layer]()
    ours = copy.deepcopy(theirs)
    torch.manual_seed(1)
    torch_parametrizations.spectral_norm(theirs, n_power_iterations=3)
    torch.manual_seed(1)
    spectral_norm(ours, n_power_iterations=3, update="forward")
    for _ in range(3):
        assert torch.equal(theirs.weight, ours.weight)
    assert torch.equal(theirs.parametrizations.weight[0]._v, ours.parametrizations.weight[0]._v)
    upstream = torch.randn(theirs.eval().weight.shape)
    gradients = [
        torch.autograd.grad(module.weight, module.parametrizations.weight.original, upstream)[0]
        for module in (theirs, ours.eval())
    ]
    assert torch.equal(*gradients)


@pytest.mark.parametrize("norm", [spectral_norm, lambda *arguments: stable_rank_norm(*arguments, c=1)])
@pytest.mark.parametrize("dim", [None, 0, 1, 2, -1])
def test_torchs_arguments_mean_what_they_mean_there(dim: int | None, norm: Callable[..., nn.Module]) -> None:
    """In torch's order, bit for bit, with an eps that shortens vectors once the weight is small."""
    theirs, ours = LAYERS["transposed2d"](), LAYERS["transposed2d"]()
    ours.load_state_dict(theirs.state_dict())
    for register, layer in ((torch_parametrizations.spectral_norm, theirs), (norm, ours)):
        torch.manual_seed(1)
        register(layer, "weight", 2, 1e-3, dim)
        with torch.no_grad():
            layer.parametrizations.weight.original.mul_(1e-4)
    assert torch.equal(theirs.weight, ours.weight)
    assert torch.equal(theirs.parametrizations.weight[0]._v, ours.parametrizations.weight[0]._v)
    assert torch.linalg.vector_norm(ours.parametrizations.weight[0]._v) < 0.99


@pytest.mark.parametrize("norm", [spectral_norm, stable_rank_norm, bidirectional_spectral_norm])
def test_dim_and_eps_of_each_norm(norm: Callable[..., nn.Module]) -> None:
    """dim=0 of a transposed layer reads its weight as the convolution with the same weight does; so does a batch."""
    conv, transposed = nn.Conv2d(4, 6, 3), nn.ConvTranspose2d(6, 4, 3)
    transposed.weight = nn.Parameter(conv.weight.detach().clone())
    network = nn.Sequential(norm(conv, eps=1e-6, update="step"), norm(transposed, eps=1e-3, dim=0, update="step"))
    refresh_(network)
    torch.testing.assert_close(network[0].weight, network[1].weight)
    with torch.no_grad():
        for found in normalized_weights(network):
            found.original.mul_(1e-4)
    BatchedNormalization(network).update_()
    lengths = [float(torch.linalg.vector_norm(found.parametrization._v)) for found in normalized_weights(network)]
    assert lengths[0] == pytest.approx(1, abs=1e-5)
    assert lengths[1] < 0.99


def test_the_papers_order_reaches_the_same_pair() -> None:
    """200 iterations in torch's and in the paper's order agree on a matrix with a known gap."""
    left, right = (torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(i))).Q for i in (0, 1))
    theirs, ours = nn.Linear(8, 8), nn.Linear(8, 8)
    for layer in (theirs, ours):
        with torch.no_grad():
            layer.weight.copy_(left @ torch.diag(0.7 ** torch.arange(8)) @ right)
    torch_parametrizations.spectral_norm(theirs)
    spectral_norm(ours)
    for _ in range(200):
        theirs.weight  # noqa: B018  # torch's moves at every access
        update_(ours)
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", [spectral_norm, stable_rank_norm])
def test_checkpoints_of_torch_load_and_the_other_way_round(norm: object) -> None:
    theirs, ours = torch_parametrizations.spectral_norm(nn.Linear(4, 3)), norm(nn.Linear(4, 3))  # type: ignore[operator]
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert torch.equal(ours.parametrizations.weight[0]._u, theirs.parametrizations.weight[0]._u)


@pytest.mark.parametrize("choice", WEIGHT_NORMALIZATIONS)
def test_vectors_move_only_when_told(choice: str) -> None:
    """Forward and backward passes, eval mode and reading the weight keep u and v; update_ changes them."""
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
    normalize(network, choice, example=(torch.zeros(1, 3, 5, 5),))
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


@pytest.mark.parametrize("choice", WEIGHT_NORMALIZATIONS)
def test_two_forwards_and_one_backward_in_forward_mode(choice: str) -> None:
    """The forward passes change the vectors, but not the tensors saved for the backward pass."""
    x = torch.randn(2, 3, 6, 6)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    normalize(network, choice, update="forward", example=(x,))
    (network(x).sum() - network(-x).sum()).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("choice", WEIGHT_NORMALIZATIONS)
def test_function_transforms(choice: str) -> None:
    """torch.func: gradients by functional_call equal autograd's, and per-sample gradients by vmap add up to them."""
    x = torch.randn(5, 3, 6, 6)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(128, 2))
    normalize(network, choice, example=(x,))
    parameters = dict(network.named_parameters())

    def loss(values: dict[str, Tensor], batch: Tensor) -> Tensor:
        return torch.func.functional_call(network, values, (batch,)).square().sum()

    expected = torch.autograd.grad(loss(parameters, x), list(parameters.values()))
    got = torch.func.grad(loss)(parameters, x)
    singly = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, x[:, None])
    for name, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(got[name], gradient, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(singly[name].sum(0), gradient, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")  # torch's own, from make_dual
@pytest.mark.parametrize("choice", WEIGHT_NORMALIZATIONS)
def test_forward_mode_derivatives(choice: str) -> None:
    """Tangents equal torch.func.jvp's and finite differences; of the gradient, the second derivatives of autograd."""
    settings = settings_of(choice, 3, 5, 5, c=0.3, dtype=torch.float64)
    layer = normalize(nn.Conv2d(3, 5, 2, dtype=torch.float64), choice, **settings)
    norm, weight = layer.parametrizations.weight[0], layer.parametrizations.weight.original.detach()
    random = torch.Generator().manual_seed(0)
    along, upstream = torch.randn(2, *weight.shape, dtype=torch.float64, generator=random)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(weight.clone().requires_grad_(), along)
        after = norm(dual)
        (gradient,) = torch.autograd.grad(after, dual, upstream)
        tangent, second = (forward_ad.unpack_dual(value).tangent for value in (after, gradient))
    torch.testing.assert_close(tangent, torch.func.jvp(norm, (weight,), (along,))[1], rtol=0, atol=1e-13)
    step = 1e-5
    differences = (norm(weight + step * along) - norm(weight - step * along)) / (2 * step)
    torch.testing.assert_close(tangent, differences, rtol=0, atol=1e-7)
    free = weight.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(norm(free), free, upstream, create_graph=True)
    torch.testing.assert_close(second, torch.autograd.grad(gradient, free, along)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("layer", ["linear", "conv2d", "transposed2d", "embedding"])
@pytest.mark.parametrize("norm", [spectral_norm, stable_rank_norm])
def test_checkpoints_of_the_old_hook_load(layer: str, norm: Callable[..., nn.Module]) -> None:
    """weight_orig, weight_u and weight_v of torch.nn.utils.spectral_norm load strictly, nested in a network."""
    torch.manual_seed(0)  # the hook starts from random vectors, whose u^T W v may cancel to nearly zero
    theirs = nn.Sequential(nn.ReLU(), torch_hook(LAYERS[layer]()))
    ours = copy.deepcopy(nn.Sequential(nn.ReLU(), norm(LAYERS[layer]())))
    content = theirs.state_dict()
    ours.load_state_dict(content, strict=True)
    assert "1.weight_orig" in content, "the caller's dictionary is left alone"
    assert torch.equal(ours[1].parametrizations.weight[0]._u, theirs[1].weight_u)
    if norm is spectral_norm:
        matrix = torch.tensor(rows_first(theirs[1], theirs[1].weight_orig)).float().flatten(1)
        sigma = theirs[1].weight_u @ matrix @ theirs[1].weight_v
        torch.testing.assert_close(ours.eval()[1].weight, theirs[1].weight_orig / sigma)


@pytest.mark.parametrize("layer", ["linear", "conv2d 1x1", "embedding"])
def test_a_checkpoint_of_spectral_norm_brings_both_directions_of_one_matrix(layer: str) -> None:
    """SN has no _u2 and _v2; they follow from _u and _v, so strict=False must not keep old ones."""
    theirs, ours = torch_parametrizations.spectral_norm(LAYERS[layer]()), bidirectional_spectral_norm(LAYERS[layer]())
    network = nn.Sequential(ours)
    missing, unexpected = network.load_state_dict(nn.Sequential(theirs).state_dict(), strict=False)
    assert [key.rpartition(".")[2] for key in missing] == ["_u2", "_v2"]
    assert not unexpected
    norm = ours.parametrizations.weight[0]
    assert torch.equal(norm._u, theirs.parametrizations.weight[0]._u)
    assert torch.equal(norm._u2, norm._v)
    assert torch.equal(norm._v2, norm._u)


def test_a_baked_copy_loads_its_own_keys() -> None:
    """Old keys are renamed only while the parametrization exists."""
    baked = bake(spectral_norm(nn.Linear(3, 3)))
    baked.load_state_dict(nn.Linear(3, 3).state_dict(), strict=True)
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"weight_orig"'):
        baked.load_state_dict(torch_hook(nn.Linear(3, 3)).state_dict())


@pytest.mark.parametrize("choice", WEIGHT_NORMALIZATIONS)
def test_casting_never_narrows_the_vectors(choice: str) -> None:
    """bfloat16 weights have float32 vectors and are correct up to bfloat16 rounding; float64 widens the vectors too."""
    torch.manual_seed(0)
    network = normalize(nn.Conv2d(8, 16, 3), choice, **settings_of(choice, 8, 5, 5))
    reference = copy.deepcopy(network)
    network.to(torch.bfloat16)
    norm = network.parametrizations.weight[0]
    assert {buffer.dtype for buffer in norm.buffers()} == {torch.float32}
    assert torch.equal(norm._u, reference.parametrizations.weight[0]._u)
    update_(network)
    update_(reference)
    assert network.weight.dtype == torch.bfloat16
    torch.testing.assert_close(network.weight.float(), reference.weight, rtol=2e-2, atol=1e-3)
    assert {buffer.dtype for buffer in reference.double().parametrizations.weight[0].buffers()} == {torch.float64}
    assert reference.weight.dtype == torch.float64


@pytest.mark.parametrize("choice", WEIGHT_NORMALIZATIONS)
def test_no_product_runs_under_autocast(choice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Autocast on a GPU would compute matrix-vector products in bfloat16; on a CPU it does not."""
    seen, multiply = [], torch.mv

    def record(*arguments: Tensor, **options: Tensor) -> Tensor:
        seen.append(torch.is_autocast_enabled("cpu"))
        return multiply(*arguments, **options)

    network = normalize(nn.Conv2d(3, 8, 3), choice, **settings_of(choice, 3, 5, 5))
    monkeypatch.setattr(torch, "mv", record)
    with torch.autocast("cpu", torch.bfloat16):
        update_(network)
        assert len(seen) >= 2
        count = len(seen)
        network.weight.sum()
        assert len(seen) > count
        assert torch.is_autocast_enabled("cpu")
    assert not any(seen)


@pytest.mark.parametrize("choice", WEIGHT_NORMALIZATIONS)
def test_an_averaged_copy_keeps_unit_vectors(choice: str) -> None:
    """Averaging copies buffers; after refresh_ the averaged network is normalized again."""
    network = normalize(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 4)), choice, **settings_of(choice, 3, 6, 6))
    average = averaged_copy(network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter))
    update_(network)
    update_average_(average, network, 0.5)
    for name, buffer in network.named_buffers():
        assert torch.equal(average.get_buffer(name), buffer)
        if name in network.state_dict():
            assert float(buffer.norm()) == pytest.approx(1, abs=1e-6)
    refresh_(average)
    if choice in ("sn", "srn", "ssn", "sn_conv", "srn_conv"):
        norms = [row.operator_norm or row.normalized_sigma for row in spectra(average)]
        assert norms == pytest.approx([1, 1], abs=1e-4 if "conv" in choice else 1e-5)


def test_spectra_names_tensors_other_than_weight() -> None:
    cell = nn.LSTMCell(4, 4)
    spectral_norm(cell, "weight_hh")
    network = nn.Sequential(nn.Linear(4, 4), cell)
    assert [row.name for row in spectra(network)] == ["0", "1.weight_hh", "1.weight_ih"]


@pytest.mark.parametrize("choice", WEIGHT_NORMALIZATIONS)
def test_sparse_gradients_of_an_embedding(choice: str) -> None:
    """The gradient of the unnormalized weight is that of the embedding without sparse=True."""
    gradients = []
    for sparse in (False, True):
        torch.manual_seed(0)
        layer = normalize(nn.Embedding(20, 8, sparse=sparse), choice, **settings_of(choice, c=0.3))
        layer(torch.tensor([1, 2, 2])).square().sum().backward()
        gradients.append(layer.parametrizations.weight.original.grad)
    torch.testing.assert_close(gradients[1], gradients[0])


def picture(network: nn.Module) -> dict[str, object]:
    """Everything that normalizing changes, and the identity of objects that must remain."""
    return {
        name: (
            type(module),
            list(module.__dict__),
            {key: id(value) for key, value in module.__dict__.items()},
            [(key, id(value), name == "0" and value.tolist()) for key, value in module._parameters.items()],
            {key: list(value.items()) for key, value in module.__dict__.items() if key.endswith("hooks")},
        )
        for name, module in network.named_modules()
    }


def filled(value: float, dtype: torch.dtype = torch.float32) -> nn.Module:
    layer = nn.Linear(4, 4)
    layer.weight = nn.Parameter(torch.full((4, 4), value, dtype=dtype), requires_grad=dtype.is_floating_point)
    return layer


UNFIT: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "meta": (lambda: nn.Linear(4, 4, device="meta"), "2: a lazy weight or one on the meta device has no values"),
    "lazy": (lambda: nn.LazyLinear(4), "2: a lazy weight or one on the meta device has no values"),
    "nan": (lambda: filled(math.nan), "2: the weight has NaN.* singular pair: .*load an earlier checkpoint$"),
    "infinite": (lambda: filled(math.inf), "2: the weight has NaN.* singular pair: .*load an earlier checkpoint$"),
    "whole numbers": (lambda: filled(1, torch.int64), "2: .*expected floating point"),
    "normalized": (
        lambda: spectral_norm(nn.Linear(4, 4)),
        "2: ParametrizedLinear.weight is parametrized already.* a weight is normalized only once",
    ),
}


@pytest.mark.parametrize("case", UNFIT)
@pytest.mark.parametrize("choice", WEIGHT_NORMALIZATIONS)
def test_a_later_layer_that_is_unfit_leaves_the_earlier_as_they_were(choice: str, case: str) -> None:
    """Compares the order of parameters and keys, classes, hooks and object identities; hook handles still work."""
    make, message = UNFIT[case]
    kernel = 1 if NORMALIZATIONS[choice].sized else 2  # a larger one would need an example, and the last layer fails
    network = nn.Sequential(nn.Linear(4, 4), nn.Conv2d(2, 2, kernel), make())
    handle = network[0].register_load_state_dict_pre_hook(lambda *arguments: None)
    before, names = picture(network), [name for name, _ in network.named_parameters()]
    with pytest.raises(ValueError, match=message):
        normalize(network, choice)
    assert picture(network) == before
    assert [name for name, _ in network.named_parameters()] == names
    handle.remove()
    assert not network[0]._load_state_dict_pre_hooks


@pytest.mark.filterwarnings("ignore:.torch.nn.utils.weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("update", ["step", "forward"])
@pytest.mark.parametrize(
    ("hook", "undo"),
    [
        (torch_hook, "hook.*torch.nn.utils.remove_spectral_norm$"),
        (nn.utils.weight_norm, "hook.*torch.nn.utils.remove_weight_norm$"),
        (lambda layer: prune.random_unstructured(layer, "weight", 0.5), "hook.*torch.nn.utils.prune.remove$"),
        (lambda layer: setattr(layer, "weight", layer._parameters.pop("weight").detach()), "neither a parameter nor a"),
    ],
    ids=["spectral_norm", "weight_norm", "prune", "attribute"],
)
def test_a_weight_that_a_hook_computes_is_refused(hook: Callable[[nn.Module], object], undo: str, update: str) -> None:
    """The error says how to remove the hook, and the module is unchanged."""
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    hook(network[1])
    before, x = picture(network), torch.randn(2, 4)
    for choice in WEIGHT_NORMALIZATIONS:
        with pytest.raises(ValueError, match=f"^1: Linear.weight .*{undo}"):
            normalize(network, choice, update=update)
    assert picture(network) == before
    network(x).sum().backward()


def test_an_error_in_the_middle_of_registering_names_the_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    before, register = picture(network), nn.utils.parametrize.register_parametrization

    def fail_on_the_second(module: nn.Module, *arguments: object) -> nn.Module:
        register(module, *arguments)
        if module is network[1]:
            raise RuntimeError("of torch's,\nin lines")
        return module

    monkeypatch.setattr(nn.utils.parametrize, "register_parametrization", fail_on_the_second)
    with pytest.raises(ValueError, match=r"^1: of torch's, in lines$"):
        normalize(network, "sn")
    assert picture(network) == before


@pytest.mark.parametrize("order", [("weight_ih", "weight_hh"), ("weight_hh", "weight_ih")])
def test_baking_keeps_the_order_of_parameters(order: tuple[str, str]) -> None:
    """Optimizers number parameters by their order."""
    network = nn.Sequential(nn.Conv2d(2, 2, 2), nn.LSTMCell(4, 4), nn.Linear(4, 4))
    names = [name for name, _ in network.named_parameters()]
    keys = list(network.state_dict())
    normalize(network, "sn", exclude="1")
    for name in order:
        stable_rank_norm(network[1], name)
    baked = bake(network)
    assert [name for name, _ in baked.named_parameters()] == names
    assert list(baked.state_dict()) == keys


@pytest.mark.parametrize("choice", ["none", *WEIGHT_NORMALIZATIONS])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_became_infinite_are_named(choice: str, value: float) -> None:
    """The error names the layer, unlike LAPACK's error of an eigenvalue problem."""
    network = normalize(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), choice)
    with torch.no_grad():
        (network[1].weight if choice == "none" else network[1].parametrizations.weight.original)[0, 0] = value
    for use in (spectra, refresh_, bake) if choice != "none" else (spectra,):
        with pytest.raises(ValueError, match=r"^1: the weight has NaN or infinite entries, .*: .*load an earlier"):
            use(network)


@pytest.mark.parametrize("choice", WEIGHT_NORMALIZATIONS)
@pytest.mark.parametrize("update", ["step", "forward"])
@pytest.mark.parametrize("size", [1e-14, 1e-30, 1e38])
def test_weights_of_extreme_size_are_refused(choice: str, update: str, size: float) -> None:
    """Singular vectors of such weights would be NaN or not of unit length; a thousand times EPS is accepted."""
    torch.manual_seed(0)
    weights = torch.rand(8, 8) + 0.1
    network = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    with torch.no_grad():
        network[1].weight.copy_(weights * size)
    keys = list(network.state_dict())
    with pytest.raises(ValueError, match=r"^1: power iteration fails in torch.float32 .* rescale the weight"):
        normalize(network, choice, update=update)
    assert list(network.state_dict()) == keys
    with torch.no_grad():
        network[1].weight.copy_(weights * 1e-9)
    normalize(network, choice, update=update)
    update_(network)
    if choice != "none":
        assert all(row.normalized_sigma == pytest.approx(1, rel=1e-2) for row in spectra(network[1:]))


def test_spectra_report_before_and_after() -> None:
    layer = nn.Linear(4, 4)
    with torch.no_grad():
        layer.weight.copy_(torch.diag(torch.tensor([4.0, 3, 2, 1])))  # stable rank 30 / 16
    stable_rank_norm(layer, c=0.4)
    refresh_(layer)
    (row,) = spectra(layer)
    assert (row.sigma, row.stable_rank, row.target_rank) == pytest.approx((4, 30 / 16, 1.6))
    assert (row.normalized_sigma, row.normalized_stable_rank) == pytest.approx((1, 1.6))
    assert row.active


def test_the_spectrum_of_zero() -> None:
    """Spectra are logged as JSON, which has no NaN."""
    layer = nn.Linear(4, 3)
    nn.init.zeros_(layer.weight)
    (row,) = spectra(layer)
    assert (row.sigma, row.stable_rank, row.normalized_sigma, row.normalized_stable_rank) == (0, 0, 0, 0)


WRONG = {
    "c=0": (lambda: stable_rank_norm(nn.Linear(3, 3), c=0), r"c: got 0, expected a number in \(0, 1\]"),
    "c=2": (lambda: stable_rank_norm(nn.Linear(3, 3), c=2), "c: got 2"),
    "zero": (lambda: spectral_norm(filled(0)), "all zero, .*initial values first, .*exclude=... in normalize$"),
    "vector": (lambda: spectral_norm(nn.Linear(3, 3), "bias"), "expected at least two dimensions"),
    "missing": (lambda: spectral_norm(nn.Linear(3, 3), "wheight"), "no tensor named 'wheight'"),
    "none there": (lambda: spectral_norm(nn.ReLU()), "ReLU has no tensor named 'weight'"),
    "update": (lambda: spectral_norm(nn.Linear(3, 3), update="never"), "expected one of step, forward"),
    "iterations": (
        lambda: spectral_norm(nn.Linear(3, 3), n_power_iterations=0),
        "expected a whole number of 1 or more",
    ),
    "scale": (lambda: spectral_norm(nn.Linear(3, 3), scale=0), "positive"),
    "dim": (lambda: spectral_norm(nn.Linear(3, 3), dim=2), "dim: got 2, expected one of -2 to 1"),
    "dim of both": (lambda: bidirectional_spectral_norm(nn.Conv2d(3, 3, 3), dim=-1), "dim: got -1, expected 0 or 1"),
    "eps": (lambda: spectral_norm(nn.Linear(3, 3), eps=0), "eps: got 0, expected a positive number"),
    "eps too large": (lambda: spectral_norm(nn.Linear(3, 3), eps=100), "pass an eps below 100 or rescale the weight"),
    "choice": (lambda: normalize(nn.Linear(3, 3), "snr"), "normalization: got 'snr', expected one of none, sn, srn"),
    "policy": (lambda: stable_rank_norm(nn.Linear(3, 3), infeasible="clamp"), "expected one of skip, error, floor"),
    "c text": (lambda: stable_rank_norm(nn.Linear(3, 3), c="0.7"), "c: got '0.7', expected a number in"),
    "scale text": (lambda: spectral_norm(nn.Linear(3, 3), scale="1"), "scale: got '1', expected a positive number"),
    "part of a step": (
        lambda: normalize(nn.Linear(3, 3), "bsn", n_power_iterations=1.5),
        "Linear: n_power_iterations: got 1.5, expected a whole number of 1 or more",
    ),
    "c nan": (lambda: stable_rank_norm(nn.Linear(3, 3), c=float("nan")), "c: got nan"),
    "scale inf": (lambda: bidirectional_spectral_norm(nn.Linear(3, 3), scale=float("inf")), "scale: got inf"),
    "scale nan": (lambda: spectral_norm(nn.Linear(3, 3), scale=float("nan")), "scale: got nan"),
    "setting of another": (lambda: normalize(nn.Linear(3, 3), "wgan_gp", c=0.5), "wgan_gp: unknown c, expected only"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_use_is_refused(case: str) -> None:
    call, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        call()
