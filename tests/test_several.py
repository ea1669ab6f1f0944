"""Tests of several parallel runs: the plan, equality with single runs, and termination."""

import gc
import os
import shlex
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
from gan.launch.sweep import Variation, variations
from gan.runs.checkpoint import read_checkpoint
from gan.runs.finding import list_checkpoints

call = partial(commands.call, "gan-train")
SMALL = ("--set=train.steps=4", "--device=cpu")


def test_every_configuration_with_every_seed_and_devices_take_turns() -> None:
    configs, devices = [("sn", "a.yaml"), ("srn", "b.yaml")], ["cuda:0", "cuda:1"]
    planned = plan(configs, variations([], [0, 7]), Path("out"), ["--resume"], devices, "gan.train")
    assert [run.folder.as_posix() for run in planned] == [
        *("out/sn-seed0", "out/sn-seed7", "out/srn-seed0", "out/srn-seed7")
    ]
    assert planned[1].arguments == [
        *("--config", "a.yaml", "--resume", "--run", "out/sn-seed7"),
        *("--device", "cuda:1", "--set", "train.seed=7"),
    ]
    assert [
        run.folder.name for run in plan([("sn", "a.yaml")], variations([]), Path("out"), [], ["cpu"], "gan.train")
    ] == ["sn"]


SWEEPS: dict[str, tuple[list[str], list[str], list[str]]] = {
    "values as written": (
        ["train.learning_rate=1e-4, 0.0002"],
        ["learning_rate=1e-4", "learning_rate=0.0002"],
        ["1e-4", "0.0002"],
    ),
    "lists": (["generator.widths=[8, 4],[4, 2]"], ["widths=8_4", "widths=4_2"], ["[8, 4]", "[4, 2]"]),
    "text with commas": (["eval.metrics='fid,is',fid"], ["metrics=fid_is", "metrics=fid"], ["'fid,is'", "fid"]),
    "paths": (["data.root=data/a,/b"], ["root=data_a", "root=b"], ["data/a", "/b"]),
    "no text": (["train.keep_best='',fid"], ["keep_best=empty", "keep_best=fid"], ["''", "fid"]),
}


@pytest.mark.parametrize("name", SWEEPS)
def test_values_of_a_sweep_are_items_of_a_list(name: str) -> None:
    sweeps, names, texts = SWEEPS[name]
    place = sweeps[0].partition("=")[0]
    assert variations(sweeps) == [
        Variation(*pair) for pair in zip(names, [(f"{place}={text}",) for text in texts], strict=True)
    ]


def test_several_sweeps_are_a_product_with_the_seeds() -> None:
    found = variations(["train.d_steps=1,5", "train.learning_rate=1e-4,2e-4"], [0, 1])
    assert len(found) == 8
    assert found[1] == Variation(
        "d_steps=1-learning_rate=1e-4-seed1", ("train.d_steps=1", "train.learning_rate=1e-4", "train.seed=1")
    )
    assert found[-1].name == "d_steps=5-learning_rate=2e-4-seed1"
    (first, *_) = variations(["generator.channels=8,16", "discriminator.channels=8,16"])
    assert first.name == "generator.channels=8-discriminator.channels=8"


@pytest.mark.parametrize(
    ("command", "config", "swept", "folders"),
    [
        (
            "gan-train",
            "smoke",
            ["train.d_steps=1,2", "train.learning_rate=1e-4,1e-3"],
            ["d_steps=2-learning_rate=1e-4"],
        ),
        ("gan-train-classifier", "classifier_smoke", ["train.learning_rate=0.1,0.2"], ["learning_rate=0.2"]),
    ],
)
@pytest.mark.parametrize("slurm", [[], ["--slurm", "partition=gpu"]])
def test_a_dry_run_lists_the_commands(
    command: str, config: str, swept: list[str], folders: list[str], slurm: list[str], tmp_path: Path
) -> None:
    """Each line is a command that trains the run alone; nothing is started or written."""
    sweeps = [f"--sweep={sweep}" for sweep in swept]
    result = done(
        commands.call(
            command, "--config", config, *sweeps, "--run", tmp_path / "runs", "--device=cpu", *slurm, "--dry-run"
        )
    )
    *lines, last = result.stdout.splitlines()
    assert last == f"{len(lines)} runs, none started"
    assert len(lines) == 2 ** len(swept)
    assert f"--run {tmp_path / 'runs' / f'{config}-{folders[0]}'} " in "".join(f"{line}\n" for line in lines)
    assert not (tmp_path / "runs").exists()
    python, dash, module, *arguments = shlex.split(lines[0])
    assert (python, dash, f"gan-{module.removeprefix('gan.').replace('_', '-')}") == ("python", "-m", command)
    done(commands.call(command, *(argument for argument in arguments if argument != "--resume"), "--dry-run"))


@pytest.mark.parametrize(
    ("swept", "warning"),
    [
        ("discriminator.gp_coefficient=1,2", "smoke-gp_coefficient=1, smoke-gp_coefficient=2 (discriminator.gp_coeff"),
        ("eval.num_fid=10,20", "smoke-num_fid=10, smoke-num_fid=20 (eval.num_fid: no effect on training here)"),
        ("data.root=a,b", ""),  # other images
        ("discriminator.c=0.1,0.2", ""),
    ],
)
def test_runs_that_a_sweep_does_not_change_are_named(swept: str, warning: str) -> None:
    result = done(call("--config=smoke", f"--sweep={swept}", "--seeds=0", "--dry-run"))
    assert ("train alike" in result.stderr) == bool(warning)
    assert warning.replace(",", "-seed0,", 1).replace(" (", "-seed0 (", 1) in result.stderr


def test_a_sweep_trains_each_value_and_its_reports_are_compared(tmp_path: Path, small_shapes: Path) -> None:
    small = (*SMALL, f"--set=data.root={small_shapes}", "--set=train.eval_every=4", "--set=eval.num_real=40")
    sweep = ["--sweep", "train.learning_rate=1e-4,1e-3", "--set=eval.num_fid=40", "--at-once", 2]
    result = done(call("--config", "smoke", *sweep, "--run", tmp_path / "rates", *small))
    assert f"2 of 2 runs succeeded\nnext: gan-eval --index {tmp_path / 'rates'}" in result.output
    runs = sorted((tmp_path / "rates").iterdir())
    assert [run.name for run in runs] == ["smoke-learning_rate=1e-3", "smoke-learning_rate=1e-4"]
    assert [read_checkpoint(run).config["train"]["learning_rate"] for run in runs] == [1e-3, 1e-4]
    table = done(commands.call("gan-eval", "--compare", *runs, "--out", tmp_path / "comparison")).output
    assert all(run.name in table for run in runs)
    assert (tmp_path / "comparison" / "compare.html").is_file()


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
        (["--sweep", "train.d_steps=1,2"], ["need --config"]),
        (["--config", "smoke", "--sweep", "train.d_steps"], ["section.name=value,value"]),
        (["--config", "smoke", "--sweep", "train.d_steps="], ["no values"]),
        (["--config", "smoke", "--sweep", "train.d_steps=1,[2"], ["a list in brackets"]),
        (["--config", "smoke", "--sweep", "train.d_steps=1,1.0"], ["twice, expected different values"]),
        (["--config", "smoke", "--sweep", "train.d_stps=1,2"], ["train.d_stps", "did you mean 'd_steps'?"]),
        (["--config", "smoke", "--sweep", "train.d_steps=1,x"], ["train.d_steps", "'x'"]),
        (["--config", "smoke", "--sweep", "train.loss=hinge,hing"], ["hinge"]),
        (["--config", "smoke", "--sweep", "train.seed=0,1", "--seeds", "0,1"], ["in one --sweep or --seeds"]),
        (["--config", "smoke", "--sweep", "train.d_steps=1", "--sweep", "train.d_steps=2"], ["is given twice"]),
        (["--config", "smoke", "--sweep", "train.d_steps=1,2", "--set=train.d_steps=3"], ["also given by --set"]),
        (["--config", "smoke", "--sweep", "data.root=a/b,a_b"], ["share a folder"]),
        (["--config", "smoke", "--sweep", "name=a,b"], ["--sweep name", "leave it out"]),
        (["--config", "smoke", "--seeds", "0-999999"], ["1,000,000 combinations", "give fewer values"]),
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
    assert "the same command with --resume continues" in rest
    assert all(list_checkpoints(tmp_path / f"smoke-seed{seed}") for seed in (0, 1))
    assert not (tmp_path / "smoke-seed2").exists()


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_a_cluster_trains_every_configuration_with_every_seed(tmp_path: Path, small_shapes: Path) -> None:
    """Uses submitit's executor that runs jobs in this process when their results are requested."""
    pytest.importorskip("submitit")
    planned = plan(
        [("smoke", "smoke")],
        variations([], [3]),
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
