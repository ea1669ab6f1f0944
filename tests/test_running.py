"""Commands that read a run while it trains: checkpoints are written, replaced and removed meanwhile."""

import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import call, done, refused

from gan.runs import checkpoint, choice
from gan.runs.best import read_best
from gan.runs.checkpoint import Checkpoint, read_checkpoint
from gan.runs.finding import list_checkpoints

Copied = Callable[..., Path]
SAMPLE = ("gan-sample", "--device=cpu", "--num=1", "--grid-only")


def test_a_running_run_is_sampled_while_it_trains(tmp_path: Path, small_shapes: Path) -> None:
    """Each step replaces the only checkpoint; every call finds one, a later call a later one."""
    often = [f"--set=train.{name}=1" for name in ("checkpoint_every", "keep_last", "log_every")]
    settings = [f"--set=data.root={small_shapes}", "--set=train.steps=100000", *often, "--device=cpu"]
    command = [sys.executable, "-m", "gan.train", "--config=smoke", f"--run={tmp_path / 'run'}", *settings]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert any("step 1/" in line for line in process.stderr)
            grids = set()
            for number in range(3):
                output = done(call(*SAMPLE, "--run", tmp_path / "run", "--seed", number)).output
                grids.add(Path(output.strip().removeprefix("grid: ")).name)
            assert process.poll() is None
            assert len(grids) == 3
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=120)
    assert process.returncode == 143
    assert all((tmp_path / "run" / "samples" / grid).is_file() for grid in grids)


def once(monkeypatch: pytest.MonkeyPatch, moment: str, happens: Callable[[Path], None]) -> None:
    """Lets something happen right before the first call of a function that reads a checkpoint file."""
    original, left = getattr(checkpoint, moment), [happens]

    def reads(path: Path, **options: object) -> object:
        if left:
            left.pop()(path)
        return original(path, **options)

    monkeypatch.setattr(checkpoint, moment, reads)


MOMENTS = ("_check_seal", "_check_archive")  # before the file is opened, and between two looks at it


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_newest_checkpoint_that_is_replaced_meanwhile(
    copied: Copied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    copied("run", "train.steps=1")
    (newest,) = list_checkpoints(tmp_path / "run")[-1:]
    later = newest.with_name("step-00000002.pt")
    once(monkeypatch, moment, lambda path: path.replace(later) and None)
    assert read_checkpoint(tmp_path / "run").path == later
    once(monkeypatch, moment, lambda path: path.replace(newest.with_name("step-00000003.pt")) and None)
    assert "grid: " in done(call(*SAMPLE, "--run", tmp_path / "run")).output
    once(monkeypatch, moment, lambda path: path.unlink())
    refused(call(*SAMPLE, "--checkpoint", newest.with_name("step-00000003.pt")), "step-00000003.pt")


@pytest.mark.parametrize("command", [SAMPLE, ("gan-eval", "--device=cpu")])
def test_a_best_checkpoint_that_is_replaced_meanwhile(
    copied: Copied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    copied("run", "train.steps=1", "train.eval_every=1", "train.keep_best=fid")
    record = read_best(tmp_path / "run")
    assert record is not None

    def better(path: Path) -> None:
        path.replace(path.with_name("best-00000002.pt"))
        document = record | {"checkpoint": "best-00000002.pt", "step": 2}
        (tmp_path / "run" / "best.json").write_text(json.dumps(document))

    once(monkeypatch, "_check_seal", better)
    assert "at step 2" in done(call(*command, "--run", tmp_path / "run", "--best")).output


def test_a_checkpoint_may_go_once_it_is_read(copied: Copied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied("run", "train.steps=1")
    digest = hashlib.sha256(list_checkpoints(tmp_path / "run")[-1].read_bytes()).hexdigest()

    def read(path: Path) -> Checkpoint:
        found = read_checkpoint(path)
        found.path.unlink()
        return found

    monkeypatch.setattr(choice, "read_checkpoint", read)
    done(call("gan-eval", "--device=cpu", "--run", tmp_path / "run", "--out", tmp_path / "report"))
    subject = json.loads((tmp_path / "report" / "report.json").read_text())["subject"]
    assert subject["checkpoint_sha256"] == digest
