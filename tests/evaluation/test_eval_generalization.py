"""Tests of generalization measures: toy values, closed forms, finite differences, invariances, errors."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from random_tensors import points, seeded
from torch import Tensor, nn
from torchvision.models import vit_b_16

from evaluation import EvaluationError, empirical_lipschitz, jacobian_norms
from evaluation.generalization import (
    Complexity,
    Margin,
    complexity,
    global_lipschitz,
    layer_spectra,
    local_lipschitz,
    log_jac_norm,
    log_spec_fro,
    log_spec_l1,
    margins,
    noise_sensitivity,
    plot_complexity,
    plots,
    sensitivity_to,
)


def linear(matrix: list[list[float]] | Tensor) -> nn.Linear:
    """Float64 classifier x -> W x."""
    weight = torch.as_tensor(matrix, dtype=torch.float64)
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False).double()
    layer.weight.data = weight
    return layer


def identities(size: int, layers: int) -> nn.Sequential:
    return nn.Sequential(*(linear(torch.eye(size)) for _ in range(layers)))


class Residual(nn.Module):
    """Smooth float64 classifier with a shortcut, batch normalization and two layers that share their input."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.conv = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.bn = nn.BatchNorm2d(6)
        self.shortcut = nn.Conv2d(4, 6, 1, stride=2)
        self.head = nn.Linear(6, 5)
        nn.init.uniform_(self.bn.weight, 0.5, 2)
        self.bn.running_mean.uniform_(-1, 1)
        self.double()

    def hidden(self, images: Tensor) -> list[Tensor]:
        first = F.softplus(self.stem(images))
        return [first, self.second(first)]

    def second(self, first: Tensor) -> Tensor:
        return F.silu(self.bn(self.conv(first)) + self.shortcut(first)).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.hidden(images)[-1])


@pytest.fixture
def network() -> Residual:
    return seeded(Residual).train()  # type: ignore[return-value]


LABELS = torch.tensor([0, 1, 2, 3, 4, 0, 1])


def right(network: nn.Module, images: Tensor) -> Tensor:
    """Labels predicted by the network, so that all margins are positive."""
    training = network.training
    found = network.eval()(images).argmax(1)
    network.train(training)
    return found


def test_the_toy_network_of_two_identities() -> None:
    """W1 = W2 = I, x = (3, 1), y = 0: margin 2, Spec-Fro 1 * 4 / 4, Spec-L1 (2 * 2^(2/3))^3 / 4, one hidden layer."""
    found = complexity(identities(2, 2), torch.tensor([[3.0, 1.0]], dtype=torch.float64), torch.tensor([0]))
    assert float(found.margin) == pytest.approx(2, abs=1e-12)
    assert math.exp(found.spec_fro) == pytest.approx(1, abs=1e-12)
    assert math.exp(found.spec_l1) == pytest.approx(8, abs=1e-12)
    assert math.exp(found.jac_norm) == pytest.approx(5**0.5, abs=1e-12)
    assert found.excluded == 0


@pytest.mark.parametrize(("size", "layers"), [(2, 1), (3, 4), (5, 300)])
def test_identities_in_closed_form(size: int, layers: int) -> None:
    """Spec-Fro is L n / margin^2, Spec-L1 L^3 n^2 / margin^2, Jac-Norm (L - 1) |x| sqrt(2) / margin."""
    x = torch.arange(size, 0, -1, dtype=torch.float64)[None]
    found = complexity(identities(size, layers), x, torch.tensor([0]))  # margin 1
    assert float(found.spec_fro) == pytest.approx(math.log(layers * size), abs=1e-10)
    assert float(found.spec_l1) == pytest.approx(math.log(layers**3 * size**2), abs=1e-10)
    expected = math.log((layers - 1) * float(x.norm()) * 2**0.5) if layers > 1 else -math.inf
    assert float(found.jac_norm) == pytest.approx(expected, abs=1e-10)


def test_products_over_many_layers_leave_the_range_of_floats_but_not_of_logarithms() -> None:
    """300 layers of 100 I: the product of the squared norms is 1e1200."""
    network = nn.Sequential(*(linear(100 * torch.eye(2)) for _ in range(300)))
    assert log_spec_fro(layer_spectra(network)) == pytest.approx(1200 * math.log(10) + math.log(600), rel=1e-12)


def test_spectral_measures_are_those_of_numpy(network: Residual) -> None:
    layers = layer_spectra(network)
    assert [layer.name for layer in layers] == ["stem", "conv", "shortcut", "head"]
    matrices = [network.get_submodule(layer.name).weight.detach().flatten(1).numpy() for layer in layers]
    for layer, matrix in zip(layers, matrices, strict=True):
        assert layer.shape == matrix.shape
        values = np.linalg.svd(matrix, compute_uv=False)
        assert layer.singular_values.numpy() == pytest.approx(values, rel=1e-7)
        assert layer.spectral_norm == pytest.approx(values[0], rel=1e-12)
        assert layer.stable_rank == pytest.approx((matrix**2).sum() / values[0] ** 2, rel=1e-12)
    sigmas = np.array([np.linalg.norm(matrix, 2) for matrix in matrices])
    product = np.prod(sigmas**2)
    ranks = sum((matrix**2).sum() / sigma**2 for matrix, sigma in zip(matrices, sigmas, strict=True))
    assert math.exp(log_spec_fro(layers)) == pytest.approx(product * ranks, rel=1e-10)
    for columns in (False, True):
        norms = np.array([np.linalg.norm(matrix, axis=0 if columns else 1).sum() for matrix in matrices])
        relative = product * ((norms / sigmas) ** (2 / 3)).sum() ** 3
        absolute = product * (norms ** (2 / 3)).sum() ** 3
        assert math.exp(log_spec_l1(layers, columns=columns)) == pytest.approx(relative, rel=1e-10)
        assert math.exp(log_spec_l1(layers, columns=columns, relative=False)) == pytest.approx(absolute, rel=1e-10)


def test_scaling_a_layer_is_seen_only_by_the_product(network: Residual) -> None:
    before = layer_spectra(network)
    network.conv.weight.data *= 7
    after = layer_spectra(network)
    shift = 2 * math.log(7)
    assert log_spec_fro(after) - log_spec_fro(before) == pytest.approx(shift, abs=1e-10)
    assert log_spec_l1(after) - log_spec_l1(before) == pytest.approx(shift, abs=1e-10)


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_spectra_at_the_ends_of_the_range(scale: float) -> None:
    (layer,) = layer_spectra(linear(scale * torch.tensor([[2.0, 0, 0], [0, 1, 0]], dtype=torch.float64)))
    assert (layer.singular_values / scale).tolist() == pytest.approx([2, 1])
    assert layer.stable_rank == pytest.approx(1.25)


def test_a_transposed_convolution_is_read_by_its_output_units() -> None:
    layer = nn.ConvTranspose2d(4, 6, 3)
    assert layer_spectra(layer)[0].shape == (6, 36)


def test_parametrized_weights_are_taken_as_used_and_left_alone() -> None:
    layer = seeded(lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(6, 4))).train()
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    found = layer_spectra(layer)[0].spectral_norm
    assert layer.training
    assert all(torch.equal(before[name], tensor) for name, tensor in layer.state_dict().items())
    assert found == pytest.approx(float(torch.linalg.matrix_norm(layer.eval().weight.detach(), 2)), rel=1e-5)


def test_margins_are_the_gap_to_the_next_class() -> None:
    x = torch.tensor([[3.0, 1, 2], [3, 1, 2], [1, 1, 0], [5, 5, 5]], dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 2])
    network = linear(torch.eye(3))
    assert margins(network, x, labels).tolist() == [1, -2, 0, 0]
    found = complexity(network, x, labels)
    assert found.excluded == 0.75
    for measure in (found.spec_fro, found.spec_l1, found.jac_norm):
        assert measure.isnan().tolist() == [False, True, True, True]
    assert found.percentile()["spec_fro"] == pytest.approx(float(found.spec_fro[0]))
    assert all(math.isnan(value) for value in complexity(network, x[1:], labels[1:]).percentile().values())


def test_the_percentile_is_numpys_over_the_images_with_a_value() -> None:
    margin = torch.tensor([1.0, -1, 2, 3])
    values = torch.tensor([1.0, torch.nan, 5, 2])
    found = Complexity(margin, values, values + 1, values + 2)
    expected = np.percentile([1, 5, 2], 90)
    assert found.percentile(90) == pytest.approx(
        {"spec_fro": expected, "spec_l1": expected + 1, "jac_norm": expected + 2}
    )


def test_jac_norm_is_that_of_finite_differences(network: Residual) -> None:
    """Hidden layers are the inputs shared by the second convolution and the shortcut, and the head's input."""
    images = points(3)
    labels = right(network, images)
    found = log_jac_norm(network, images, labels).exp()
    network.eval()
    first, second = (one.detach() for one in network.hidden(images))
    rests = (lambda h: network.head(network.second(h)), network.head)
    with torch.no_grad():
        margin = Margin(network)(images, labels)
        expected = torch.zeros(3, dtype=torch.float64)
        for hidden, rest in zip((first, second), rests, strict=True):
            slope = finite_differences(Margin(rest), hidden, labels)  # type: ignore[arg-type]
            expected += hidden.flatten(1).norm(dim=1) * slope.flatten(1).norm(dim=1) / margin
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-6)


def finite_differences(function: Callable[[Tensor, Tensor], Tensor], x: Tensor, labels: Tensor) -> Tensor:
    """Gradient (N, ...) of function(x, labels) (N,) by x from central differences, entry by entry."""
    slope, step = torch.zeros_like(x), 1e-5
    for place in np.ndindex(*x.shape[1:]):
        rows = (slice(None), *place)
        moved = [x.clone(), x.clone()]
        moved[0][rows] += step
        moved[1][rows] -= step
        slope[rows] = (function(moved[0], labels) - function(moved[1], labels)) / (2 * step)
    return slope


class InPlace(nn.Module):
    """Activations that overwrite a layer's input, which autograd allows with frozen weights."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(4)).double()
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        h = self.layers[0](x)
        seen = self.layers[1](h)
        h = F.relu(h, inplace=self.inplace)
        return self.layers[3](F.relu(self.layers[2](h) + seen, inplace=self.inplace))


def test_activations_in_place_change_nothing() -> None:
    networks = [seeded(lambda inplace=inplace: InPlace(inplace)).requires_grad_(False) for inplace in (False, True)]
    x = points(5, shape=(6,))
    labels = right(networks[0], x)
    plain, inplace = (log_jac_norm(network, x, labels) for network in networks)
    assert plain.isfinite().all()
    torch.testing.assert_close(inplace, plain, rtol=1e-12, atol=0)


def test_a_layer_called_twice_has_two_hidden_layers() -> None:
    layer = linear(torch.eye(2))
    x, labels = torch.tensor([[3.0, 1.0]], dtype=torch.float64), torch.tensor([0])
    assert math.exp(log_jac_norm(nn.Sequential(layer, layer, layer), x, labels)) == pytest.approx(2 * 5**0.5)


MEASURES: dict[str, Callable[..., tuple[Tensor, ...]]] = {
    "complexity": lambda network, x, **size: complexity(network, x, LABELS, **size),
    "noise": lambda network, x, **size: noise_sensitivity(network, x, draws=3, **size),
    "local": lambda network, x, **size: local_lipschitz(network, x, **size),
    "global": lambda network, x, **size: global_lipschitz(network, x, x.flip(0) + 1, **size),
}


@pytest.mark.parametrize("measure", MEASURES)
def test_measures_depend_on_no_batches_and_leave_the_network_alone(network: Residual, measure: str) -> None:
    images = points(7)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    random = torch.random.get_rng_state()
    one, other = (MEASURES[measure](network, images, batch_size=size) for size in (3, 100))
    for first, second in zip(one, other, strict=True):
        assert first.shape == (7,)
        assert first.dtype == torch.float64
        torch.testing.assert_close(first, second, rtol=1e-10, atol=0, equal_nan=True)
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_pre_hooks for module in network.modules())
    assert torch.equal(torch.random.get_rng_state(), random)


DIRECTIONS = [([1.0, 1.0], 2.0), ([1.0, 0.0], 1.25), ([0.0, 1.0], 5.0), ([0.0, -3.0], 5.0)]


def test_noise_sensitivity_of_a_diagonal_map() -> None:
    """|W|_F^2 |x|^2 / |W x|^2, exactly: sqrt(2) e_1 and sqrt(2) e_2 have the second moments of normal noise."""
    x = torch.tensor([direction for direction, _ in DIRECTIONS], dtype=torch.float64)
    noises = [2**0.5 * torch.eye(2, dtype=torch.float64)[row].expand(4, 2) for row in (0, 1)]
    network = linear([[2.0, 0.0], [0.0, 1.0]])
    expected = [value for _, value in DIRECTIONS]
    exact = sensitivity_to(network, x, noises)
    assert exact.sensitivity.tolist() == pytest.approx(expected, abs=1e-12)
    assert exact.maximum == pytest.approx(5)
    drawn = noise_sensitivity(network, x, draws=2000)
    assert ((drawn.sensitivity - exact.sensitivity).abs() < 5 * drawn.standard_error).all()
    assert (drawn.standard_error < 0.1 * exact.sensitivity).all()


def test_noise_sensitivity_is_at_least_the_stable_rank() -> None:
    """For a linear map, with equality at its first right singular vector."""
    weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    network = linear(weight)
    first = torch.linalg.svd(weight).Vh[:1]
    x = torch.cat([first, points(50, shape=(6,))])
    frame = [6**0.5 * row.expand(51, 6) for row in torch.eye(6, dtype=torch.float64)]
    found = sensitivity_to(network, x, frame).sensitivity
    rank = layer_spectra(network)[0].stable_rank
    assert float(found[0]) == pytest.approx(rank, rel=1e-10)
    assert (found[1:] > rank).all()


def test_noise_follows_the_seed(network: Residual) -> None:
    images = points(4)
    one, again, other = (noise_sensitivity(network, images, draws=2, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.sensitivity, again.sensitivity)
    assert not torch.equal(one.sensitivity, other.sensitivity)
    assert noise_sensitivity(network, images, draws=1).standard_error.isnan().all()
    with pytest.raises(EvaluationError, match="got 0 draws, expected at least 1"):
        noise_sensitivity(network, images, draws=0)


def test_lipschitz_constants_of_a_linear_map_are_its_norms() -> None:
    weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    x, y = points(5, shape=(6,)), points(5, seed=1, shape=(6,))
    y[0] = x[0]
    y[1] = x[1] + torch.linalg.svd(weight).Vh[0]
    local = local_lipschitz(linear(weight), x)
    spectral, frobenius = (float(torch.linalg.matrix_norm(weight, order)) for order in (2, "fro"))
    assert local.spectral.tolist() == pytest.approx([spectral] * 5, rel=1e-10)
    assert local.frobenius.tolist() == pytest.approx([frobenius] * 5, rel=1e-10)
    ratios = global_lipschitz(linear(weight), x, y)
    assert ratios.ratio[0].isnan()
    assert float(ratios.ratio[1]) == pytest.approx(spectral, rel=1e-10)
    assert (ratios.ratio[2:] < spectral).all()
    torch.testing.assert_close(ratios.difference[1:], ((x - y) @ weight.T).norm(dim=1)[1:], rtol=1e-10, atol=0)


def test_the_local_constant_is_the_global_one_of_a_small_step(network: Residual) -> None:
    images = points(4)
    network.eval()
    jacobians = [torch.autograd.functional.jacobian(network, one[None])[0].flatten(1) for one in images]
    jacobians = torch.stack(jacobians)  # (4, 5, 192)
    expected = torch.linalg.svd(jacobians, full_matrices=False)
    local = local_lipschitz(network, images)
    torch.testing.assert_close(local.spectral, expected.S[:, 0], rtol=1e-10, atol=0)
    torch.testing.assert_close(local.frobenius, jacobians.flatten(1).norm(dim=1), rtol=1e-10, atol=0)
    steps = 1e-6 * expected.Vh[:, 0].view(images.shape)
    ratios = global_lipschitz(network, images, images + steps).ratio
    torch.testing.assert_close(ratios, local.spectral, rtol=1e-4, atol=0)


def test_a_margin_is_a_critic_of_evaluation(network: Residual) -> None:
    """Prop. B.1: the ratio of a pair is at most the largest gradient on the segment between them."""
    x, labels = points(3), LABELS[:3]
    y = x + 0.01 * points(3, seed=1)
    ratios = empirical_lipschitz(Margin(network), x, y, labels)
    segment = torch.cat([x + share * (y - x) for share in torch.linspace(0, 1, 11)])
    norms = jacobian_norms(Margin(network), segment, labels.repeat(11)).view(11, 3)
    assert (ratios <= norms.max(0).values * (1 + 1e-3)).all()
    assert (ratios > 0).all()


class Noisy(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.rand(2)


class Batchwise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


class Detaching(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.detach())


PLAIN = torch.zeros(2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("network", "x", "labels", "message"),
    [
        (identities(2, 1), points(2, shape=(2,)), torch.tensor([0, 2]), "labels: got 2 for 2 logits, expected smaller"),
        (identities(2, 1), points(2, shape=(2,)), torch.tensor([0]), r"classifier's labels: got int64 \(1,\)"),
        (identities(2, 1), points(2, shape=(2,)).long(), PLAIN, "classifier's images: got int64, expected float32"),
        (identities(2, 1), torch.full((2, 2), torch.nan), PLAIN, "classifier's images: got values that are not finite"),
        (linear([[1.0, 2.0]]), points(2, shape=(2,)), PLAIN, r"got \(2, 1\) for 2 images, expected logits \(2, num"),
        (linear([[math.inf, 1.0], [1, 1]]), points(2, shape=(2,)), PLAIN, "logits that are not finite"),
        (nn.Sequential(linear(torch.eye(2)), Batchwise()), points(2, shape=(2,)), PLAIN, "depend on the other images"),
        (Detaching(linear(torch.eye(2))), points(2, shape=(2,)), PLAIN, "without a gradient with respect to the image"),
        (Noisy(2, 2).double(), points(2, shape=(2,)), PLAIN, "got different logits for the same images"),
        (nn.Softmax(1), points(2, shape=(2,)), PLAIN, "got no linear and no convolution layer"),
        (linear(torch.zeros(2, 2)), points(2, shape=(2,)), PLAIN, "the weight of the layer is all zero"),
    ],
)
def test_what_cannot_be_measured_is_refused(network: nn.Module, x: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        complexity(network, x, labels)


def test_pairs_must_fit(network: Residual) -> None:
    with pytest.raises(EvaluationError, match="expected one shape"):
        global_lipschitz(network, points(2), points(3))


def test_weights_outside_of_layers_are_refused() -> None:
    with torch.device("meta"):
        network = vit_b_16()
    with pytest.raises(EvaluationError, match=r"got the weight class_token \(1, 1, 768\) outside of linear"):
        layer_spectra(network)


def test_hidden_layers_of_another_form_are_refused() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x).flatten(0, 1)).unflatten(0, (len(x), -1)).mean(1)

    with pytest.raises(EvaluationError, match=r"got shape \(10, 4\) for 2 images before layer second"):
        log_jac_norm(Positions(), torch.rand(2, 5, 4), PLAIN)


def normal_complexity(mean: float, seed: int) -> Complexity:
    values = mean + torch.randn(400, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values[:10] = torch.nan
    return Complexity(torch.where(values.isnan(), -1.0, 1.0), values, values + 3, values - 5)


def test_histograms_have_a_panel_for_each_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Densities integrate to the share of values inside the bins; dashed lines are the 90th percentiles."""
    figures = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: figures.append(figure))
    runs = {"SRN-30": normal_complexity(7, 1), "SN": normal_complexity(9, 2)}
    plot_complexity(runs, tmp_path / "figure4.png")
    (figure,) = figures
    assert [axes.get_title() for axes in figure.axes] == ["log Jac-Norm", "log Spec-L1", "log Spec-Fro"]
    for axes, measure in zip(figure.axes, plots.ORDER, strict=True):
        outlines = [patch for patch in axes.patches if not patch.get_fill()]
        assert [patch.get_label().split(": 90th percentile ")[0] for patch in outlines] == list(runs)
        for patch in outlines:
            heights, edges, _ = patch.get_data()
            assert 0.98 < float((heights * np.diff(edges)).sum()) <= 1
        lines = [float(line.get_xdata()[0]) for line in axes.lines]
        assert lines == [run.percentile(90)[measure] for run in runs.values()]


def test_histograms_are_written_to_a_file(tmp_path: Path) -> None:
    file = tmp_path / "figure4.png"
    plot_complexity({"constant": Complexity(*(torch.ones(3) for _ in range(4)))}, file)
    assert file.stat().st_size > 1000
    with pytest.raises(EvaluationError, match="got no runs"):
        plot_complexity({}, file)
    nothing = Complexity(-torch.ones(3), *(torch.full((3,), torch.nan) for _ in range(3)))
    with pytest.raises(EvaluationError, match="got no finite log Jac-Norm of wrong"):
        plot_complexity({"wrong": nothing}, file)


def test_groups_are_blocks_of_one_matrix() -> None:
    """Grouped convolutions, forward and transposed, equal explicit block-diagonal matrices."""
    torch.manual_seed(0)
    for layer in (nn.Conv2d(4, 6, 3, groups=2), nn.ConvTranspose2d(4, 6, 3, groups=2), nn.Conv2d(4, 4, 3, groups=4)):
        weight = layer.weight.detach().double()
        parts = weight.chunk(layer.groups)
        if isinstance(layer, nn.ConvTranspose2d):
            parts = tuple(part.transpose(0, 1) for part in parts)
        whole = torch.block_diag(*(part.flatten(1) for part in parts))
        (found,) = layer_spectra(nn.Sequential(layer))
        assert found.shape == tuple(whole.shape)
        assert found.shape[0] == layer.out_channels
        torch.testing.assert_close(found.singular_values, torch.linalg.svdvals(whole), rtol=1e-9, atol=1e-12)
        assert found.norm_21_rows == pytest.approx(float(whole.norm(dim=1).sum()))
        assert found.norm_21_columns == pytest.approx(float(whole.norm(dim=0).sum()))


def test_jacobians_larger_than_memory_are_taken_in_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network, images = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), torch.randn(5, 3, 2, 2)
    whole = local_lipschitz(network, images)
    sizes: list[int] = []
    network.register_forward_hook(lambda module, arguments, output: sizes.append(len(output)))
    monkeypatch.setattr("evaluation.generalization.lipschitz.JACOBIAN_ENTRIES", 2 * 3 * 12)
    parts = local_lipschitz(network, images)
    assert sizes[-3:] == [2, 2, 1]
    torch.testing.assert_close(parts.spectral, whole.spectral, rtol=1e-6, atol=0)
