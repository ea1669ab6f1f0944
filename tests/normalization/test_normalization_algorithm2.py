"""Tests of Algorithm 2 of Sanyal et al. 2020 as a parametrization: identities, gradients, limits, drift in training."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gan.normalization import (
    bake,
    normalize,
    refresh_,
    spectra,
    spectral_norm,
    stable_rank,
    stable_rank_norm,
    stable_rank_projection,
    update_,
)
from gan.normalization.stable_rank import lower


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear_with(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer


def original(layer: nn.Module) -> Tensor:
    return layer.parametrizations.weight.original


def normalizer(layer: nn.Module) -> nn.Module:
    return layer.parametrizations.weight[0]


def known_gap(rows: int, columns: int, seed: int = 0) -> Tensor:
    """Matrix with singular values 1, 0.7, 0.49, ..., so that power iteration converges at a known rate."""
    left = torch.linalg.qr(torch.randn(rows, rows, dtype=torch.float64, generator=generator(seed))).Q
    right = torch.linalg.qr(torch.randn(columns, columns, dtype=torch.float64, generator=generator(seed + 1))).Q
    side = min(rows, columns)
    return left[:, :side] @ torch.diag(0.7 ** torch.arange(side, dtype=torch.float64)) @ right[:side]


@given(
    st.integers(2, 12), st.integers(2, 12), st.floats(0.05, 1), st.floats(-4, 4), st.integers(0, 2**31), st.booleans()
)
@settings(max_examples=150, deadline=None)
def test_identities_hold_for_any_unit_vector(
    rows: int, columns: int, t: float, exponent: float, seed: int, double: bool
) -> None:
    """For a random unit v and u = W v / |W v|: the residual is orthogonal to u v^T, |R|_F^2 = |W|_F^2 / sigma^2 - 1,
    |W'|_F^2 = r where active, W' v = u, and norm and stable rank are bounded by delta = s1 / sigma - 1."""
    dtype, tolerance = (torch.float64, 1e-12) if double else (torch.float32, 2e-6)
    weight = (10**exponent * torch.randn(rows, columns, dtype=torch.float64, generator=generator(seed))).to(dtype)
    v = nn.functional.normalize(torch.randn(columns, dtype=torch.float64, generator=generator(seed + 1)), dim=0).to(
        dtype
    )
    u = nn.functional.normalize(weight @ v, dim=0)
    sigma = float(torch.dot(u, weight @ v))
    exact = weight.double()
    delta = float(torch.linalg.matrix_norm(exact, 2)) / sigma - 1
    residual = exact / sigma - torch.outer(u, v).double()
    energy = float(exact.square().sum()) / sigma**2 - 1
    size = 1 + energy
    assert abs(float((residual * torch.outer(u, v)).sum())) < tolerance * math.sqrt(size)
    assert float(residual.square().sum()) == pytest.approx(energy, abs=tolerance * size)
    limit = max(t * energy, 1e-2)
    after = lower(weight, u, v, limit).double()
    gamma = min(1.0, math.sqrt(limit / energy)) if energy > 0 else 1.0
    norm = float(torch.linalg.matrix_norm(after, 2))
    assert norm <= 1 + gamma * delta + tolerance * size
    assert norm >= math.sqrt(1 + gamma**2 * float((u.double() @ residual).square().sum())) - tolerance * size
    if gamma < 1 - tolerance:
        assert float(after.square().sum()) == pytest.approx(1 + limit, rel=tolerance * 10)
        torch.testing.assert_close(after @ v.double(), u.double(), rtol=0, atol=tolerance * math.sqrt(size))
        rank = float(stable_rank(after))
        assert (1 + limit) / (1 + gamma * delta) ** 2 - tolerance * size <= rank <= (1 + limit) * (1 + tolerance * 10)


def test_converged_it_is_algorithm_1_applied_to_the_spectrally_normalized_weight() -> None:
    """With exact vectors it equals Algorithm 1; diag(5, 4, 3) at r = 1.5 becomes 1, 0.8 / sqrt(2), 0.6 / sqrt(2)."""
    layer = stable_rank_norm(linear_with(torch.diag(torch.tensor([5.0, 4, 3], dtype=torch.float64))), c=0.5)
    refresh_(layer)
    expected = torch.tensor([1, 0.8 / 2**0.5, 0.6 / 2**0.5], dtype=torch.float64)
    torch.testing.assert_close(layer.weight, torch.diag(expected), rtol=0, atol=1e-12)
    for rows, columns, c in ((6, 9, 0.2), (9, 6, 0.3), (5, 5, 0.3)):
        weight = torch.randn(rows, columns, dtype=torch.float64, generator=generator(rows))
        layer = stable_rank_norm(linear_with(weight), c=c)
        refresh_(layer)
        exact = stable_rank_projection(weight / torch.linalg.matrix_norm(weight, 2), c * min(rows, columns))
        torch.testing.assert_close(layer.weight, exact.weight, rtol=0, atol=1e-12)


@pytest.mark.parametrize("c", [0.2, 0.5, 0.9])
def test_residual_form_of_the_paper(c: float) -> None:
    """The weight equals the paper's steps in NumPy, at the same unconverged vectors."""
    weight = torch.randn(12, 20, dtype=torch.float64, generator=generator())
    layer = stable_rank_norm(linear_with(weight), c=c, update="step")
    u, v = (vector.double().numpy() for vector in (normalizer(layer)._u, normalizer(layer)._v))
    sigma = u @ weight.numpy() @ v
    leading = np.outer(u, v)
    residual = weight.numpy() / sigma - leading
    allowed = np.sqrt(c * 12 - 1)
    if np.linalg.norm(residual) > allowed:
        residual = residual * allowed / np.linalg.norm(residual)
    np.testing.assert_allclose(layer.weight.detach().numpy(), leading + residual, rtol=0, atol=1e-14)


@pytest.mark.parametrize("update", ["step", "forward"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("case", ["c = 1", "slack", "one row", "r <= 1"])
def test_where_nothing_binds_it_is_spectral_normalization_bit_for_bit(
    update: str, layout: torch.memory_format, case: str
) -> None:
    """Values and gradients equal those of spectral normalization if the bound is not active."""
    channels, c = {"c = 1": (16, 1.0), "slack": (16, 0.99), "one row": (1, 0.7), "r <= 1": (3, 0.3)}[case]
    layers = []
    for norm in (spectral_norm, lambda layer, update: stable_rank_norm(layer, c=c, update=update)):
        torch.manual_seed(0)
        layer = norm(nn.Conv2d(16, channels, 3).to(memory_format=layout), update=update)
        for _ in range(3):
            update_(layer)
        layers.append(layer)
    plain, bounded = layers
    assert not spectra(bounded)[0].active
    assert spectra(bounded)[0].gamma in (None, 1.0)
    assert torch.equal(plain.eval().weight, bounded.eval().weight)
    upstream = torch.randn(plain.weight.shape, generator=generator())
    (expected,) = torch.autograd.grad(plain.weight, original(plain), upstream)
    (got,) = torch.autograd.grad(bounded.weight, original(bounded), upstream)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=2e-6)  # the two sum in different orders


def test_with_c_of_one_it_is_spectral_normalization_at_any_vectors() -> None:
    """Case: an orthogonal matrix far from convergence, where |W|_F^2 / sigma^2 exceeds r = min(rows, columns)."""
    weight = torch.linalg.qr(torch.randn(8, 8, generator=generator())).Q
    plain, bounded = spectral_norm(linear_with(weight)), stable_rank_norm(linear_with(weight), c=1)
    for layer in (plain, bounded):
        normalizer(layer)._u.copy_(nn.functional.normalize(torch.ones(8), dim=0))
        normalizer(layer)._v.copy_(nn.functional.normalize(weight.sum(0) + torch.ones(8), dim=0))
    assert torch.equal(plain.weight, bounded.weight)


@pytest.mark.parametrize(
    ("policy", "rows", "target", "recorded"),
    [("skip", 3, None, "skip"), ("floor", 3, 1.5, "floor"), ("floor", 1, None, "skip"), ("error", 5, 1.5, "bound")],
)
def test_policies_where_r_is_at_most_one(policy: str, rows: int, target: float | None, recorded: str) -> None:
    """Each policy applies and records its bound and keeps a gradient."""
    weight = torch.randn(rows, 8, dtype=torch.float64, generator=generator())
    layer = stable_rank_norm(linear_with(weight), c=0.3, infeasible=policy)
    refresh_(layer)
    (row,) = spectra(layer)
    assert (row.target_rank, row.policy) == (target, recorded)
    if target is not None:
        assert row.active
        assert row.normalized_stable_rank == pytest.approx(target, rel=1e-9)
        assert row.gamma == pytest.approx(math.sqrt((target - 1) / (row.stable_rank - 1)))
    upstream = torch.randn(rows, 8, dtype=torch.float64, generator=generator(1))
    (gradient,) = torch.autograd.grad(layer.weight, original(layer), upstream)
    assert gradient.norm() > 1e-2


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 8])
def test_the_floor_is_a_floor(rows: int) -> None:
    """The bound does not fall as c grows, below and above c * min(rows, columns) = 1."""
    weight = torch.randn(rows, 8, dtype=torch.float64, generator=generator())
    layers = [stable_rank_norm(linear_with(weight), c=c, infeasible="floor") for c in (0.1, 0.3, 0.4, 0.45, 0.6, 1.0)]
    ranks = [normalizer(layer).bound() for layer in layers]
    if rows == 1:
        assert ranks == [None] * 6
    else:
        assert ranks == [*(max(c * rows, 1.5) for c in (0.1, 0.3, 0.4, 0.45, 0.6)), None]
        assert [normalizer(layer).policy() for layer in layers] == [
            "floor" if c * rows < 1.5 else "bound" for c in (0.1, 0.3, 0.4, 0.45, 0.6, 1.0)
        ]


def test_the_error_policy_names_the_layer_and_leaves_the_network_as_it_was() -> None:
    """Layers that were normalized before the failing one are restored."""
    network = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ValueError, match=r"2: r = c \* min\(rows, columns\) = 0.5 \* 1 is at most 1"):
        normalize(network, "srn", c=0.5, infeasible="error")
    assert network.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert type(network[0]) is nn.Linear


def test_the_gradient_dies_as_r_approaches_one() -> None:
    """The gradient falls like sqrt(r - 1), which is why r <= 1 is not clamped to 1."""
    weight = torch.randn(6, 8, dtype=torch.float64, generator=generator())
    u, _, vt = torch.linalg.svd(weight, full_matrices=False)
    upstream = torch.randn(6, 8, dtype=torch.float64, generator=generator(1))
    sizes = []
    for limit in (1e-8, 1e-4, 1e-2, 0.5):
        free = weight.clone().requires_grad_()
        sizes.append(float(torch.autograd.grad(lower(free, u[:, 0], vt[0], limit), free, upstream)[0].norm()))
    assert sizes[0] < 1e-3 * sizes[-1]
    assert sizes[1] / sizes[0] == pytest.approx(100, rel=0.05)


def fixed(c: float, weight: Tensor) -> Callable[[Tensor], Tensor]:
    norm = partial(stable_rank_norm, c=c) if c < 1 else spectral_norm
    return normalizer(norm(linear_with(weight)).eval())  # type: ignore[return-value]


@pytest.mark.parametrize("c", [0.3, 0.8, 1.0])
@pytest.mark.parametrize("shape", [(5, 4), (4, 7), (6, 6)])
def test_first_and_second_derivatives(c: float, shape: tuple[int, int]) -> None:
    """gradcheck and gradgradcheck at fixed u, v, with the bound active and not."""
    weight = torch.randn(shape, dtype=torch.float64, generator=generator(), requires_grad=True)
    formula = fixed(c, weight.detach())
    assert torch.autograd.gradcheck(formula, (weight,))
    assert torch.autograd.gradgradcheck(formula, (weight,))


@pytest.mark.parametrize("on_cpu", [True, False])
@pytest.mark.parametrize("c", [0.3, 0.8])
def test_the_closed_form_of_the_gradient_is_autograds(c: float, on_cpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The eager backward pass is written by hand; compiled and double-differentiated code uses autograd's.

    The code for other devices is also tested here, on tensors that report another device.
    """
    weight = torch.randn(10, 14, dtype=torch.float64, generator=generator(), requires_grad=True)
    formula = fixed(c, weight.detach())
    upstream = torch.randn(10, 14, dtype=torch.float64, generator=generator(1))
    monkeypatch.setattr(torch.Tensor, "is_cpu", on_cpu)
    (written,) = torch.autograd.grad(formula(weight), weight, upstream)
    composite = lower(weight, formula._u, formula._v, formula.rank - 1)  # type: ignore[attr-defined]
    torch.testing.assert_close(composite, formula(weight), rtol=0, atol=1e-14 if c == 0.3 else 0)
    (automatic,) = torch.autograd.grad(composite, weight, upstream)
    torch.testing.assert_close(written, automatic, rtol=0, atol=1e-12)
    assert abs(float((written * weight).detach().sum())) < 1e-12, "W's scale has no effect"


def test_only_spectral_normalization_has_the_gradient_of_its_converged_self() -> None:
    """Autograd through the SVD gives the same gradient for SN; SRN leaves out (1 - gamma) d(u v^T), as documented."""
    weight = known_gap(5, 7).requires_grad_()
    upstream = torch.randn(5, 7, dtype=torch.float64, generator=generator(1))

    def through_svd(limit: float | None) -> Tensor:
        u, s, vt = torch.linalg.svd(weight, full_matrices=False)
        if limit is None:
            return torch.autograd.grad(weight / s[0], weight, upstream)[0]
        gamma = torch.sqrt(limit / (weight.square().sum() / s[0] ** 2 - 1))
        result = gamma * weight / s[0] + (1 - gamma) * torch.outer(u[:, 0], vt[0])
        return torch.autograd.grad(result, weight, upstream)[0]

    gradients = []
    for layer in (spectral_norm(linear_with(weight.detach())), stable_rank_norm(linear_with(weight.detach()), c=0.3)):
        refresh_(layer)
        gradients.append(torch.autograd.grad(layer.weight, original(layer), upstream)[0])
    torch.testing.assert_close(gradients[0], through_svd(None), rtol=0, atol=1e-12)
    cosine = nn.functional.cosine_similarity(gradients[1].flatten(), through_svd(0.5).flatten(), dim=0)
    assert 0.8 < float(cosine) < 0.9999


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()),
        *(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(32, 1)),
    )


def train(network: nn.Module, steps: int) -> None:
    """Trains with hinge steps on noise, with Adam at the paper's learning rate."""
    random = generator()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.0, 0.9))
    for _ in range(steps):
        real, fake = torch.randn(2, 8, 3, 8, 8, generator=random)
        update_(network)
        loss = torch.relu(1 - network(real)).mean() + torch.relu(1 + network(0.5 * fake)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_achieved_stable_rank_after_training() -> None:
    """|achieved / target - 1| is at most 1e-3 after 20 steps and 1e-5 after refresh_ or bake; |W'|_2 <= 1.02."""
    network = normalize(small_network(), "srn", c=0.3)
    at_start = [row for row in spectra(network) if row.active]
    assert all(abs(row.normalized_stable_rank / row.target_rank - 1) < 1e-2 for row in at_start)
    train(network, 20)
    active = [row for row in spectra(network) if row.active]
    assert [row.name for row in active] == ["0", "2"]
    for row in active:
        assert abs(row.normalized_stable_rank / row.target_rank - 1) <= 1e-3, row
    assert all(row.normalized_sigma <= 1.02 for row in spectra(network))
    plain = bake(network)
    refresh_(network)
    for row, baked in zip(spectra(network), spectra(plain), strict=True):
        assert abs(row.normalized_sigma - 1) < 1e-5
        if row.active:
            assert abs(row.normalized_stable_rank / row.target_rank - 1) <= 1e-5, row
            assert abs(baked.stable_rank / row.target_rank - 1) <= 1e-5
            assert row.gamma is not None
            assert 0 < row.gamma < 1
