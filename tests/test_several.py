"""Several runs at once: what is planned, that each is the run it would be alone, and how they end."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from gan.checkpoint import list_checkpoints, read_checkpoint
from gan.several import Planned, plan, train_all
from gan.train import main as gan_train

SMALL = ("--set=train.steps=4", "--device=cpu")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(gan_train, [str(argument) for argument in arguments], prog_name="gan-train")


def test_every_configuration_with_every_seed_and_devices_take_turns() -> None:
    planned = plan([("sn", "a.yaml"), ("srn", "b.yaml")], [0, 7], Path("out"), ["--resume"], ["cuda:0", "cuda:1"])
    assert [run.folder.as_posix() for run in planned] == [
        *("out/sn-seed0", "out/sn-seed7", "out/srn-seed0", "out/srn-seed7")
    ]
    assert planned[1].arguments == [
        *("--config", "a.yaml", "--resume", "--run", "out/sn-seed7"),
        *("--device", "cuda:1", "--set", "train.seed=7"),
    ]
    assert [run.folder.name for run in plan([("sn", "a.yaml")], [], Path("out"), [], ["cpu"])] == ["sn"]


def test_each_run_is_the_run_it_would_be_alone(tmp_path: Path, small_shapes: Path) -> None:
    small = (*SMALL, f"--set=data.root={small_shapes}")
    result = call("--config", "smoke", "--seeds", "3,1", "--run", tmp_path, "--at-once", 2, *small)
    assert result.exit_code == 0, result.output
    assert "2 of 2 runs ended well" in result.output
    assert "[smoke-seed3] done: 4 steps" in result.output
    alone = call("--config", "smoke", "--run", tmp_path / "alone", "--set=train.seed=3", *small)
    assert alone.exit_code == 0, alone.output
    one, other = (read_checkpoint(tmp_path / run) for run in ("smoke-seed3", "alone"))
    assert one.config == other.config
    for name, value in one.state["generator"].items():
        torch.testing.assert_close(value, other.state["generator"][name], rtol=1e-4, atol=1e-5, msg=name)


def test_one_that_fails_does_not_stop_the_others_and_is_named(tmp_path: Path, small_shapes: Path) -> None:
    small = (*SMALL, f"--set=data.root={small_shapes}")
    (tmp_path / "smoke-seed0").mkdir()
    (tmp_path / "smoke-seed0" / "metrics.jsonl").touch()
    result = call("--config", "smoke", "--seeds", "0,1", "--run", tmp_path, "--at-once", 1, *small)
    assert result.exit_code == 2
    assert "holds a run already" in result.output
    assert "1 of 2 runs ended well" in result.output
    assert f"not so: {tmp_path / 'smoke-seed0'} (status 2)" in result.output
    assert list_checkpoints(tmp_path / "smoke-seed1")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--seeds", "0,1"], ["--config"]),
        (["--config", "smoke", "--seeds", "0,x"], ["0,x", "whole numbers"]),
        (["--config", "smoke", "--seeds", "1,1"], ["each seed once"]),
        (["--config", "smoke", "--config", "smoke"], ["share a folder"]),
        (["--config", "smoke", "--config", "smok"], ["smok"]),
        (["--config", "smoke", "--seeds", "0,1", "--set", "train.loss=hing"], ["hinge"]),
    ],
)
def test_nothing_starts_where_something_is_wrong(arguments: list[str], parts: list[str], tmp_path: Path) -> None:
    result = call(*arguments, "--run", tmp_path / "runs")
    assert result.exit_code == 2
    assert all(part in result.output for part in parts), result.output
    assert not (tmp_path / "runs").exists()


def test_a_signal_lets_all_save_and_starts_no_more(tmp_path: Path, small_shapes: Path) -> None:
    settings = [f"--set=data.root={small_shapes}", "--set=train.steps=100000", "--set=train.log_every=1"]
    command = [sys.executable, "-m", "gan.train", "--config", "smoke", "--seeds", "0,1,2", "--at-once", "2"]
    process = subprocess.Popen([*command, *settings, "--run", str(tmp_path)], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    trained: set[str] = set()
    while len(trained) < 2:
        line = process.stderr.readline()
        assert line, "ended before two runs trained"
        if "] step 2/" in line:
            trained.add(line.partition("]")[0])
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=120)
    assert process.returncode == 143, rest
    assert "0 of 3 runs ended well" in rest
    assert all(list_checkpoints(tmp_path / f"smoke-seed{seed}") for seed in (0, 1))
    assert not (tmp_path / "smoke-seed2").exists()


def test_a_run_gets_its_arguments_and_its_lines_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "echo")
    said: list[str] = []
    assert train_all([Planned(Path("one"), ["word"])], 1, said.append) == [0]
    assert said == ["[one] -m gan.train word"]
