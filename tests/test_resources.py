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
    """JSON printed by tests/resources.py with one thread."""
    command = [sys.executable, str(ROOT / "tests" / "resources.py"), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}  # tests/ also has a folder evaluation/
    result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=900)
    return json.loads(result.stdout.splitlines()[-1])


def arithmetic_bound(taken: dict[str, int]) -> int:
    """Upper bound on memory in bytes.

    Layer outputs count three times: operations between layers (ReLU, resampling, sums) return as many, and gradients of
    both exist for a while. The checkpoint counts twice, because it is first written to memory.
    """
    return taken["data"] + taken["weights"] + 3 * taken["activations"] + 2 * taken["checkpoint"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_the_memory_of_a_cifar10_run_on_a_cpu(tmp_path: Path) -> None:
    """Width is an eighth. Memory used before, mostly by libraries, is measured.

    100 MiB are for parts that libraries load and allocate at their first use.
    """
    taken = measured("cifar", tmp_path, "cpu", 32, 2)
    assert taken["peak"] < taken["before"] + arithmetic_bound(taken) + 100 * MIB, taken


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_memory_of_a_cifar10_run_on_a_gpu(tmp_path: Path) -> None:
    """Full width. Counts only torch's allocations, including cuDNN workspaces of at most 1 GiB, and no libraries."""
    taken = measured("cifar", tmp_path, "cuda", 256, 5)
    assert taken["peak"] < arithmetic_bound(taken) + 1024 * MIB, taken


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_nothing_grows_over_1000_steps_with_evaluation(tmp_path: Path, small_shapes: Path) -> None:
    """Memory, tensors, files and threads do not grow from step 600 on, after 12 of 20 evaluations.

    Measured growth of resident memory until step 1,000: 0.0, 0.0, 1.7 and 2.4 MiB, and 1.7 to 10.9 MiB from step 200 on
    (four runs on one thread of a busy machine). Keeping one float32 batch of 8 images per step would add 37 MiB, about
    twice the bound; kept tensors of any size change their count. Only new files count, not files closed in between.
    """
    *_, early, _, late = measured("long", tmp_path, small_shapes, 1000)
    assert late["memory"] < early["memory"] + 20 * MIB
    assert late["tensors"] == early["tensors"]
    assert not Counter(late["files"]) - Counter(early["files"]), "opened in between"
    assert late["threads"] == early["threads"]


def threads() -> set[threading.Thread]:
    """Running threads without tqdm's monitor, a daemon that the first progress bar starts."""
    return {thread for thread in threading.enumerate() if type(thread).__name__ != "TMonitor"}


@pytest.mark.parametrize("ending", ["done", "diverged", "failed", "interrupted", "no evaluation"])
def test_no_thread_is_left_however_a_run_ends(
    train: Callable[..., Result], ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorBoard's writer starts a thread."""
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
    """Ids of all processes that inherited an environment variable, in any session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            content = (folder / "environ").read_bytes()
            alive = (folder / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            continue  # it has ended or belongs to another user
        if alive and mark.encode() in content:
            found.append(int(folder.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("ending", ["done", "failed", "interrupted"])
def test_no_process_is_left_however_runs_end(tmp_path: Path, small_shapes: Path, ending: str) -> None:
    """Two runs at once, each in its own session; in case "failed" one of them cannot start."""
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
