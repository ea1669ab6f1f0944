"""Tests of gan.training.gradients and gan-plot: records of a discriminator's gradients, their alarms and figures."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import call, done, refused
from equality import lines, same
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from evaluation.reporting.plots import gradients_figure
from gan import build
from gan.config import Config, TrainSettings
from gan.errors import DivergenceError
from gan.normalization import NORMALIZATIONS, used_weights
from gan.runs.checkpoint import read_checkpoint
from gan.runs.gradients import read_gradients, scalars_of, seeds_together
from gan.training.gradients import _together, measure_gradients
from gan.training.graph import FastStep
from gan.training.health import Health, signs_of_gradients
from gan.training.iteration import Iteration
from gan.training.trainer import Trainer

Smoke = Callable[..., Config]
Trained = Callable[..., Path]
CASES = [
    *(f"discriminator.normalization={name}" for name in NORMALIZATIONS),
    "discriminator.penalty=r1",
    "conditional=true",
    "train.loss=non_saturating",
]
FEW = ["discriminator.normalization=srn", "discriminator.normalization=wgan_gp", "conditional=true", CASES[-1]]
RECORD = {
    "layers": {"head": {"gradient": 2.0, "gradient_used": 3.0, "variance": 0.5}},
    "whole": 2.0,
    "slope_real": [0.2, 0.1, 0.3],
    "slope_fake": [0.5, 0.4, 0.6],
    "saturated_real": 0.25,
    "saturated_fake": 0.75,
}


def make_trainer(config: Config) -> Trainer:
    state = build.build_state(config)
    batches = build.build_batches(config, build.load_images(config, "train"), "cpu")
    return Trainer(state, batches, build.build_loss(config), config.train, z_dim=config.generator.z_dim)


@pytest.fixture(params=CASES)
def trainer(request: pytest.FixtureRequest, smoke: Smoke) -> Trainer:
    """Trainer after one small iteration."""
    made = make_trainer(smoke(request.param, "train.flip=true", "train.d_steps=1", "train.batch_size=4"))
    made.train_step()
    return made


def backward(iteration: Iteration, discriminator: nn.Module) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Loss of the next discriminator update, backward into `discriminator`; returns its images and their labels."""
    state = replace(copy.deepcopy(iteration.state), discriminator=discriminator.train())
    ours = replace(iteration, state=state, generator=state.generator.train(), discriminator=discriminator)
    inputs = ours.draw_discriminator(state.step * ours.settings.d_steps)
    both, labels = ours.with_real(inputs, *ours.generate([inputs.fakes]))
    discriminator.zero_grad()
    ours.discriminator_loss(discriminator(both, labels), both, labels, inputs.penalty).backward()
    return both, labels


def plain_copy(network: nn.Module) -> nn.Module:
    """Copy of a network whose normalized weights are parameters."""
    copied = copy.deepcopy(network)
    for module in [module for module in copied.modules() if nn.utils.parametrize.is_parametrized(module)]:
        kind = type(module)  # deepcopy shares the class, which holds the weight's property
        module.__class__ = type(kind.__name__, kind.__bases__, dict(vars(kind)))
        nn.utils.parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    return copied


def test_gradients_are_those_of_the_next_update(trainer: Trainer) -> None:
    """Oracle: backward passes into a copy of the discriminator, and into a plain one with the normalized weights."""
    found = measure_gradients(trainer.iteration)
    own, plain = copy.deepcopy(trainer.state.discriminator), plain_copy(trainer.state.discriminator)
    backward(trainer.iteration, own)
    backward(trainer.iteration, plain)
    with used_weights(own) as weights:
        assert [weight.name for weight in weights] == list(found.layers)
    for name, stored, _ in weights:
        used = plain.get_submodule(name).weight
        expected = stored.grad.norm(), used.grad.norm(), used.detach().var(correction=0)
        assert found.layers[name] == pytest.approx([float(value) for value in expected], rel=1e-4)
    total = sum(float(weight.stored.grad.square().sum()) for weight in weights)
    assert found.whole == pytest.approx(total**0.5, rel=1e-4)


@pytest.mark.parametrize("trainer", FEW, indirect=True)
def test_slopes_and_shares_are_those_of_single_images(trainer: Trainer) -> None:
    discriminator = trainer.state.discriminator
    both, labels = backward(trainer.iteration, copy.deepcopy(discriminator))
    given = discriminator(both, labels).detach()
    middle, spread = given[:4].sort().values[1:3].mean(), given.max() - given.min()
    # Logits within 1 of 1, for two of four real images above 1.
    discriminator.register_forward_hook(lambda module, inputs, logits: (logits - middle) / spread + 1)
    found = measure_gradients(trainer.iteration)
    slopes, logits = torch.zeros(2, len(both))
    for index, image in enumerate(both.split(1)):
        logit = discriminator(image.requires_grad_(), None if labels is None else labels[index : index + 1])
        slopes[index] = torch.autograd.grad(logit.sum(), image)[0].norm()
        logits[index] = logit.detach()
    (real, fake), (real_logits, fake_logits) = slopes.chunk(2), logits.chunk(2)
    assert found.slope_real == pytest.approx([float(real.mean()), float(real.min()), float(real.max())], rel=1e-4)
    assert found.slope_fake == pytest.approx([float(fake.mean()), float(fake.min()), float(fake.max())], rel=1e-4)
    if trainer.settings.loss == "hinge":
        assert found.saturated_real == 0.5
        expected = float((real_logits >= 1).double().mean()), float((fake_logits <= -1).double().mean())
    else:
        expected = None, None
    assert (found.saturated_real, found.saturated_fake) == expected


@pytest.mark.parametrize("trainer", FEW, indirect=True)
def test_measuring_changes_nothing(trainer: Trainer) -> None:
    """Neither state, gradients, modes nor global random numbers, even if the discriminator draws some itself."""
    handle = trainer.state.discriminator.register_forward_pre_hook(lambda module, inputs: torch.rand(1) and None)
    networks = trainer.state.generator, trainer.state.discriminator
    gradients = [copy.deepcopy(parameter.grad) for network in networks for parameter in network.parameters()]
    state, random = copy.deepcopy(trainer.state.state_dict()), torch.get_rng_state()
    measure_gradients(trainer.iteration)
    same(trainer.state.state_dict(), state)
    same([parameter.grad for network in networks for parameter in network.parameters()], gradients)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(parameter.requires_grad for network in networks for parameter in network.parameters())
    handle.remove()


def test_measuring_between_fast_steps_changes_nothing(smoke: Smoke) -> None:
    """The fast step without its graph, which computes all normalized weights together; measured weight by weight."""
    watched, plain = (make_trainer(smoke("train.d_steps=1", "train.batch_size=4")) for _ in range(2))
    for trainer in (watched, plain):
        step = FastStep(trainer.iteration, captured=False)
        for _ in range(2):
            step.train_step()
            if trainer is watched:
                measure_gradients(trainer.iteration)
    same(watched.state.state_dict(), plain.state.state_dict())


def test_a_watched_run_is_the_same_run(trained: Trained) -> None:
    """All else in the checkpoint and in the log is equal."""
    settings = ("discriminator.normalization=srn", "train.precision=bf16", "train.steps=4")
    runs = trained(*settings), trained(*settings, "train.gradients_every=2")
    plain, watched = (read_checkpoint(run).state for run in runs)
    first = watched.pop("health")["gradients"]
    assert plain.pop("health")["gradients"] == {}
    same(plain, watched)
    without, log = (lines(run) for run in runs)
    records = [record for record in log if "gradients" in record]
    assert [record["step"] for record in records] == [0, 2, 4]
    assert first == {name: layer["gradient"] for name, layer in records[0]["gradients"]["layers"].items()}
    same([record for record in log if record not in records], without)


def test_a_record_is_in_the_log_and_in_tensorboard(trained: Trained) -> None:
    run = trained("discriminator.normalization=srn", "train.precision=bf16", "train.steps=4", "train.gradients_every=2")
    curves = read_gradients(run)
    board = EventAccumulator(str(run)).Reload()
    for tag in ("gradients/whole", "gradients/linear", "gradients_used/linear", "variance/linear", "slopes/real_max"):
        events = board.Scalars(tag)
        assert [event.step for event in events] == curves[tag][0].tolist() == [0, 2, 4]
        assert [event.value for event in events] == pytest.approx(curves[tag][1].tolist())
    assert curves["sigma/linear"][0].tolist() == [0, 4]
    assert {"saturated/real", "saturated/fake", "stable_rank_normalized/linear"} <= curves.keys()
    charts = board.Tensors("custom_scalars__config__")
    assert len(charts) == 1
    assert b"gradients/" in charts[0].tensor_proto.string_val[0]


def test_the_numbers_of_a_record_by_tag() -> None:
    slopes = {"slopes/real_mean": 0.2, "slopes/real_min": 0.1, "slopes/real_max": 0.3, "saturated/real": 0.25}
    slopes |= {"slopes/fake_mean": 0.5, "slopes/fake_min": 0.4, "slopes/fake_max": 0.6, "saturated/fake": 0.75}
    assert scalars_of(RECORD) == slopes | {
        "gradients/head": 2.0,
        "gradients_used/head": 3.0,
        "variance/head": 0.5,
        "gradients/whole": 2.0,
    }


def test_a_shared_parameter_counts_once() -> None:
    shared = nn.Linear(3, 3)
    network = nn.Sequential(shared, shared, nn.Linear(3, 1))
    network[1] = nn.Linear(3, 3)
    network[1].weight = shared.weight
    with used_weights(network) as weights:
        assert [weight.name for weight in weights] == ["0", "1", "2"]
        assert _together(weights, torch.tensor([3.0, 3.0, 4.0])) == 5.0


def test_gradients_that_are_not_finite_stop_the_run(smoke: Smoke) -> None:
    trainer = make_trainer(smoke("discriminator.normalization=none"))
    with torch.no_grad():
        trainer.state.discriminator.blocks[1].conv1.weight.mul_(1e30)
    with pytest.raises(DivergenceError, match=r"step 0: the gradient of blocks\.0\.conv1 and .* not finite"):
        measure_gradients(trainer.iteration)


@pytest.mark.parametrize(
    ("factor", "sign"),
    [(1.0, ""), (1e-9, "vanishing_gradient"), (0.0, "vanishing_gradient"), (1e9, "exploding_gradient")],
)
def test_signs_of_gradients_name_the_layer(factor: float, sign: str) -> None:
    first = {"a": 2.0, "b": 3.0, "dead from the start": 0.0}
    signs = signs_of_gradients({**first, "b": 3.0 * factor}, first)
    assert [name for name, text in signs.items() if text] == ([sign] if sign else [])
    assert sign == "" or signs[sign].startswith("the gradient in b is")
    assert signs_of_gradients({}, {}) == {"vanishing_gradient": "", "exploding_gradient": ""}


def test_the_reference_of_the_alarms_is_in_the_checkpoint() -> None:
    health = Health(gradients={"a": 2.0})
    assert Health.of(json.loads(json.dumps(health.state_dict()))) == health
    assert Health.of({}).gradients == {}  # checkpoints of earlier versions


def write_run(folder: Path, records: dict[int, float], seed: int = 0, **settings: Any) -> Path:
    """Writes the folder of a run whose gradients have these norms by step."""
    folder.mkdir(parents=True)
    spectrum = {
        "name": "head",
        "sigma": 1.5,
        "operator_norm": 2.5,
        "stable_rank": 2.0,
        "normalized_sigma": 1.0,
        "normalized_stable_rank": 2.0,
    }
    written = [{"step": 0, "layers": [spectrum]}]
    written += [{"step": step, "gradients": RECORD | {"whole": whole}} for step, whole in records.items()]
    broken = ['{"step": 8, "gradients": {"layers": 3}}', '{"step": 9, "gradients": []}', '{"step": 10, "grad']
    (folder / "metrics.jsonl").write_text("\n".join([*map(json.dumps, written), *broken]))
    (folder / "config.yaml").write_text(Config(train=TrainSettings(seed=seed), **settings).to_yaml())
    return folder


def test_seeds_share_a_curve_and_other_settings_have_their_own(tmp_path: Path) -> None:
    """Median and range of three seeds at their common steps; logarithmic, because the values differ enough."""
    runs = [
        write_run(tmp_path / "sn-seed0", {0: 1.0, 2: 10.0, 4: 50.0}, 0),
        write_run(tmp_path / "sn-seed1", {0: 2.0, 2: 5.0}, 1),
        write_run(tmp_path / "sn-seed2", {0: 3.0, 2: 90.0, 4: 0.0}, 2),
        write_run(tmp_path / "other" / "sn-seed0", {0: 7.0, 4: 8.0}, 0, conditional=True),
    ]
    groups = seeds_together(runs)
    assert list(groups.values()) == [runs[:3], runs[3:]]
    assert list(groups) == [str(runs[0]), str(runs[3])], "folders have the same name"
    assert list(seeds_together(runs[:3])) == ["sn"]
    assert [values.tolist() for values in read_gradients(runs[0])["operator_norm/head"]] == [[0], [2.5]]
    figure = gradients_figure({label: [read_gradients(run) for run in several] for label, several in groups.items()})
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[0] == "gradient of the loss, all weights"
    assert titles[-2:] == ["gradient of the loss, head", "spectral norm, head"]
    seeds, alone = figure.axes[0].lines
    assert (list(seeds.get_xdata()), list(seeds.get_ydata())) == ([0, 2], [2.0, 10.0])
    assert (list(alone.get_xdata()), list(alone.get_ydata())) == ([0, 4], [7.0, 8.0])
    (band,) = figure.axes[0].collections
    assert {(x, y) for x, y in band.get_paths()[0].vertices.tolist()} == {(0, 1), (0, 3), (2, 5), (2, 90)}
    assert [axes.get_yscale() for axes in figure.axes] == ["log", *4 * ["linear"], "log", "linear"]


def test_the_command_draws_runs_or_says_what_is_missing(tmp_path: Path) -> None:
    run, out = write_run(tmp_path / "run", {0: 1.0, 2: 10.0}), tmp_path / "new" / "figure.png"
    done(call("gan-plot", "gradients", run, write_run(tmp_path / "b", {0: 0.0}, conditional=True), "--out", out))
    with Image.open(out) as image:
        assert image.size == (2400, 800)
    refused(call("gan-plot", "gradients", tmp_path), "holds no metrics.jsonl", "expected the folder of a run")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "d_loss": 0.5}')
    refused(call("gan-plot", "gradients", run, tmp_path), "holds no gradients", "--set train.gradients_every=100")
    later = write_run(tmp_path / "later", {1: 1.0}, 1)
    refused(call("gan-plot", "gradients", run, later, "--out", out), "no step in common", "train.gradients_every")
    refused(call("gan-plot", "gradients", run, "--out", tmp_path / "figure.pdf"), "ends with .png")
    refused(call("gan-plot", "losses", run), "'losses' is not 'gradients'")
