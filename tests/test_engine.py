"""Tests of the run engine from Python, and of parts shared by GANs and classifiers."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result
from commands import call, done, refused
from equality import same

from gan import runs
from gan.errors import ConfigError
from gan.runs.checkpoint import read_checkpoint
from gan.runs.finding import list_checkpoints
from gan.training.classifier import ClassifierTrainer

CLASSIFIER = ("train.epochs=2", "data.num_train=200", "train.batch_size=50")


def test_python_trains_as_the_command_does(train: Callable[..., Result], tmp_path: Path, small_shapes: Path) -> None:
    settings = ["train.steps=2", f"data.root={small_shapes}"]
    folder = runs.train("smoke", run=tmp_path / "python", overrides=settings, device="cpu")
    assert folder == tmp_path / "python"
    done(train("command", "--set", "train.steps=2"))
    same(read_checkpoint(folder).state, read_checkpoint(tmp_path / "command").state)
    assert "gan.runs.train('smoke'" in json.loads((folder / "run.json").read_text())["commands"][0]


def test_python_trains_classifiers_and_resumes(tmp_path: Path, small_shapes: Path) -> None:
    settings = [*CLASSIFIER, f"data.root={small_shapes}"]
    runs.train("classifier_smoke", run=tmp_path / "parts", overrides=settings, device="cpu", stop_after=3)
    runs.train("classifier_smoke", run=tmp_path / "parts", overrides=settings, device="cpu", resume=True)
    runs.train("classifier_smoke", run=tmp_path / "whole", overrides=settings, device="cpu")
    same(*(read_checkpoint(tmp_path / name).state for name in ("parts", "whole")))


def test_python_refuses_what_the_command_refuses(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.loss: got 'hing'"):
        runs.train("smoke", run=tmp_path / "run", overrides=["train.loss=hing"])
    assert not (tmp_path / "run").exists()


def test_several_classifiers_are_trained_by_one_command(tmp_path: Path, small_shapes: Path) -> None:
    settings = [f"--set={setting}" for setting in (*CLASSIFIER, f"data.root={small_shapes}")]
    shared = ["--config", "classifier_smoke", "--device", "cpu", *settings]
    result = done(call("gan-train-classifier", *shared, "--seeds", "3,1", "--at-once", "2", "--run", tmp_path))
    assert "2 of 2 runs succeeded" in result.output
    assert read_checkpoint(tmp_path / "classifier_smoke-seed3").config["train"]["seed"] == 3


def test_a_classifier_in_several_processes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = call("gan-train-classifier", "--config", "classifier_smoke", "--run", tmp_path / "run", "--device", "cpu")
    refused(result, "trains in one process, got 2")
    assert not (tmp_path / "run").exists()


def test_a_classifier_that_diverges_is_retried(
    tmp_path: Path, small_shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt diverges in the second epoch; the second attempt draws other batches from the start."""
    step = ClassifierTrainer.train_step

    def train_step(self: ClassifierTrainer) -> None:
        step(self)
        if self.state.step == 6 and not self.state.retries:
            self.state.totals[0] = torch.nan

    monkeypatch.setattr(ClassifierTrainer, "train_step", train_step)
    settings = [f"--set={setting}" for setting in (*CLASSIFIER, f"data.root={small_shapes}")]
    shared = ["--config", "classifier_smoke", "--device", "cpu", *settings, "--run", tmp_path / "run"]
    result = done(call("gan-train-classifier", *shared, "--set", "train.retries=1"))
    assert "retry 1 of 1" in result.output
    state = read_checkpoint(tmp_path / "run").state
    assert (state["step"], [entry["from"] for entry in state["retries"]]) == (8, [4])
    assert len(list_checkpoints(tmp_path / "run")) == 2
