"""Tests of resources: memory at CIFAR-10's size, no growth in long runs, no leftover threads or processes."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result

from gan.training.trainer import Trainer

ROOT = Path(__file__).resolve().parent.parent
MIB = 2**20


def measured(*arguments: object) -> Any:
    """JSON printed by tests/resources.py, run with one thread."""
    command = [sys.executable, str(ROOT / "tests" / "resources.py"), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}  # tests/ has an evaluation/, too
    result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=900)
    return json.loads(result.stdout.splitlines()[-1])


def arithmetic_bound(taken: dict[str, int]) -> int:
    """Bytes. Three times the layers' outputs: as many are returned by the operations between layers (ReLU, resampling,
    sums), and gradients of both live for a while. Twice the checkpoint: it is written into memory first."""
    return taken["data"] + taken["weights"] + 3 * taken["activations"] + 2 * taken["checkpoint"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_the_memory_of_a_cifar10_run_on_a_cpu(tmp_path: Path) -> None:
    """An eighth of the width. What is there before, libraries mostly, is measured; 100 MiB are for what they load and
    allocate when they are first used."""
    taken = measured("cifar", tmp_path, "cpu", 32, 2)
    assert taken["peak"] < taken["before"] + arithmetic_bound(taken) + 100 * MIB, taken


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_memory_of_a_cifar10_run_on_a_gpu(tmp_path: Path) -> None:
    """Full width, without libraries: only what torch allocates, cuDNN's workspaces of at most 1 GiB among it."""
    taken = measured("cifar", tmp_path, "cuda", 256, 5)
    assert taken["peak"] < arithmetic_bound(taken) + 1024 * MIB, taken


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_nothing_grows_over_1000_steps_with_evaluation(tmp_path: Path, small_shapes: Path) -> None:
    """Memory, tensors, files and threads do not grow from step 600 on, when 12 of 20 evaluations have been.

    Resident memory then gained 0.0, 0.0, 1.7 and 2.4 MiB until step 1,000, and 1.7 to 10.9 MiB from step 200 on (four
    runs on one thread of a busy machine). One float32 batch of 8 images kept per step would be 37 MiB, of which the
    bound is about half; kept tensors of any size show in their count. Of files only new ones count: one that is closed
    in between is no growth.
    """
    *_, early, _, late = measured("long", tmp_path, small_shapes, 1000)
    assert late["memory"] < early["memory"] + 20 * MIB
    assert late["tensors"] == early["tensors"]
    assert not Counter(late["files"]) - Counter(early["files"]), "opened in between"
    assert late["threads"] == early["threads"]


def threads() -> set[threading.Thread]:
    """Running threads, without tqdm's monitor, a daemon that the first progress bar starts."""
    return {thread for thread in threading.enumerate() if type(thread).__name__ != "TMonitor"}


@pytest.mark.parametrize("ending", ["done", "diverged", "failed", "interrupted", "no evaluation"])
def test_no_thread_is_left_however_a_run_ends(
    train: Callable[..., Result], ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorBoard's writer has one."""
    settings = ["--set", "train.steps=6", "--set", "train.eval_every=3", "--set", "train.log_every=1"]
    step = Trainer.train_step

    def go_wrong(self: Trainer) -> None:
        step(self)
        assert threads() > before, "the writer is at work"
        if ending == "diverged":
            self.state.totals[0] = float("nan")
        elif ending == "failed":
            raise RuntimeError("a bug")
        elif ending == "interrupted":
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "train_step", go_wrong)
    if ending == "no evaluation":
        settings += ["--set", "eval.extractor=inception", "--set", "eval.inception_weights=missing.pth"]
    before = threads()
    status = train("run", *settings).exit_code
    assert (status == 0) is (ending == "done")
    assert threads() == before


def processes_with(mark: str) -> list[int]:
    """Ids of those that inherited a variable of the environment: children of children, in any session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            content = (folder / "environ").read_bytes()
            alive = (folder / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            continue  # it has ended in the meantime, or is somebody else's
        if alive and mark.encode() in content:
            found.append(int(folder.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("ending", ["done", "failed", "interrupted"])
def test_no_process_is_left_however_runs_end(tmp_path: Path, small_shapes: Path, ending: str) -> None:
    """Two runs at once, each in a session of its own; one cannot start where "failed"."""
    mark = f"GAN_TEST_MARK={uuid.uuid4()}"
    name, _, value = mark.partition("=")
    steps = 100_000 if ending == "interrupted" else 2
    command = [sys.executable, "-m", "gan.train", "--config=smoke", "--device=cpu", "--seeds=0,1", "--at-once=2"]
    settings = [f"--set=data.root={small_shapes}", f"--set=train.steps={steps}", f"--run={tmp_path}"]
    first = tmp_path / "smoke-seed0" / "metrics.jsonl"
    if ending == "failed":
        first.parent.mkdir()
        first.touch()
    process = subprocess.Popen([*command, *settings], env=os.environ | {name: value}, stderr=subprocess.DEVNULL)
    if ending == "interrupted":
        deadline = time.monotonic() + 120
        while not all((tmp_path / f"smoke-seed{n}" / "metrics.jsonl").exists() for n in (0, 1)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert len(processes_with(mark)) == 3
        process.send_signal(signal.SIGINT)
    status = process.wait(timeout=120)
    assert (status == 0) is (ending == "done")
    assert processes_with(mark) == []
