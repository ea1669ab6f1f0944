"""Tests of several parallel runs: the plan, equality with single runs, and termination."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import commands
import pytest
import torch
from commands import done, refused

from gan.launch.several import Ended, Planned, plan, run_all
from gan.launch.slurm import Task, submit
from gan.runs.checkpoint import read_checkpoint
from gan.runs.finding import list_checkpoints

call = partial(commands.call, "gan-train")
SMALL = ("--set=train.steps=4", "--device=cpu")


def test_every_configuration_with_every_seed_and_devices_take_turns() -> None:
    planned = plan(
        [("sn", "a.yaml"), ("srn", "b.yaml")], [0, 7], Path("out"), ["--resume"], ["cuda:0", "cuda:1"], "gan.train"
    )
    assert [run.folder.as_posix() for run in planned] == [
        *("out/sn-seed0", "out/sn-seed7", "out/srn-seed0", "out/srn-seed7")
    ]
    assert planned[1].arguments == [
        *("--config", "a.yaml", "--resume", "--run", "out/sn-seed7"),
        *("--device", "cuda:1", "--set", "train.seed=7"),
    ]
    assert [run.folder.name for run in plan([("sn", "a.yaml")], [], Path("out"), [], ["cpu"], "gan.train")] == ["sn"]


@pytest.fixture
def half_the_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sets half of the machine's threads, as for two runs at once; it determines the order of summation."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))
    yield
    torch.set_num_threads(threads)


def test_each_run_is_the_run_it_would_be_alone(half_the_threads: None, tmp_path: Path, small_shapes: Path) -> None:
    small = (*SMALL, f"--set=data.root={small_shapes}")
    result = done(call("--config", "smoke", "--seeds", "3,1", "--run", tmp_path, "--at-once", 2, *small))
    assert "2 of 2 runs succeeded" in result.output
    assert "[smoke-seed3] done: 4 steps" in result.output
    done(call("--config", "smoke", "--run", tmp_path / "alone", "--set=train.seed=3", *small))
    one, other = (read_checkpoint(tmp_path / run) for run in ("smoke-seed3", "alone"))
    assert one.config == other.config
    for name, value in one.state["generator"].items():
        assert torch.equal(value, other.state["generator"][name]), name


def test_one_that_fails_does_not_stop_the_others_and_is_named(tmp_path: Path, small_shapes: Path) -> None:
    small = (*SMALL, f"--set=data.root={small_shapes}")
    (tmp_path / "smoke-seed0").mkdir()
    (tmp_path / "smoke-seed0" / "metrics.jsonl").touch()
    refused(
        call("--config", "smoke", "--seeds", "0,1", "--run", tmp_path, "--at-once", 1, *small),
        "holds a run already",
        "1 of 2 runs succeeded",
        f"failed: {tmp_path / 'smoke-seed0'} (status 2)",
    )
    assert list_checkpoints(tmp_path / "smoke-seed1")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--seeds", "0,1"], ["--config"]),
        (["--config", "smoke", "--seeds", "0,x"], ["0,x", "whole numbers"]),
        (["--config", "smoke", "--seeds", "1,1"], ["each seed once"]),
        (["--config", "smoke", "--config", "smoke"], ["share a folder"]),
        (["--config", "smoke", "--config", "smok"], ["smok"]),
        (["--config", "smoke", "--seeds", "0,1", "--set=train.loss=hing"], ["hinge"]),
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
    assert "0 of 3 runs succeeded" in rest
    assert all(list_checkpoints(tmp_path / f"smoke-seed{seed}") for seed in (0, 1))
    assert not (tmp_path / "smoke-seed2").exists()


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_a_cluster_trains_every_configuration_with_every_seed(tmp_path: Path, small_shapes: Path) -> None:
    """Uses submitit's executor that runs jobs in this process when their results are requested."""
    pytest.importorskip("submitit")
    planned = plan(
        [("smoke", "smoke")],
        [3],
        tmp_path,
        ["--resume", *SMALL, f"--set=data.root={small_shapes}"],
        ["cpu"],
        "gan.train",
    )
    (job,) = submit(planned, tmp_path / "slurm", {"cluster": "debug", "timeout_min": 5})
    assert job.result() == str(tmp_path / "smoke-seed3")
    read = read_checkpoint(tmp_path / "smoke-seed3")
    assert (read.state["step"], read.config["train"]["seed"]) == (4, 3)
    gc.collect()  # that executor leaves its logs open


def test_jobs_are_named_and_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted: list[Planned] = []

    def accept(planned: list[Planned], folder: Path, resources: dict[str, str | int]) -> list[SimpleNamespace]:
        assert resources == {"partition": "gpu", "timeout_min": 600}
        submitted.extend(planned)
        return [SimpleNamespace(job_id=f"7_{index}") for index in range(len(planned))]

    monkeypatch.setattr("gan.command.several.submit", accept)
    result = done(
        call(*("--config", "smoke", "--seeds", "3,1", "--run", tmp_path, "--slurm", "partition=gpu,timeout_min=600"))
    )
    assert f"job 7_1: {tmp_path / 'smoke-seed1'}" in result.output
    assert all(run.arguments.count("--resume") == 1 for run in submitted)
    assert [run.folder.name for run in submitted] == ["smoke-seed3", "smoke-seed1"]


def test_a_job_that_is_taken_away_saves_and_is_queued_again(tmp_path: Path, small_shapes: Path) -> None:
    pytest.importorskip("submitit")
    settings = ["--device=cpu", f"--set=data.root={small_shapes}", "--set=train.steps=100000", "--resume"]
    task, ends = Task(Planned(tmp_path, ["--config=smoke", f"--run={tmp_path}", *settings], "gan.train")), list[int]()

    def train() -> None:
        try:
            task()
        except subprocess.CalledProcessError as error:
            ends.append(error.returncode)

    trained = threading.Thread(target=train)
    trained.start()
    while not list_checkpoints(tmp_path):
        time.sleep(0.05)
        assert trained.is_alive()
    again = task.checkpoint()
    trained.join()
    assert ends == [143]
    assert again.function.run == task.run
    assert read_checkpoint(tmp_path).state["step"] > 0


@pytest.mark.parametrize("text", ["partition", "=gpu", "a=1,,b=2"])
def test_resources_that_are_none_are_refused(text: str, tmp_path: Path) -> None:
    refused(call("--config", "smoke", "--slurm", text, "--run", tmp_path / "runs"), "expected name=value")


def test_a_parameter_that_slurm_does_not_know_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    refused(
        call("--config", "smoke", "--slurm", "cluster=local,partitoin=gpu", "--run", tmp_path / "runs"),
        "local_partitoin",
    )


def test_a_run_gets_its_arguments_and_its_lines_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "echo")
    said: list[str] = []
    (ended,) = run_all([Planned(Path("one"), ["word"], "gan.train")], 1, said.append)
    assert ended.status == 0
    assert ended.seconds > 0
    assert said == ["[one] -m gan.train word"]


def test_a_process_that_a_signal_ended_is_told_from_one_that_failed(tmp_path: Path) -> None:
    """The exit status does not tell: a process without a signal handler, such as timeit here, ends with 1."""
    sleeping = Planned(tmp_path, ["-n1", "-r1", "-simport time", "time.sleep(60)"], "timeit")
    timer = threading.Timer(3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    (ended,) = run_all([sleeping], 1, lambda line: None)
    assert (ended.status, ended.stopped) == (1, True)
    (ended,) = run_all([sleeping._replace(arguments=["-n1", "-r1", "no_such_name"])], 1, lambda line: None)
    assert (ended.status, ended.stopped) == (1, False)


@pytest.mark.parametrize(("fast", "expected"), [("off", 8), ("auto", 2), ("on", 2)])
def test_runs_with_the_fast_step_have_a_gpu_each(
    fast: str, expected: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started: list[tuple[list[str], int]] = []

    def run_all(planned: list[Planned], at_once: int, say: object) -> list[Ended]:
        started.append(([run.arguments[run.arguments.index("--device") + 1] for run in planned], at_once))
        return [Ended(0, 0.0) for _ in planned]

    monkeypatch.setattr("gan.command.several.run_all", run_all)
    monkeypatch.setattr("gan.runtime.device.choose_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    done(call("--config", "smoke", "--seeds", "0,1", "--run", tmp_path, f"--set=train.fast={fast}"))
    assert started == [(["cuda:0", "cuda:1"], expected)]
