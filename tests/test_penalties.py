"""Tests of penalties in training: the value added to the discriminator's loss, their inputs, unchanged state."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from stepping import discriminator_step
from torch import Tensor, nn

from gan import build
from gan.config import Config, load_config
from gan.config.loading import override_config
from gan.errors import ConfigError
from gan.normalization import PENALTIES, LayerSpectrum, normalize, orthogonal_penalty, spectra
from gan.runs.logger import Logger
from gan.training.trainer import Trainer

Smoke = Callable[..., Config]


def make_trainer(config: Config) -> Trainer:
    state = build.build_state(config)
    batches = build.build_batches(config, build.load_images(config, "train"), "cpu")
    return Trainer(state, batches, build.build_loss(config), config.train, z_dim=config.generator.z_dim)


class Recorder:
    """Constant penalty of 5 that records its arguments."""

    def __init__(self) -> None:
        self.calls: list[tuple[Tensor, Tensor, Tensor | None, Tensor, bool]] = []

    def __call__(
        self, network: nn.Module, real: Tensor, fake: Tensor, labels: Tensor | None, *, uniforms: Tensor
    ) -> Tensor:
        self.calls.append((real, fake, labels, uniforms, torch.is_autocast_enabled("cpu")))
        return 5 * torch.ones((), requires_grad=True)


def recorded(config: Config, steps: int = 2) -> tuple[Trainer, Recorder]:
    trainer, recorder = make_trainer(config), Recorder()
    loss = trainer.iteration.loss._replace(penalty=recorder)
    trainer.iteration = replace(trainer.iteration, loss=loss)
    for _ in range(steps):
        trainer.train_step()
    return trainer, recorder


@pytest.mark.parametrize("conditional", ["true", "false"])
def test_the_penalty_sees_both_halves_and_the_real_labels(smoke: Smoke, conditional: str) -> None:
    """Images are float32 outside autocast at any precision; random numbers differ at every step."""
    config = smoke(f"conditional={conditional}", "train.precision=bf16", "discriminator.normalization=sn")
    trainer, recorder = recorded(config)
    assert len(recorder.calls) == 4, "two steps of two discriminator steps"
    for real, fake, labels, _, autocast in recorder.calls:
        assert real.shape == fake.shape == (8, 3, 32, 32)
        assert real.dtype == fake.dtype == torch.float32
        assert not autocast
        if conditional == "false":
            assert labels is None
    if conditional == "true":
        assert torch.equal(recorder.calls[0][2], trainer.batches.batch(0)[1])
    assert len({tuple(drawn.tolist()) for _, _, _, drawn, _ in recorder.calls}) == 4
    _, again = recorded(config)
    assert all(torch.equal(one[3], two[3]) for one, two in zip(recorder.calls, again.calls, strict=True))


def test_a_constant_penalty_moves_the_loss_and_nothing_else(smoke: Smoke) -> None:
    """The penalty has its own random stream: every weight equals that of the run without it."""
    config = smoke("discriminator.normalization=srn")
    plain = make_trainer(config)
    for _ in range(2):
        plain.train_step()
    other, _ = recorded(config)
    for one, two in zip(plain.state.discriminator.parameters(), other.state.discriminator.parameters(), strict=True):
        assert torch.equal(one, two)
    assert other.take_scalars()["d_loss"] == pytest.approx(plain.take_scalars()["d_loss"] + 5, abs=1e-5)


@pytest.mark.parametrize("name", ["wgan_gp", "ortho"])
def test_the_coefficient_is_the_settings(smoke: Smoke, name: str) -> None:
    """In the first step, loss(c) = loss(0) + c * penalty."""
    setting = {"wgan_gp": "gp_coefficient", "ortho": "ortho_coefficient"}[name]
    losses = []
    for coefficient in (0, 1, 3):
        trainer = make_trainer(smoke(f"discriminator.normalization={name}", f"discriminator.{setting}={coefficient}"))
        losses.append(float(discriminator_step(trainer, 0)[0]))
    assert losses[1] - losses[0] > 1e-3
    assert losses[2] - losses[0] == pytest.approx(3 * (losses[1] - losses[0]), rel=1e-4)
    if name == "ortho":
        expected = orthogonal_penalty(build.build_state(smoke("discriminator.normalization=none")).discriminator)
        assert losses[1] - losses[0] == pytest.approx(float(expected.detach()), rel=1e-4)


@pytest.mark.parametrize("penalty", [name for name in PENALTIES if name != "none"])
@pytest.mark.parametrize(("normalization", "conditional"), [("none", "false"), ("srn", "true")])
def test_a_penalty_is_added_to_a_weight_normalization(
    smoke: Smoke, normalization: str, penalty: str, conditional: str
) -> None:
    """In the first step, loss(c) = loss without + c * penalty; two steps give finite and different weights."""
    config = smoke(f"discriminator.normalization={normalization}", f"conditional={conditional}")
    plain = make_trainer(config)
    losses, coefficient = [float(discriminator_step(plain, 0)[0])], PENALTIES[penalty].coefficient
    for value in (1, 3):
        changes = [f"discriminator.penalty={penalty}", f"discriminator.{coefficient}={value}"]
        trainer = make_trainer(override_config(config, changes, "test"))
        losses.append(float(discriminator_step(trainer, 0)[0]))
    assert losses[1] - losses[0] > 1e-5
    assert losses[2] - losses[0] == pytest.approx(3 * (losses[1] - losses[0]), rel=1e-2)
    trainer = make_trainer(override_config(config, [f"discriminator.penalty={penalty}"], "test"))
    plain = make_trainer(config)
    for _ in range(2):
        trainer.train_step()
        plain.train_step()
    trainer.check_finite()
    pairs = zip(trainer.state.discriminator.parameters(), plain.state.discriminator.parameters(), strict=True)
    assert any(not torch.equal(one, two) for one, two in pairs)


def test_the_normalizations_own_penalty_and_the_added_one_are_summed(smoke: Smoke) -> None:
    """wgan_gp with orthogonal adds the sum of both. The same penalty twice is refused before building."""
    losses = {}
    for normalization in ("none", "wgan_gp"):
        for penalty in ("none", "orthogonal"):
            settings = [f"discriminator.normalization={normalization}", f"discriminator.penalty={penalty}"]
            trainer = make_trainer(smoke(*settings, "discriminator.ortho_coefficient=0.1"))
            losses[normalization, penalty] = float(discriminator_step(trainer, 0)[0])
    plain, both = losses["none", "none"], losses["wgan_gp", "orthogonal"]
    alone = losses["none", "orthogonal"] + losses["wgan_gp", "none"] - 2 * plain
    assert both - plain == pytest.approx(alone, rel=1e-5)
    for normalization, penalty in (("wgan_gp", "gradient"), ("ortho", "orthogonal")):
        config = smoke(f"discriminator.normalization={normalization}", f"discriminator.penalty={penalty}")
        for use in (build.check_names, build.build_state, build.build_loss):
            with pytest.raises(ConfigError, match=f"discriminator.penalty: got '{penalty}', which .* already adds"):
                use(config)
    with pytest.raises(ConfigError, match=r"discriminator\.penalty: got 'gradiant', expected one of none, gradient"):
        build.check_names(smoke("discriminator.penalty=gradiant"))


@pytest.mark.parametrize("name", ["ssn", "bsn", "bssn", "wgan_gp", "ortho"])
def test_configurations_say_only_what_the_method_requires(name: str) -> None:
    base = load_config("cifar10_sn")
    config = load_config("cifar10_sn", variants=[name]) if "sn" in name else load_config(f"cifar10_{name}")
    wanted = config.discriminator
    assert wanted.normalization == name
    same = override_config(config, ["name=x", "discriminator.normalization=sn", "discriminator.scale=1.0"], "test")
    assert same.train == base.train.model_copy(update={"loss": "wasserstein" if name == "wgan_gp" else "hinge"})
    assert same.discriminator == base.discriminator, "coefficients are the defaults"
    assert build.build_loss(config).penalty is not None or "sn" in name


def test_tensorboard_shows_gamma_of_bounded_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = normalize(nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 1)), "srn", c=0.2)
    rows = spectra(network)
    logger = Logger(tmp_path, steps=1, images_per_step=1, first_step=0)
    written: dict[str, float] = {}
    monkeypatch.setattr(logger.board, "add_scalar", lambda tag, value, step: written.update({tag: value}))
    logger.layers(0, rows)
    logger.close()
    assert written["srn/gamma/0"] == rows[0].gamma
    assert rows[0].gamma is not None
    assert 0 < rows[0].gamma < 1
    assert "srn/gamma/1" not in written, "no bound there: c * 1 <= 1"
    assert [type(row) for row in rows] == [LayerSpectrum, LayerSpectrum]
    assert [row.policy for row in rows] == ["bound", "skip"]


def test_a_bound_that_cannot_be_is_a_configuration_error(smoke: Smoke) -> None:
    config = smoke("discriminator.normalization=srn", "discriminator.infeasible=error", "discriminator.c=0.5")
    with pytest.raises(ConfigError, match=r"discriminator\.normalization: srn: linear: r = c \* min"):
        build.build_state(config)
