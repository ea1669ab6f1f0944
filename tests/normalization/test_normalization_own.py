"""Tests of a user-defined normalization: one class, one function, one entry in NORMALIZATIONS, also when batched."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gan import build
from gan.config import Config
from gan.normalization import NORMALIZATIONS, BatchedNormalization, Normalization, SpectralNorm, normalize
from gan.normalization import parametrizations as registering
from gan.training import graph
from gan.training.graph import FastStep, choose_step
from gan.training.trainer import Trainer


class SoftNorm(SpectralNorm):
    """W -> W / sqrt(1 + sigma^2): spectral norm below 1."""

    def normalized(self, weight: Tensor) -> Tensor:
        return weight / (1 + self.sigma(weight).square()).sqrt()


class SoftNormInStacks(SoftNorm):
    """`SoftNorm` with a batched formula."""

    @classmethod
    def stacked(cls, norms: Sequence[SpectralNorm]) -> Callable[..., Tensor]:
        return lambda matrices, sigmas, u, v: matrices / (1 + sigmas[0].square()).sqrt()[:, None, None]


class SoftNormAgain(SoftNormInStacks):
    """Subclass that inherits a batched formula of another class."""

    def sigma(self, weight: Tensor) -> Tensor:
        return 2 * super().sigma(weight)


KINDS = [SoftNorm, SoftNormInStacks, SoftNormAgain]
NOTE = "; SoftNorm: formula computed weight by weight"


def register(monkeypatch: pytest.MonkeyPatch, kind: type[SpectralNorm]) -> None:
    def soft_norm(module: nn.Module, name: str = "weight", **settings: Any) -> nn.Module:
        return registering.register(module, name, partial(kind, **settings))

    monkeypatch.setitem(NORMALIZATIONS, "soft", Normalization(soft_norm, ("n_power_iterations",)))


def trainer(config: Config, *, batched: bool) -> Trainer:
    state = build.build_state(config)
    batches = build.build_batches(config, build.load_images(config, "train"), "cpu")
    loss = build.build_loss(config)
    return Trainer(state, batches, loss, config.train, z_dim=config.generator.z_dim, batched=batched)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_together_equal_weights_one_by_one(monkeypatch: pytest.MonkeyPatch, kind: type[SpectralNorm]) -> None:
    """Compares values and gradients in float64, after power iteration of both."""
    register(monkeypatch, kind)
    torch.manual_seed(0)
    network = normalize(nn.Sequential(nn.Conv2d(3, 5, 3), nn.Conv2d(5, 4, 1), nn.Linear(7, 2)), "soft").double()
    batched = BatchedNormalization(network)
    for _ in range(3):
        batched.update_()
    together = batched.weights()
    alone = {f"{name}.weight": layer.weight for name, layer in network.named_children()}
    originals = [layer.parametrizations.weight.original for layer in network]
    for name, weight in alone.items():
        torch.testing.assert_close(together[name], weight, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(sum(w.sin().sum() for w in ws.values()), originals) for ws in (together, alone)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-10, atol=1e-12)
    assert batched.one_by_one == ([] if kind is SoftNormInStacks else [kind.__name__])


@pytest.mark.parametrize("kind", KINDS)
def test_it_trains_to_equal_results_on_both_paths(
    smoke: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, kind: type[SpectralNorm]
) -> None:
    """Equal bit for bit with the same operations and up to rounding with stacks; every update changes the vectors."""
    register(monkeypatch, kind)
    config = smoke("discriminator.normalization=soft")
    plain, batched = trainer(config, batched=False), trainer(config, batched=True)
    before = [norm._v.clone() for norm in plain.state.discriminator.modules() if isinstance(norm, kind)]
    for _ in range(4):
        plain.train_step()
        batched.train_step()
    expected, got = (one.state.discriminator.state_dict() for one in (plain, batched))
    exact = 0.0 if kind is not SoftNormInStacks else None
    for name, value in got.items():
        rtol, atol = (exact, exact) if exact is not None else (1e-3, 1e-4)
        torch.testing.assert_close(value, expected[name], rtol=rtol, atol=atol)
    after = [norm._v for norm in batched.state.discriminator.modules() if isinstance(norm, kind)]
    assert before
    assert not any(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_the_printed_step_says_what_is_computed_weight_by_weight(
    smoke: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, SoftNorm)
    config = smoke("discriminator.normalization=soft")
    assert choose_step(trainer(config, batched=True)).name == f"plain step: train.fast is off{NOTE}"
    assert choose_step(trainer(config, batched=False)).name == "plain step: train.fast is off"
    monkeypatch.setattr(graph, "obstacle", lambda trainer: "")
    monkeypatch.setattr(FastStep, "_capture", lambda self: self.iterate)
    assert choose_step(trainer(config, batched=False)).name == f"fast step: one CUDA graph per iteration{NOTE}"
    register(monkeypatch, SoftNormInStacks)
    assert choose_step(trainer(config, batched=True)).name == "fast step: one CUDA graph per iteration"
