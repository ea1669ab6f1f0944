"""Tests of gan.training.health: signs of a collapse, alarms, and retries after a divergence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from commands import done, refused
from equality import lines, same
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gan.losses import LOSSES
from gan.noise import attempt_seed
from gan.normalization import LayerSpectrum
from gan.runs.best import Best, read_best
from gan.runs.checkpoint import read_checkpoint
from gan.runs.finding import best_checkpoints, list_checkpoints
from gan.runs.folder import _delete_outputs_after
from gan.training import health
from gan.training.health import Health, gradient_size, signs_of_line, signs_of_samples, spread
from gan.training.iteration import Iteration
from gan.training.trainer import Trainer

Train = Callable[..., Result]
LAYER = LayerSpectrum("head", 2.0, 3.0, None, False, 1.0, 3.0)
HEALTHY = {"d_loss": 1.2, "real_logit": 0.5, "fake_logit": -0.4}


def records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def alarms(run: Path) -> list[tuple[str, bool]]:
    return [(record["alarm"], record["begins"]) for record in records(run) if "alarm" in record]


def seen(signs: dict[str, str]) -> list[str]:
    return [name for name, text in signs.items() if text]


def line(loss: str = "hinge", gradient: float = 1e-3, sigma: float = 2.0, **scalars: float) -> list[str]:
    return seen(signs_of_line(LOSSES[loss], HEALTHY | scalars, [LAYER._replace(sigma=sigma)], {"head": 2.0}, gradient))


def test_which_losses_have_bounds() -> None:
    assert {name for name in LOSSES if LOSSES[name].certain_loss is not None} >= {"hinge", "non_saturating"}
    assert LOSSES["wasserstein"].certain_loss is None, "it has no lower bound"
    assert all(LOSSES[name].indifferent_gap is not None for name in ("hinge", "non_saturating", "wasserstein"))


@pytest.mark.parametrize("loss", LOSSES)
def test_the_bounds_stand_between_a_constant_discriminator_and_a_certain_one(loss: str) -> None:
    """Losses of a constant and of a perfect discriminator lie on either side of the bounds."""
    ones = torch.ones(8)
    constant = float(LOSSES[loss].discriminator(0.3 * ones, 0.3 * ones))
    certain = float(LOSSES[loss].discriminator(5 * ones, -5 * ones))
    expected = ["discriminator_indifferent"] if LOSSES[loss].indifferent_gap is not None else []
    assert line(loss, d_loss=constant, real_logit=0.3, fake_logit=0.3) == expected
    expected = ["discriminator_certain"] if LOSSES[loss].certain_loss is not None else []
    assert line(loss, d_loss=certain, real_logit=5.0, fake_logit=-5.0) == expected


@pytest.mark.parametrize(("scale", "sign"), [(1e3, True), (1.0, False)])
def test_wasserstein_logits_are_equal_up_to_rounding_or_not(scale: float, sign: bool) -> None:
    expected = ["discriminator_indifferent"] if sign else []
    assert line("wasserstein", real_logit=scale + 1e-4, fake_logit=scale) == expected


def test_spectral_norms_and_gradients() -> None:
    assert line() == []
    assert line(sigma=39.0) == []
    assert line(sigma=41.0) == ["spectral_norm"]
    assert line(gradient=0.0) == ["no_gradient"]


def test_the_size_of_gradients_is_their_root_mean_square() -> None:
    network = torch.nn.Linear(3, 1)
    assert gradient_size(network) == 0
    network.weight.grad, network.bias.grad = torch.tensor([[1.0, 2.0, 2.0]]), torch.tensor([4.0])
    assert gradient_size(network) == pytest.approx(2.5)


def test_the_spread_compares_within_groups() -> None:
    images = torch.tensor([0.0, 2.0]).view(1, 2, 1, 1, 1) + torch.tensor([0.0, 100.0]).view(2, 1, 1, 1, 1)
    assert spread(images) == pytest.approx(2**0.5)
    assert seen(signs_of_samples(0.19)) == ["identical_samples"]
    assert seen(signs_of_samples(0.21)) == []


def test_an_alarm_begins_after_its_patience_and_ends_at_once() -> None:
    memory, told = Health(), []
    for step, text in enumerate(["", "x", "x", "x", "", *"xxxxxx", "", ""]):
        told += [(step, alarm.begins, alarm.since) for alarm in memory.watch(step, {"no_gradient": text})]
        memory = Health(**json.loads(json.dumps(memory.state_dict())))  # as from a checkpoint
    assert told == [(9, True, 4), (11, False, 11)]


def test_a_healthy_run_raises_no_alarm(trained: Callable[..., Path]) -> None:
    run = trained("train.steps=60", "train.gradients_every=5")
    assert alarms(run) == []
    board = EventAccumulator(str(run)).Reload()
    assert {tag for tag in board.Tags()["scalars"] if tag.startswith("train/alarms/")} == {
        f"train/alarms/{name}" for name in health.PATIENCE
    }


def test_a_huge_learning_rate_raises_alarms(train: Train, tmp_path: Path) -> None:
    """Dead layers: constant discriminator, no gradients, equal images. Each alarm is reported once and stays active."""
    settings = ["--set=train.steps=40", "--set=train.learning_rate=1", "--set=train.gradients_every=5"]
    result = done(train("run", *settings))
    expected = ["discriminator_indifferent", "identical_samples", "no_gradient", "spectral_norm", "vanishing_gradient"]
    assert sorted(alarms(tmp_path / "run")) == [(name, True) for name in expected]
    assert "alarm vanishing_gradient begins: the gradient in blocks." in result.output
    assert result.output.count("alarm no_gradient begins") == 1
    board = EventAccumulator(str(tmp_path / "run")).Reload()
    assert [(event.step, event.value) for event in board.Scalars("train/alarms/no_gradient")][3:] == [
        *((20, 0.0), (25, 1.0), (30, 1.0), (35, 1.0), (40, 1.0))
    ]


def test_a_discriminator_far_ahead_raises_an_alarm(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The generator does not change, as with a learning rate of 0."""
    monkeypatch.setattr(Iteration, "update_generator", lambda self, inputs: torch.zeros(()))
    settings = ["--set=train.d_steps=10", "--set=train.learning_rate=0.002", "--set=train.steps=60"]
    train("run", *settings, "--set=discriminator.normalization=none")
    assert ("discriminator_certain", True) in alarms(tmp_path / "run")


def test_an_alarm_stops_the_run_if_asked(train: Train, tmp_path: Path) -> None:
    """Two grids have no spread; the last one with spread is that of step 0."""
    settings = ["--set=train.steps=40", "--set=train.learning_rate=1", "--set=train.on_alarm=stop"]
    refused(
        train("run", *settings),
        "error: step 20: alarm identical_samples: ",
        f"last good checkpoint is {list_checkpoints(tmp_path / 'run')[0]}",
    )
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["step-00000000.pt", "step-00000010.pt"]


@pytest.fixture
def diverging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the generator's weights NaN in step 14 of the first attempt."""
    step = Trainer.train_step

    def diverge(self: Trainer) -> None:
        step(self)
        if self.state.step == 14 and not self.state.retries:
            with torch.no_grad():
                next(self.state.generator.parameters()).fill_(float("nan"))

    monkeypatch.setattr(Trainer, "train_step", diverge)


@pytest.mark.usefixtures("diverging")
def test_a_divergence_names_the_checkpoint_from_before(train: Train, tmp_path: Path) -> None:
    result = train("run")
    assert result.exit_code == 2
    newest = list_checkpoints(tmp_path / "run")[-1]
    assert newest.name == "step-00000010.pt"
    assert f"the last good checkpoint is {newest}" in result.output
    assert "step 15: a weight of the generator not finite" in result.output or "g_loss" in result.output


@pytest.mark.usefixtures("diverging")
def test_a_divergence_before_the_first_interval_has_a_checkpoint_too(train: Train, tmp_path: Path) -> None:
    result = train("run", "--set=train.checkpoint_every=0")
    assert f"the last good checkpoint is {list_checkpoints(tmp_path / 'run')[0]}" in result.output
    assert read_checkpoint(tmp_path / "run").state["step"] == 0


@pytest.mark.usefixtures("diverging")
def test_a_retry_goes_on_with_other_numbers_and_resumes_bit_exactly(train: Train, tmp_path: Path) -> None:
    """Interruptions before the divergence and in the second attempt, between two log lines."""
    settings = ["--set=train.retries=1", "--set=train.steps=25"]
    result = done(train("whole", *settings))
    assert "retry 1 of 1, from" in result.output
    train("parts", *settings, "--stop-after", "10")
    for limit in ("10", "17", "25"):
        done(train("parts", *settings, "--resume", "--stop-after", limit))
    whole, parts = (read_checkpoint(tmp_path / run).state for run in ("whole", "parts"))
    same(whole, parts)
    same(lines(tmp_path / "whole"), lines(tmp_path / "parts"))
    ((retry),) = whole["retries"]
    assert retry["from"] == 10
    assert "not finite" in retry["reason"]
    assert [record.get("attempt") for record in records(tmp_path / "whole") if "d_loss" in record] == [
        *(None, None, 1, 1, 1)
    ]


@pytest.mark.usefixtures("diverging")
def test_a_retry_draws_other_numbers(
    train: Train, trained: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train("retried", "--set=train.retries=1")
    monkeypatch.undo()
    retried, straight = (read_checkpoint(run).state for run in (tmp_path / "retried", trained()))
    assert not torch.equal(retried["generator"]["linear.weight"], straight["generator"]["linear.weight"])
    assert attempt_seed(7, 0) == 7
    assert len({attempt_seed(7, attempt) for attempt in range(100)}) == 100


def test_a_run_that_diverges_in_every_attempt_ends_with_the_sentence(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer.train_step

    def diverge(self: Trainer) -> None:
        step(self)
        if self.state.step == 14:
            self.state.totals[0] = float("nan")

    monkeypatch.setattr(Trainer, "train_step", diverge)
    refused(
        train("run", "--set=train.retries=2"),
        "retry 2 of 2",
        "error: step 15: d_loss not finite",
        "the run has stopped after 2 of 2 retries; the last good checkpoint is",
    )
    assert len(read_checkpoint(tmp_path / "run").state["retries"]) == 2


def test_a_retry_after_an_alarm_goes_back_to_before_its_first_sign(train: Train, tmp_path: Path) -> None:
    """Newer checkpoints, written during the collapse, are deleted."""
    settings = ["--set=train.learning_rate=1", "--set=train.on_alarm=stop", "--set=train.keep_checkpoints=9"]
    refused(train("run", *settings, "--set=train.retries=1"), "retry 1 of 1, from", "last good checkpoint is")
    (retry,) = read_checkpoint(tmp_path / "run").state["retries"]
    assert retry["from"] == 0


def test_what_a_retry_gives_up_is_removed(tmp_path: Path) -> None:
    """Reports, sample grids and the best checkpoint of later steps are deleted; gan-eval's reports are kept."""
    kept = ["reports/00000004/report.json", "samples/step-00000004.png", "samples/final.png", "best.json"]
    kept += ["reports/00000004-12/report.json", "reports/mine-12/report.json", "samples/mine-12.png"]
    later = ["reports/00000008/report.json", "samples/step-00000008.png", "checkpoints/best-00000008.pt"]
    for name in (*kept, *later):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    asked = tmp_path / "reports" / "00000009" / "report.json"  # as gan-eval writes it
    asked.parent.mkdir()
    asked.write_text('{"subject": {"checkpoint": "checkpoints/step-00000009.pt"}}')
    (tmp_path / later[0]).write_text('{"subject": {"step": 8}}')
    _delete_outputs_after(tmp_path, 4)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {*kept, "reports/00000009/report.json"} - {"best.json"}, "the record named what is gone"


@pytest.mark.usefixtures("diverging")
@pytest.mark.parametrize("retries", [0, 1])
def test_a_retry_keeps_the_best_from_before(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, retries: int
) -> None:
    """Evaluations at steps 4, 8 and 12 give 3, 9 and 1; the retry from step 10 deletes the last for good."""
    found = {4: 3.0, 8: 9.0, 12: 1.0}
    measure = Best.consider

    def consider(self: Best, values: dict[str, float], entries: Any, step: int, save: Any) -> bool:
        value = found.pop(step, 5.0)
        return measure(self, dict.fromkeys(values, value), entries, step, save)

    monkeypatch.setattr(Best, "consider", consider)
    settings = ["--set=train.eval_every=4", "--set=train.keep_best=fid", "--set=train.steps=20"]
    result = train("run", *settings, f"--set=train.retries={retries}")
    best = read_best(tmp_path / "run")
    assert best is not None
    assert (best["step"], best["value"]) == ((4, 3.0) if retries else (12, 1.0)), result.output
    assert [path.name for path in best_checkpoints(tmp_path / "run")] == [best["checkpoint"]]


def test_a_checkpoint_without_health_still_continues(train: Train, tmp_path: Path) -> None:
    """Checkpoint written before alarms and retries existed."""
    train("run", "--stop-after", "10")
    path = list_checkpoints(tmp_path / "run")[-1]
    stored = torch.load(path, weights_only=True)
    del stored["state"]["health"], stored["state"]["retries"]
    torch.save(stored, path)
    done(train("run", "--resume"))
