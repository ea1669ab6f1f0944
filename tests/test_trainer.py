"""Tests of gan.training.trainer and gan.build: the training recipe, step by step."""

import copy
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from stepping import discriminator_step, generator_step

from gan import build
from gan.config import Config, TrainSettings
from gan.losses import LOSSES
from gan.models import DISCRIMINATORS, GENERATORS
from gan.normalization import NORMALIZATIONS
from gan.runs.logger import Logger
from gan.training.arithmetic import float32_products
from gan.training.iteration import learning_rate
from gan.training.trainer import DivergenceError, Trainer


def make_trainer(config: Config, *, batched: bool = False) -> Trainer:
    state = build.build_state(config)
    batches = build.build_batches(config, build.load_images(config, "train"), "cpu")
    loss, z_dim = build.build_loss(config), config.generator.z_dim
    return Trainer(state, batches, loss, config.train, z_dim=z_dim, batched=batched)


def test_learning_rate_is_linear_from_the_start_and_zero_after_the_end() -> None:
    """LinearShift of the original code: a (1 - t / T) after t updates."""
    settings = TrainSettings(steps=10)
    assert learning_rate(settings, 0) == 2e-4
    assert learning_rate(settings, 5) == pytest.approx(1e-4)
    assert learning_rate(settings, 10) == 0


def test_learning_rate_waits_for_its_start_or_stays() -> None:
    settings = TrainSettings(steps=10, lr_decay_start=6)
    assert [learning_rate(settings, step) / 2e-4 for step in (0, 6, 8, 10)] == pytest.approx([1, 1, 0.5, 0])
    assert learning_rate(TrainSettings(steps=10, lr_decay="none"), 9) == 2e-4


def test_the_discriminator_may_have_its_own_learning_rate(smoke: Callable[..., Config]) -> None:
    """Its share of the decay is the generator's; unset, it is the generator's rate and no part of the identity."""
    config = smoke("train.learning_rate=1e-3", "train.d_learning_rate=2e-3", "train.steps=10", "train.lr_decay_start=6")
    trainer = make_trainer(config)
    for step, share in ((0, 1), (6, 1), (8, 0.5)):
        trainer.state.step = step
        assert trainer.iteration.set_learning_rates() == pytest.approx((1e-3 * share, 2e-3 * share))
        optimizers = (trainer.state.g_optimizer, trainer.state.d_optimizer)
        assert [one.param_groups[0]["lr"] for one in optimizers] == pytest.approx([1e-3 * share, 2e-3 * share])
    assert smoke("train.d_learning_rate=null").identity() == smoke().identity()
    assert smoke("train.d_learning_rate=2e-4").identity() != smoke().identity()


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), [(0.5, 0.9), (0.5, 0.9)]),
        (("train.d_adam_beta1=0",), [(0.5, 0.9), (0, 0.9)]),
        (("train.d_adam_beta1=0.25", "train.d_adam_beta2=0.999"), [(0.5, 0.9), (0.25, 0.999)]),
    ],
)
def test_the_discriminator_may_have_its_own_betas(
    smoke: Callable[..., Config], overrides: tuple[str, ...], expected: list[tuple[float, float]]
) -> None:
    """0 is a value; unset, they are the generator's and no part of the identity."""
    config = smoke("train.adam_beta1=0.5", "train.adam_beta2=0.9", *overrides)
    state = build.build_state(config)
    groups = [optimizer.param_groups[0] for optimizer in (state.g_optimizer, state.d_optimizer)]
    assert [group["betas"] for group in groups] == expected
    shared = smoke("train.adam_beta1=0.5", "train.adam_beta2=0.9")
    assert (config.identity() == shared.identity()) == (not overrides)


def test_one_step_is_one_generator_and_d_steps_discriminator_updates(smoke: Callable[..., Config]) -> None:
    trainer = make_trainer(smoke("train.d_steps=3"))
    trainer.train_step()
    state = trainer.state
    counts = {
        name: {int(entry["step"]) for entry in optimizer.state.values()}
        for name, optimizer in (("g", state.g_optimizer), ("d", state.d_optimizer))
    }
    assert counts == {"g": {1}, "d": {3}}
    assert state.step == 1


@pytest.mark.parametrize("first", ["generator", "discriminator"])
def test_the_order_of_an_iteration_is_chosen(smoke: Callable[..., Config], first: str) -> None:
    """Equal, bit for bit, to single updates in that order; fake images are of the generator at that time."""
    config = smoke("train.d_steps=2", "train.ema_decay=0.5", f"train.first={first}")
    trainer, single = make_trainer(config), make_trainer(config)
    trainer.train_step()
    single.iteration.set_learning_rates()
    for network in (single.state.generator, single.state.discriminator):
        network.train()
    if first == "generator":
        generator_step(single, 0)
    discriminator_step(single, 0)
    discriminator_step(single, 1)
    if first == "discriminator":
        generator_step(single, 0)
    for part in ("generator", "discriminator"):
        ours, theirs = (getattr(one.state, part).state_dict() for one in (trainer, single))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs), part


def test_the_generator_step_leaves_the_discriminator_alone(smoke: Callable[..., Config]) -> None:
    trainer = make_trainer(smoke())
    before = copy.deepcopy(trainer.state.discriminator.state_dict())
    generator_step(trainer, 0)
    after = trainer.state.discriminator.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(parameter.grad is None for parameter in trainer.state.discriminator.parameters())
    assert all(parameter.requires_grad for parameter in trainer.state.discriminator.parameters())


def test_the_discriminator_step_moves_the_generator_only_in_its_running_statistics(
    smoke: Callable[..., Config],
) -> None:
    trainer = make_trainer(smoke())
    before = copy.deepcopy(trainer.state.generator.state_dict())
    trainer.state.generator.train()
    discriminator_step(trainer, 0)
    changed = {
        key for key, value in trainer.state.generator.state_dict().items() if not torch.equal(before[key], value)
    }
    assert changed
    assert all("running" in key or "num_batches" in key for key in changed)


@pytest.mark.parametrize(
    ("normalization", "conditional"), [*((name, "true") for name in NORMALIZATIONS), ("srn", "false")]
)
def test_every_normalization_trains(smoke: Callable[..., Config], normalization: str, conditional: str) -> None:
    """After ten steps losses are finite and every trainable tensor has changed."""
    trainer = make_trainer(smoke(f"discriminator.normalization={normalization}", f"conditional={conditional}"))
    networks = (trainer.state.generator, trainer.state.discriminator)
    before = [copy.deepcopy(dict(network.named_parameters())) for network in networks]
    for _ in range(10):
        trainer.train_step()
    trainer.check_finite()
    scalars = trainer.take_scalars()
    assert all(math.isfinite(value) for value in scalars.values())
    for network, old in zip(networks, before, strict=True):
        still = [name for name, value in network.named_parameters() if torch.equal(value, old[name])]
        assert not still


@pytest.mark.parametrize(
    ("normalization", "penalty"),
    [*((name, "none") for name in NORMALIZATIONS), ("sn", "gradient"), ("srn", "gradient")],
)
def test_weights_computed_together_train_the_same(
    smoke: Callable[..., Config], normalization: str, penalty: str
) -> None:
    """The batched path, used on CUDA devices, equals weights normalized one by one up to float32 rounding."""
    config = smoke(f"discriminator.normalization={normalization}", f"discriminator.penalty={penalty}")
    plain, batched = make_trainer(config), make_trainer(config, batched=True)
    for _ in range(4):
        plain.train_step()
        batched.train_step()
    expected = plain.state.discriminator.state_dict()
    for name, value in batched.state.discriminator.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-4)
    assert batched.take_scalars() == pytest.approx(plain.take_scalars(), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_trains(smoke: Callable[..., Config], loss: str) -> None:
    trainer = make_trainer(smoke(f"train.loss={loss}"))
    for _ in range(3):
        trainer.train_step()
    trainer.check_finite()


@pytest.mark.parametrize("conditional", ["false", "true"])
@pytest.mark.parametrize(
    "choice",
    [*(f"generator.name={name}" for name in GENERATORS), *(f"discriminator.name={name}" for name in DISCRIMINATORS)],
)
def test_every_architecture_trains(smoke: Callable[..., Config], choice: str, conditional: str) -> None:
    """All of its weights change, so none is left out of the forward pass; the hinge may leave the last bias at 0."""
    trainer = make_trainer(smoke(choice, f"conditional={conditional}", "train.loss=non_saturating"))
    network = getattr(trainer.state, choice.partition(".")[0])
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    for _ in range(3):
        trainer.train_step()
    trainer.check_finite()
    assert not [name for name, value in network.named_parameters() if torch.equal(value, before[name])]


def test_the_discriminator_overfits_one_batch(smoke: Callable[..., Config]) -> None:
    """With a frozen generator and fixed images the hinge loss falls far below 2, its value at constant output 0."""
    trainer = make_trainer(smoke("train.learning_rate=0.01", "discriminator.normalization=none"))
    trainer.state.generator.train()
    losses = [float(discriminator_step(trainer, 0)[0]) for _ in range(40)]
    assert losses[-1] < 0.2


def test_scalars_are_means_over_the_window(smoke: Callable[..., Config]) -> None:
    one, other = make_trainer(smoke()), make_trainer(smoke())
    for _ in range(3):
        one.train_step()
    windows = []
    for _ in range(3):
        other.train_step()
        windows.append(other.take_scalars())
    for name, value in one.take_scalars().items():
        assert value == pytest.approx(sum(window[name] for window in windows) / 3)


def test_averaging_copies_buffers_and_averages_parameters(smoke: Callable[..., Config]) -> None:
    trainer = make_trainer(smoke("train.ema_decay=0.75"))
    state = trainer.state
    assert state.average is not None
    expected = {name: value.clone() for name, value in state.generator.named_parameters()}
    for _ in range(3):
        trainer.train_step()
        for name, value in state.generator.named_parameters():
            expected[name] = 0.75 * expected[name] + 0.25 * value
    for name, value in state.average.named_parameters():
        torch.testing.assert_close(value, expected[name])
    for averaged, current in zip(state.average.buffers(), state.generator.buffers(), strict=True):
        assert torch.equal(averaged, current)


def test_bf16_keeps_what_must_be_float32(smoke: Callable[..., Config]) -> None:
    trainer = make_trainer(smoke("train.precision=bf16"))
    for _ in range(2):
        trainer.train_step()
    state = trainer.state
    for network in (state.generator, state.discriminator):
        assert {value.dtype for value in network.state_dict().values()} <= {torch.float32, torch.int64}
    trainer.check_finite()


def test_the_seed_decides_everything_and_the_global_generator_nothing(smoke: Callable[..., Config]) -> None:
    def final(*overrides: str) -> torch.Tensor:
        torch.rand(7)
        trainer = make_trainer(smoke(*overrides))
        for _ in range(2):
            trainer.train_step()
        return torch.cat([parameter.detach().flatten() for parameter in trainer.state.generator.parameters()])

    before = torch.random.get_rng_state()
    first = final()
    assert torch.equal(first, final())
    assert not torch.equal(first, final("train.seed=1"))
    torch.random.set_rng_state(before)


def test_a_loss_that_is_not_finite_stops_the_run(smoke: Callable[..., Config]) -> None:
    trainer = make_trainer(smoke())
    with torch.no_grad():
        trainer.state.generator.get_parameter("linear.weight")[0] = float("nan")
    with pytest.raises(DivergenceError, match="step 0: a weight of the generator not finite"):
        trainer.check_finite()
    trainer.train_step()
    with pytest.raises(DivergenceError, match=r"step 1: d_loss and .* not finite"):
        trainer.take_scalars()


@pytest.mark.parametrize("normalization", ["none", "sn", "srn"])
def test_weights_that_are_not_finite_at_a_line_of_the_log_stop_the_run(
    smoke: Callable[..., Config], normalization: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The losses precede the last update, so only the check of weights can detect NaN before spectra are computed."""
    trainer = make_trainer(smoke("train.log_every=1", f"discriminator.normalization={normalization}"))
    step = trainer.train_step

    def diverge() -> None:
        step()
        with torch.no_grad():
            for parameter in trainer.state.discriminator.parameters():
                parameter.fill_(float("nan"))

    monkeypatch.setattr(trainer, "train_step", diverge)
    logger = Logger(tmp_path, steps=2, images_per_step=1, first_step=0)
    grid = torch.zeros(3, 8, 8, dtype=torch.uint8)
    with pytest.raises(DivergenceError, match="step 1: a weight of the discriminator not finite"):
        trainer.run(logger, save=lambda: tmp_path, sample=lambda: (grid, 1.0), evaluate=None, stop=lambda step: "")
    logger.close()


def test_names_in_the_configuration_stand_for_something(smoke: Callable[..., Config]) -> None:
    from gan.errors import ConfigError

    for place, name in (
        ("data.name", "shape"),
        ("generator.name", "resnett"),
        ("discriminator.normalization", "snr"),
        ("train.loss", "hinged"),
    ):
        with pytest.raises(ConfigError, match=rf"{place}: got '{name}', expected one of .*; did you mean"):
            build.build_state(smoke(f"{place}={name}"))


def test_the_precision_of_float32_products_is_set_and_given_back() -> None:
    conv, matmul = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = conv.fp32_precision, matmul.fp32_precision
    for precision, expected in (("fp32", "ieee"), ("tf32", "tf32"), ("bf16", "ieee")):
        with float32_products(precision):
            assert (conv.fp32_precision, matmul.fp32_precision) == (expected, "ieee")
        assert (conv.fp32_precision, matmul.fp32_precision) == before
