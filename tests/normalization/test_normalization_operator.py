"""Tests of sn_conv and srn_conv, the norms of convolutions as operators, and of the spectrum of periodic ones."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gan.models import ResNetDiscriminator
from gan.models.blocks import conv3x3, convolve_then_downsample, upsample_then_convolve
from gan.normalization import (
    BatchedNormalization,
    ConvolutionSpectralNorm,
    bake,
    convolution_spectral_norm,
    convolution_spectrum,
    convolution_stable_rank_norm,
    normalize,
    normalized_weights,
    refresh_,
    singular,
    spectra,
    spectral_norm,
    update_,
)

CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "no padding": (lambda: nn.Conv2d(3, 4, 3), (7, 6)),
    "padding": (lambda: nn.Conv2d(3, 4, 3, padding=1), (7, 6)),
    "fewer outputs": (lambda: nn.Conv2d(6, 2, 3, padding=1), (6, 6)),
    "stride 2, even": (lambda: nn.Conv2d(3, 4, 4, stride=2, padding=1), (8, 8)),
    "stride 2, odd": (lambda: nn.Conv2d(3, 4, 3, stride=2), (8, 7)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2), (6, 6)),
    "depthwise": (lambda: nn.Conv2d(4, 4, 3, padding=1, groups=4), (6, 6)),
    "grouped 1x1": (lambda: nn.Conv2d(4, 6, 1, groups=2), (4, 4)),
    "dilated": (lambda: nn.Conv2d(3, 4, 3, padding=2, dilation=2), (7, 7)),
    "same, even kernel": (lambda: nn.Conv2d(3, 4, 4, padding="same"), (7, 7)),
    "circular": (lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), (7, 7)),
    "reflect": (lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), (7, 7)),
    "replicate": (lambda: nn.Conv2d(3, 4, 3, padding=2, padding_mode="replicate"), (6, 6)),
    "1x1, replicate": (lambda: nn.Conv2d(3, 4, 1, padding=1, padding_mode="replicate"), (4, 4)),
    "1d": (lambda: nn.Conv1d(3, 4, 5, padding=2), (16,)),
    "3d": (lambda: nn.Conv3d(2, 3, 3, padding=1), (4, 4, 4)),
    "transposed": (lambda: nn.ConvTranspose2d(3, 4, 3, padding=1), (6, 6)),
    "transposed, stride 2": (lambda: nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1), (5, 5)),
    "transposed, output padding of a dilation": (
        lambda: nn.ConvTranspose2d(3, 4, 3, dilation=3, output_padding=2),
        (5, 5),
    ),
    "transposed, grouped": (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (5, 5)),
    "transposed 1d": (lambda: nn.ConvTranspose1d(3, 4, 4, stride=2, padding=1), (9,)),
    "transposed 3d": (lambda: nn.ConvTranspose3d(2, 3, 3, stride=2), (3, 3, 3)),
}


def dense(layer: nn.Module, size: tuple[int, ...]) -> Tensor:
    """Matrix of a convolution without its bias, from images of single ones; columns are outputs."""
    channels = layer.in_channels
    ones = torch.eye(channels * math.prod(size), dtype=torch.float64).view(-1, channels, *size)  # type: ignore[operator]
    with torch.no_grad():
        return (layer(ones) - layer(torch.zeros_like(ones[:1]))).flatten(1)


def dense_norm(layer: nn.Module, size: tuple[int, ...]) -> float:
    return float(torch.linalg.matrix_norm(dense(layer, size), 2))


def example(layer: nn.Module, size: tuple[int, ...]) -> tuple[Tensor]:
    return (torch.zeros(1, layer.in_channels, *size).to(layer.weight),)  # type: ignore[arg-type, operator]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("choice", ["sn_conv", "srn_conv"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float64, 1e-8)])
def test_the_norm_is_that_of_the_dense_matrix(case: str, choice: str, dtype: torch.dtype, tolerance: float) -> None:
    """After refresh_: norm 1 of the layer in use, and of its baked copy; the stable rank is at most c * min."""
    make, size = CASES[case]
    torch.manual_seed(0)
    layer = make().to(dtype)
    raw = dense_norm(copy.deepcopy(layer).double(), size)
    (row,) = spectra(layer, example(layer, size))
    assert row.operator_norm == pytest.approx(raw, rel=1e-5)
    normalize(layer, choice, example=example(layer, size), **({"c": 0.5} if choice == "srn_conv" else {}))
    assert isinstance(layer.parametrizations.weight[0], ConvolutionSpectralNorm)  # type: ignore[index, union-attr]
    refresh_(layer)
    assert dense_norm(bake(layer).double(), size) == pytest.approx(1, abs=tolerance)
    (row,) = spectra(layer)
    assert row.operator_norm == pytest.approx(1, abs=5e-4)
    assert row.operator_ratio == pytest.approx(1 / row.normalized_sigma, rel=5e-4)
    if row.target_rank is not None:
        assert row.normalized_stable_rank <= row.target_rank * (1 + 1e-5)


def test_a_scale_is_the_norm_of_every_layer() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 5 * 5, 2)).double()
    normalize(network, "sn_conv", scale=1.4, example=(torch.zeros(1, 3, 5, 5, dtype=torch.float64),))
    refresh_(network)
    conv, _, linear = bake(network)
    assert dense_norm(conv, (5, 5)) == pytest.approx(1.4)
    assert float(torch.linalg.matrix_norm(linear.weight.detach(), 2)) == pytest.approx(1.4)
    assert spectra(network)[0].operator_norm == pytest.approx(1.4)


@pytest.mark.parametrize("update", ["step", "forward"])
def test_power_iteration_reaches_the_dense_norm(update: str) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 4, 3, stride=2, padding=1, dtype=torch.float64)
    convolution_spectral_norm(layer, update=update, n_power_iterations=2, input_size=(8, 8))
    for _ in range(100):
        update_(layer) if update == "step" else layer.weight
    assert dense_norm(bake(layer), (8, 8)) == pytest.approx(1, abs=1e-8)
    torch.testing.assert_close(layer.eval().weight, bake(layer).weight, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("into", "out", "side"), [(3, 16, 3), (16, 16, 3), (8, 4, 5)])
def test_the_norm_is_at_most_the_root_of_the_kernels_size_times_sigma(into: int, out: int, side: int) -> None:
    """Between sigma and sqrt(kh * kw) sigma at zero padding; equal to the bound for equal kernels on a large input."""
    layer = nn.Conv2d(into, out, side, padding=side // 2)
    (row,) = spectra(layer, example(layer, (9, 9)))
    assert row.operator_ratio is not None
    assert 1 <= row.operator_ratio < side
    nn.init.ones_(layer.weight)
    (row,) = spectra(layer, example(layer, (64, 64)))
    assert row.operator_ratio == pytest.approx(side, rel=0.03)


@pytest.mark.parametrize("choice", ["sn_conv", "srn_conv"])
@pytest.mark.parametrize("case", ["stride 2, even", "transposed, stride 2", "circular"])
def test_derivatives(choice: str, case: str) -> None:
    """gradcheck and gradgradcheck with x and y constant."""
    make, size = CASES[case]
    layer = make().double()
    normalize(layer, choice, example=example(layer, size), **({"c": 0.5} if choice == "srn_conv" else {}))
    norm = layer.parametrizations.weight[0]  # type: ignore[index, union-attr]
    weight = layer.parametrizations.weight.original.detach().clone().requires_grad_()  # type: ignore[union-attr]
    assert torch.autograd.gradcheck(norm, (weight,))
    assert torch.autograd.gradgradcheck(norm, (weight,))


def discriminator(choice: str) -> nn.Module:
    network = ResNetDiscriminator(channels=4).to(memory_format=torch.channels_last)
    return normalize(network, choice, example=(torch.zeros(1, 3, 32, 32),))


@pytest.mark.parametrize("choice", ["sn_conv", "srn_conv"])
def test_a_checkpoint_restores_weights_and_gradients_bit_for_bit(choice: str) -> None:
    """In a network of other weights, which then trains on alike; G is not saved."""
    torch.manual_seed(0)
    network, images = discriminator(choice), torch.randn(2, 3, 32, 32)
    for _ in range(2):
        update_(network)
    saved = copy.deepcopy(network.state_dict())
    assert not any(key.endswith("_g") for key in saved)
    fresh = discriminator(choice)
    fresh.load_state_dict(saved)
    for _ in range(2):
        gradients = [torch.autograd.grad(each(images).sum(), list(each.parameters())) for each in (network, fresh)]
        assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
        update_(network)
        update_(fresh)


def test_convolutions_are_measured_where_the_network_uses_them() -> None:
    """Sizes before pooling, also of layers that blocks compute together with it; 1x1 and linear layers as by sn."""
    network = discriminator("sn_conv")
    sizes = {
        found.name: found.parametrization.convolution.input_size  # type: ignore[attr-defined]
        for found in normalized_weights(network)
        if isinstance(found.parametrization, ConvolutionSpectralNorm)
    }
    sides = {"blocks.0": (32, 32), "blocks.1": (16, 16), "blocks.2": (8, 8), "blocks.3": (8, 8)}
    assert sizes == {f"{block}.{conv}": side for block, side in sides.items() for conv in ("conv1", "conv2")}
    assert BatchedNormalization(network).one_by_one == ["ConvolutionSpectralNorm"]
    rows = {row.name: row for row in spectra(network)}
    assert {name for name, row in rows.items() if "operator_norm" in row.record()} == sizes.keys()
    assert rows["blocks.0.conv1"].record() == rows["blocks.0.conv1"]._asdict()


@pytest.mark.parametrize("fused", [convolve_then_downsample, upsample_then_convolve])
def test_blocks_run_forward_hooks(fused: Callable[[nn.Conv2d, Tensor], Tensor]) -> None:
    """With a hook the plain form is computed, which is equal up to rounding."""
    conv, x = conv3x3(3, 4), torch.randn(2, 3, 8, 8)
    expected, seen = fused(conv, x), []
    hook = conv.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape[-1]))
    torch.testing.assert_close(fused(conv, x), expected, rtol=1e-4, atol=1e-5)
    assert seen == [8 if fused is convolve_then_downsample else 16]
    hook.remove()
    assert torch.equal(fused(conv, x), expected)


class Pyramid(nn.Module):
    """Applies one convolution at two sizes, and another with the same weight at one; a third is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.tied, self.unused = (nn.Conv2d(2, 2, 3, padding=1, dtype=torch.float64) for _ in range(3))
        self.tied.weight = self.shared.weight
        self.dropout = nn.Dropout()

    def forward(self, images: Tensor) -> Tensor:
        half = nn.functional.avg_pool2d(images, 2)
        return self.shared(images).sum() + self.shared(half).sum() + self.tied(self.dropout(half)).sum()


def test_layers_called_at_several_sizes_and_tied_ones() -> None:
    """The largest input counts; layers of one weight at two sizes have norms of their own, also when baked."""
    images = torch.zeros(1, 2, 8, 8, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"^unused: the norm of this convolution .* example=\(images,\), or leave"):
        normalize(Pyramid(), "sn_conv", example=(images,))
    network = normalize(Pyramid(), "sn_conv", example=(images,), exclude="unused")
    assert network.training
    assert network.dropout.training
    refresh_(network)
    baked = bake(network)
    assert dense_norm(baked.shared, (8, 8)) == pytest.approx(1, abs=1e-8)  # type: ignore[arg-type]
    assert dense_norm(baked.tied, (4, 4)) == pytest.approx(1, abs=1e-8)  # type: ignore[arg-type]
    assert [row.operator_norm is None for row in spectra(network)] == [False, False, True]


def test_a_checkpoint_of_sn_needs_a_refresh() -> None:
    theirs, ours = spectral_norm(nn.Conv2d(3, 4, 3)), convolution_spectral_norm(nn.Conv2d(3, 4, 3), input_size=(6, 6))
    missing, unexpected = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert (sorted(key.rpartition(".")[2] for key in missing), unexpected) == (["_x", "_y"], [])
    refresh_(ours)
    assert dense_norm(bake(ours).double(), (6, 6)) == pytest.approx(1, abs=2e-6)
    with pytest.raises(RuntimeError, match=r"size mismatch for .*_x"):
        ours.load_state_dict(convolution_spectral_norm(nn.Conv2d(3, 4, 3), input_size=(7, 7)).state_dict())


@pytest.mark.parametrize("choice", ["sn_conv", "srn_conv"])
def test_one_compiled_graph(choice: str) -> None:
    """Gradients equal eager ones, with update_ outside."""
    torch.compiler.reset()
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 6)
    eager = normalize(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)), choice, example=(x,))
    compiled = torch.compile(eager, fullgraph=True, backend="aot_eager")
    update_(eager)
    gradients = [torch.autograd.grad(each(x).square().sum(), list(eager.parameters())) for each in (eager, compiled)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(other, one)


def test_a_basis_that_is_full_starts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large inputs keep few vectors; the norm is the same."""
    layer = nn.Conv2d(3, 4, 3, padding=1)
    (expected,) = spectra(layer, example(layer, (12, 12)))
    monkeypatch.setattr(singular, "BASIS_SIZE", 1)
    (row,) = spectra(layer, example(layer, (12, 12)))
    assert row.operator_norm == pytest.approx(expected.operator_norm, rel=1e-5)


PERIODIC: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "even and odd": (lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), (6, 5)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular", groups=2), (4, 4)),
    "kernel as large as the input": (lambda: nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), (3, 3)),
    "1d": (lambda: nn.Conv1d(3, 2, 5, padding=2, padding_mode="circular"), (9,)),
    "3d": (lambda: nn.Conv3d(2, 2, 3, padding=1, padding_mode="circular"), (3, 4, 3)),
}


@pytest.mark.parametrize("case", PERIODIC)
def test_the_spectrum_of_a_periodic_convolution(case: str) -> None:
    """All singular values of the dense matrix; the largest is the norm of sn_conv with circular padding."""
    make, size = PERIODIC[case]
    layer: Any = make().double()
    found = convolution_spectrum(layer.weight, size, groups=layer.groups)
    torch.testing.assert_close(found, torch.linalg.svdvals(dense(layer, size)), rtol=0, atol=1e-12)
    (row,) = spectra(layer, example(layer, size))
    assert float(found[0]) == pytest.approx(row.operator_norm, rel=1e-6)


def test_spectra_by_hand() -> None:
    """A shift is orthogonal; a sum over a window has |sin(3 w / 2) / sin(w / 2)|; large kernels wrap around."""
    shift = torch.zeros(1, 1, 3, 3)
    shift[0, 0, 0, 2] = 2
    torch.testing.assert_close(convolution_spectrum(shift, 4), torch.full((16,), 2.0, dtype=torch.float64))
    angles = math.pi * torch.arange(1, 8, dtype=torch.float64) / 8
    expected = torch.cat([torch.tensor([3.0]), (torch.sin(3 * angles) / torch.sin(angles)).abs()])
    torch.testing.assert_close(convolution_spectrum(torch.ones(1, 1, 3), 8), expected.sort(descending=True).values)
    torch.testing.assert_close(
        convolution_spectrum(torch.ones(1, 1, 5), 2), torch.tensor([5.0, 1.0], dtype=torch.float64)
    )


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "no example": (
        lambda: normalize(nn.Sequential(nn.Conv2d(3, 4, 3)), "sn_conv"),
        r"^0: the norm of this convolution depends on the size of its input, .* example=\(images,\)",
    ),
    "example that is no tuple": (
        lambda: normalize(nn.Conv2d(3, 4, 3), "sn_conv", example=torch.zeros(1, 3, 5, 5)),  # type: ignore[arg-type]
        r"^example: got a tensor, expected .* example=\(images,\)",
    ),
    "example of another shape": (
        lambda: normalize(nn.Conv2d(3, 4, 3), "srn_conv", example=(torch.zeros(1, 2, 5, 5),)),
        r"^example: the forward pass of Conv2d fails with arguments \(\(1, 2, 5, 5\)\): .* example=\(images,\)",
    ),
    "two sizes of three": (
        lambda: convolution_spectral_norm(nn.Conv3d(3, 4, 3), input_size=(5, 5)),
        r"^input_size: got \(5, 5\), expected a positive whole number, or 3 of them",
    ),
    "zero on this size": (
        lambda: convolution_spectral_norm(corner(), input_size=(1, 1)),
        r"^the convolution is zero on inputs of size \(1, 1\), .* exclude",
    ),
    "setting of another": (
        lambda: convolution_stable_rank_norm(nn.Conv2d(3, 4, 3), input_size=(5, 5), c=2),
        "^c: got 2",
    ),
    "spectrum of a matrix": (lambda: convolution_spectrum(torch.ones(3, 3), 4), "^weight: got shape"),
    "spectrum of other groups": (lambda: convolution_spectrum(torch.ones(3, 3, 3), 4, groups=2), "and 2 groups"),
    "size of a fraction": (
        lambda: convolution_spectral_norm(nn.Conv2d(3, 4, 3), input_size=(5.7, 5)),  # type: ignore[arg-type]
        r"^input_size: got \(5.7, 5\), expected",
    ),
    "spectrum of a size of a fraction": (
        lambda: convolution_spectrum(torch.ones(3, 3, 3), 2.5),  # type: ignore[arg-type]
        r"^input_size: got 2.5, expected",
    ),
    "spectrum of NaN": (lambda: convolution_spectrum(torch.ones(3, 3, 3) * math.nan, 4), "^weight: .* not finite"),
    "no tensor": (
        lambda: normalize(nn.Conv2d(3, 4, 3), "sn_conv", example=(None,)),
        r"^example: the forward pass of Conv2d fails with arguments \(None\)",
    ),
    "no tuple": (
        lambda: normalize(nn.Conv2d(3, 4, 3), "sn_conv", example=3),  # type: ignore[arg-type]
        r"^example: got 3, expected the arguments of a forward pass",
    ),
    "smaller than the kernel": (
        lambda: convolution_spectral_norm(nn.Conv2d(3, 4, 3), input_size=(2, 2)),
        r"^input_size \(2, 2\): the convolution fails on inputs of this size: ",
    ),
    "smaller than its reflection": (
        lambda: convolution_spectral_norm(nn.Conv1d(3, 4, 5, padding=2, padding_mode="reflect"), input_size=2),
        r"^input_size \(2,\): the convolution fails on inputs of this size: ",
    ),
    "spectrum of a wrong size": (lambda: convolution_spectrum(torch.ones(3, 3, 3), (4, 4)), "^input_size: got"),
}


def corner() -> nn.Module:
    """Convolution of which a single padded pixel meets zeros only."""
    layer = nn.Conv2d(1, 1, 3, padding=1)
    with torch.no_grad():
        layer.weight.zero_()[0, 0, 0, 0] = 1
    return layer


@pytest.mark.parametrize("case", WRONG)
def test_wrong_use_is_refused(case: str) -> None:
    call, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        call()


class ByName(nn.Module):
    """Calls its convolution by the name of the argument."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.conv(input=images)
        return result


def test_sizes_of_named_inputs_and_by_one_number() -> None:
    norms = [
        normalize(ByName(), "sn_conv", example=(torch.zeros(1, 3, 5, 5),)),
        convolution_spectral_norm(nn.Conv2d(3, 4, 3), input_size=5),
    ]
    found = [weight.parametrization for norm in norms for weight in normalized_weights(norm)]
    assert [norm.convolution.input_size for norm in found] == [(5, 5)] * 2  # type: ignore[attr-defined]
