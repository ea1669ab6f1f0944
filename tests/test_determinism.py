"""Tests of --deterministic: flags set and restored, errors, and bitwise equal runs on a GPU."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from commands import done
from equality import same

from gan.errors import ConfigError
from gan.evaluate import main as gan_eval
from gan.runs.checkpoint import read_checkpoint
from gan.runtime.determinism import determinism
from gan.sample import main as gan_sample
from gan.training.trainer import Trainer

Train = Callable[..., Result]


def flags() -> tuple[bool, bool, bool]:
    cudnn = torch.backends.cudnn
    return torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark


@pytest.fixture(autouse=True)
def no_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unsets CUBLAS_WORKSPACE_CONFIG, which is restored after the test even if the test sets it."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")


def test_the_flags_are_set_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    before = flags()
    with determinism(True):
        assert flags() == (True, True, False)
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert flags() == before
    with determinism(False):
        assert flags() == before


def test_a_workspace_that_is_not_reproducible_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    with pytest.raises(ConfigError, match="got CUBLAS_WORKSPACE_CONFIG=':0:0', expected :4096:8 or :16:8"):
        determinism(True).__enter__()


def test_the_workspace_is_chosen_before_a_gpu_is_used(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def choose(name: str) -> torch.device:
        seen.append(os.environ.get("CUBLAS_WORKSPACE_CONFIG"))
        return torch.device("cpu")

    monkeypatch.setattr("gan.runtime.device.choose_device", choose)
    train("run", "--deterministic", "--dry-run")
    assert seen == [":4096:8"]


def test_training_evaluation_and_samples_take_it_and_the_run_records_it(train: Train, tmp_path: Path) -> None:
    for run, options in (("exact", ["--deterministic"]), ("plain", [])):
        done(train(run, "--set=train.steps=2", *options))
        assert json.loads((tmp_path / run / "run.json").read_text())["deterministic"] is bool(options)
    assert not torch.are_deterministic_algorithms_enabled()
    shared = ["--run", str(tmp_path / "exact"), "--device", "cpu", "--deterministic"]
    done(CliRunner().invoke(gan_eval, shared))
    done(CliRunner().invoke(gan_sample, [*shared, "--num", "4"]))


def test_an_operation_without_a_deterministic_version_is_named(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """max_unpool2d has no deterministic version, on a CPU either."""
    pooled, where = torch.nn.functional.max_pool2d(torch.rand(1, 1, 4, 4), 2, return_indices=True)
    monkeypatch.setattr(Trainer, "train_step", lambda self: torch.nn.functional.max_unpool2d(pooled, where, 2))
    result = train("run", "--deterministic")
    assert result.exit_code == 2
    (sentence,) = [text for text in result.output.splitlines() if "error:" in text]
    assert "error: --deterministic: max_unpooling2d_forward_out has no deterministic version" in sentence


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("fast", ["off", "on"])
def test_two_runs_on_a_gpu_are_equal(tmp_path: Path, small_shapes: Path, fast: str) -> None:
    """Each run has a process of its own, because cuBLAS reads its variable only once."""
    for run in ("one", "two"):
        command = [sys.executable, "-m", "gan.train", "--config", "smoke", "--device", "cuda", "--deterministic"]
        settings = [f"--set=data.root={small_shapes}", f"--set=train.fast={fast}", "--run", str(tmp_path / run)]
        subprocess.run([*command, *settings], check=True, timeout=300)
    same(*(read_checkpoint(tmp_path / run).state for run in ("one", "two")))
