"""Tests that normalized weights stay normalized while they train: without `update_`, or with a warning."""

import copy
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations as torch_parametrizations
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

from gan.normalization import (
    NORMALIZATIONS,
    BatchedNormalization,
    bidirectional_spectral_norm,
    normalize,
    refresh_,
    spectral_norm,
    stable_rank_norm,
    update_,
)

WEIGHT_NORMALIZATIONS = [name for name, entry in NORMALIZATIONS.items() if entry.apply]
DROP_IN = [spectral_norm, stable_rank_norm, bidirectional_spectral_norm]


def network(norm: Callable[..., nn.Module]) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(norm(nn.Linear(8, 16)), nn.ReLU(), norm(nn.Linear(16, 4)))


def train(
    owner: nn.Module,
    steps: int,
    forward: Callable[[Tensor], Tensor] | None = None,
    before: Callable[[], None] = lambda: None,
) -> None:
    optimizer = torch.optim.Adam(owner.parameters(), 1e-2)
    random = torch.Generator().manual_seed(0)
    for _ in range(steps):
        before()
        loss = (forward or owner)(torch.randn(8, 8, generator=random)).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize("norm", [spectral_norm, lambda layer: stable_rank_norm(layer, c=1)])
def test_the_functions_train_as_torchs_bit_for_bit(norm: Callable[..., nn.Module]) -> None:
    """Weights, vectors and outputs after steps with two forward passes, a pass without gradients, evaluation, a cached
    pass, a deep copy and a checkpoint."""
    theirs, ours = network(torch_parametrizations.spectral_norm), network(norm)
    for each in (theirs, ours):
        train(each, 5, lambda x, each=each: each(x) - each(-x))
        with torch.no_grad():
            each(torch.ones(2, 8))
        with parametrize.cached():
            train(each, 1, lambda x, each=each: each(each[0](x)[:, :8]))
    twins = [copy.deepcopy(theirs), copy.deepcopy(ours)]
    twins[1].load_state_dict(theirs.state_dict())
    for each in twins:
        each.eval()(torch.ones(2, 8))
        train(each.train(), 2)
    assert theirs.state_dict().keys() == ours.state_dict().keys()
    for one, other in ((theirs, ours), twins):
        assert all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())
        assert torch.equal(one.eval()(torch.ones(2, 8)), other.eval()(torch.ones(2, 8)))


@pytest.mark.parametrize("norm", DROP_IN)
def test_the_functions_follow_the_weights(norm: Callable[..., nn.Module]) -> None:
    """Large steps without update_: the weights in use equal those of exact vectors; evaluation changes nothing."""
    trained = network(norm)
    train(trained, 60)
    before = copy.deepcopy(trained.eval().state_dict())
    trained(torch.ones(2, 8))
    assert all(torch.equal(value, before[key]) for key, value in trained.state_dict().items())
    weights = [layer.weight.detach() for layer in (trained[0], trained[2])]
    refresh_(trained)
    for layer, weight in zip((trained[0], trained[2]), weights, strict=True):
        torch.testing.assert_close(weight, layer.weight, rtol=0, atol=0.02)


def said(act: Callable[[], object]) -> list[str]:
    """Messages of all warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        act()
    return [str(one.message) for one in caught]


def step_network(choice: str = "sn") -> nn.Sequential:
    return normalize(network(lambda layer: layer), choice)  # type: ignore[return-value]


@pytest.mark.parametrize("choice", WEIGHT_NORMALIZATIONS)
def test_training_without_updates_is_told_once(choice: str) -> None:
    """Not in the first steps; once for the network and its copies; each further network for itself."""
    first, second = step_network(choice), step_network(choice)
    assert said(lambda: train(first, 5)) == []
    (message,) = said(lambda: train(first, 20))
    assert "update_(network)" in message
    assert said(lambda: train(first, 20)) == []
    assert len(said(lambda: train(second, 20))) == 1
    by_hand = network(lambda layer: spectral_norm(layer, update="step"))
    assert len(said(lambda: train(by_hand, 20))) == 1


def averaged(each: nn.Module) -> None:
    """An average of the parameters alone, evaluated with gradients: of the image, of frozen weights, of nothing."""
    average = copy.deepcopy(each).eval()
    image = torch.ones(1, 8, requires_grad=True)

    def follow() -> None:
        update_(each)
        torch._foreach_lerp_([one.data for one in average.parameters()], [one.data for one in each.parameters()], 0.5)
        average(torch.ones(1, 8))
        torch.autograd.grad(average(image).sum(), image)
        with torch.no_grad():
            average(image)
        average.requires_grad_(False)(image).sum().backward()
        average.requires_grad_(True)

    train(each, 20, before=follow)


def followed_in_eval(each: nn.Module) -> None:
    train(each.eval(), 20, before=lambda: update_(each))


def attacked(each: nn.Module) -> None:
    """Gradients reach weights that no optimizer changes."""
    image = torch.ones(1, 8, requires_grad=True)
    for _ in range(70):
        each.eval()(image).sum().backward()


def accumulated(each: nn.Module) -> None:
    for _ in range(20):
        each(torch.ones(1, 8)).sum().backward()


def replaced(each: nn.Module) -> None:
    """Averaged weights and copied buffers, as in an exponential moving average."""
    source = copy.deepcopy(each)

    def follow() -> None:
        update_(source)
        with torch.no_grad():
            for mine, theirs in zip(each.buffers(), source.buffers(), strict=True):
                mine.copy_(theirs)

    train(each, 20, before=follow)


QUIET: dict[str, Callable[[nn.Module], None]] = {
    "update_": lambda each: train(each, 20, before=lambda: update_(each)),
    "update_ at times": lambda each: train(each, 20, before=iter([lambda: update_(each), *[int] * 4] * 4).__next__()),
    "refresh_": lambda each: train(each, 20, before=lambda: refresh_(each)),
    "batched": lambda each: train(each, 20, before=BatchedNormalization(each).update_),
    "copied": replaced,
    "averaged": averaged,
    "updated in eval mode": followed_in_eval,
    "attacked in eval mode": attacked,
    "accumulated gradients": accumulated,
    "no training": lambda each: [each(torch.ones(1, 8)) for _ in range(20)],
    "checkpointed": lambda each: train(each, 5, lambda x: checkpoint(each, x, use_reentrant=False)),
    "inference mode": lambda each: torch.inference_mode()(lambda: [each(torch.ones(1, 8)) for _ in range(20)])(),
}


@pytest.mark.parametrize("case", QUIET)
def test_what_follows_or_does_not_train_is_not_told(case: str) -> None:
    assert said(lambda: QUIET[case](step_network())) == []


@pytest.mark.parametrize("choice", WEIGHT_NORMALIZATIONS)
def test_training_in_eval_mode_without_updates_is_told_once(choice: str) -> None:
    each = step_network(choice).eval()
    assert said(lambda: train(each, 5)) == []
    (message,) = said(lambda: train(each, 20))
    assert "update_(network)" in message
    assert said(lambda: train(each, 20)) == []


class OfData(torch.optim.SGD):
    """Gradient descent on `data`, as in older code."""

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        for parameter in self.param_groups[0]["params"]:
            parameter.data -= 0.1 * parameter.grad


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda parameters: torch.optim.SGD(parameters, 0.1, foreach=False),
        lambda parameters: torch.optim.Adam(parameters, 0.1, foreach=True),
        lambda parameters: torch.optim.Adam(parameters, 0.1, fused=True),
        lambda parameters: OfData(parameters, 0.1),
    ],
    ids=["loop", "foreach", "fused", "data"],
)
def test_every_implementation_of_optimizers_is_noticed(
    optimizer: Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer],
) -> None:
    each, followed = step_network(), step_network()

    def run(trained: nn.Module, before: Callable[[], None] = lambda: None) -> None:
        chosen = optimizer(trained.parameters())
        for _ in range(40):
            before()
            trained(torch.ones(2, 8)).sum().backward()
            chosen.step()

    assert len(said(lambda: run(each))) == 1
    assert said(lambda: run(followed, lambda: update_(followed))) == []


def test_vectors_that_are_written_again_are_no_update() -> None:
    """DistributedDataParallel broadcasts buffers at each forward pass."""
    each = step_network()

    def broadcast() -> None:
        for buffer in each.buffers():
            buffer.copy_(buffer.clone())

    assert len(said(lambda: train(each, 20, before=broadcast))) == 1


def test_a_copy_and_a_compiled_network_train_as_before() -> None:
    """The counters are plain numbers: no buffers, no graph breaks, no guards that recompile."""
    each = step_network()
    assert set(each.state_dict()) == {
        f"{place}.{name}"
        for place in (0, 2)
        for name in ("bias", *(f"parametrizations.weight.{part}" for part in ("original", "0._u", "0._v")))
    }
    with torch._dynamo.config.patch(error_on_recompile=True):
        compiled = torch.compile(each, fullgraph=True, backend="eager")
        said(lambda: train(each, 15, compiled))
    twin = copy.deepcopy(each)
    assert len(said(lambda: train(twin, 20))) == 1
