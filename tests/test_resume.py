"""Tests that resumed runs equal uninterrupted ones, tensor by tensor, and of damaged checkpoints."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from commands import call_tool, done, refused
from equality import lines, same

from gan.build import load_discriminator, load_generator
from gan.errors import CheckpointError
from gan.normalization import NORMALIZATIONS
from gan.runs.checkpoint import read_checkpoint
from gan.runs.finding import list_checkpoints, read_record
from gan.runtime import files
from gan.train import main as gan_train

Train = Callable[..., Result]
Copied = Callable[..., Path]


@pytest.mark.parametrize(
    "settings",
    [
        *((f"discriminator.normalization={name}",) for name in NORMALIZATIONS),
        ("conditional=true", "discriminator.relative_to=initial", "train.d_adam_beta1=0.5"),
        ("conditional=true", "discriminator.normalization=wgan_gp"),
        ("conditional=true", "discriminator.penalty=gradient", "train.labels=data"),
        ("train.precision=bf16",),
        ("train.augment=color,translation,cutout", "discriminator.penalty=lecam"),
    ],
)
def test_resumed_equals_uninterrupted(train: Train, tmp_path: Path, settings: tuple[str, ...]) -> None:
    """Stopped twice between two log lines, with averaging on."""
    always = ("train.steps=12", "train.ema_decay=0.9", "train.flip=true", "train.gradients_every=2")
    options = [f"--set={setting}" for setting in (*settings, *always)]
    done(train("whole", *options))
    done(train("parts", *options, "--stop-after", "3"))
    done(train("parts", *options, "--resume", "--stop-after", "7"))
    done(train("parts", *options, "--resume"))
    whole, parts = (read_checkpoint(tmp_path / run) for run in ("whole", "parts"))
    assert whole.state["step"] == 12
    same(whole.state, parts.state)
    same(lines(tmp_path / "whole"), lines(tmp_path / "parts"))
    grids = [(tmp_path / run / "samples" / "step-00000012.png").read_bytes() for run in ("whole", "parts")]
    assert grids[0] == grids[1]


def test_steps_after_the_last_checkpoint_are_trained_and_logged_again(train: Train, tmp_path: Path) -> None:
    """The log of a killed run is ahead of its checkpoint."""
    settings = ["--set=train.steps=15"]
    train("whole", *settings)
    train("parts", *settings)
    list_checkpoints(tmp_path / "parts")[-1].unlink()
    with (tmp_path / "parts" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 15, "d_lo')
    done(train("parts", *settings, "--resume"))
    same(read_checkpoint(tmp_path / "whole").state, read_checkpoint(tmp_path / "parts").state)
    same(lines(tmp_path / "whole"), lines(tmp_path / "parts"))


def test_max_minutes_saves_and_exits_0(train: Train, tmp_path: Path) -> None:
    result = done(train("run", "--max-minutes", "0.00001"))
    assert "--max-minutes" in result.output
    assert read_checkpoint(tmp_path / "run").state["step"] == 1


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves(tmp_path: Path, small_shapes: Path, number: signal.Signals, status: int) -> None:
    command = [sys.executable, "-m", "gan.train", "--config=smoke", "--device=cpu", "--run", str(tmp_path / "run")]
    settings = [f"--set=data.root={small_shapes}", "--set=train.steps=100000"]
    process = subprocess.Popen([*command, *settings], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    log = tmp_path / "run" / "metrics.jsonl"
    while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status, errors
    assert "Traceback" not in errors
    step = read_checkpoint(tmp_path / "run").state["step"]
    assert f"stopped at step {step}" in errors


def test_a_checkpoint_is_plain_data(copied: Copied, tmp_path: Path) -> None:
    copied("run", "train.steps=1")
    content = torch.load(list_checkpoints(tmp_path / "run")[0], weights_only=True)
    assert content.keys() == {"format", "config", "state"}
    assert content["config"]["discriminator"]["normalization"] == "srn"


def test_networks_load_from_a_checkpoint(copied: Copied, tmp_path: Path) -> None:
    copied("run", "train.steps=3", "train.ema_decay=0.9")
    state = read_checkpoint(tmp_path / "run").state
    averaged, raw = load_generator(tmp_path / "run"), load_generator(tmp_path / "run", ema=False)
    same(dict(averaged.state_dict()), dict(state["average"]))
    same(dict(raw.state_dict()), dict(state["generator"]))
    assert not averaged.training
    discriminator = load_discriminator(list_checkpoints(tmp_path / "run")[0])
    assert discriminator(averaged(torch.randn(2, 16))).shape == (2,)


def stored(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Changes the content of a checkpoint and stores it without its digest."""

    def damage(path: Path) -> None:
        content = torch.load(path, weights_only=True)
        change(content)
        torch.save(content, path)

    return damage


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("no checkpoint"),
    "pickle": lambda path: path.write_bytes(b"\x80\x02."),
    "one byte": flip_a_byte,
    "foreign": lambda path: torch.save({"weights": torch.zeros(3)}, path),
    "code": lambda path: torch.save(subprocess.Popen, path),
    "newer": stored(lambda content: content.update(format=99)),
    "other networks": stored(lambda content: content["config"]["generator"].update(channels=9)),
    "optimizer": stored(lambda content: content["state"]["g_optimizer"].update(param_groups=[])),
    "incomplete": stored(lambda content: content["state"].pop("g_optimizer")),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_checkpoint_is_one_sentence(train: Train, copied: Copied, tmp_path: Path, how: str) -> None:
    copied("run", "train.steps=1")
    path = list_checkpoints(tmp_path / "run")[-1]
    DAMAGE[how](path)
    with pytest.raises(CheckpointError, match=path.name):
        load_generator(path)
    refused(train("run", "--set=train.steps=1", "--resume"), "error:")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_really_full_disk(copied: Copied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The temporary file is a link to /dev/full, whose writes fail."""
    copied("run", "train.steps=1")
    path = list_checkpoints(tmp_path / "run")[0]
    before = path.read_bytes()
    path.with_name(path.name + ".part").symlink_to("/dev/full")
    with pytest.raises(CheckpointError, match="No space left"):
        files.write_atomically(path, b"x" * 100_000)
    assert path.read_bytes() == before


def test_other_settings_do_not_continue_a_run(train: Train, copied: Copied) -> None:
    copied("run", "train.steps=2")
    refused(train("run", "--set=train.steps=2", "--set=train.seed=5", "--resume"), "train.seed: 5, 0")
    result = train("run", "--set=train.steps=2", "--set=train.log_every=1", "--resume")
    assert result.exit_code == 0, "how often it logs is no part of the experiment"


def test_a_run_is_not_overwritten(train: Train, copied: Copied) -> None:
    copied("run", "train.steps=1")
    refused(train("run", "--set=train.steps=1"), "--resume")


def test_a_job_script_can_repeat_one_command(
    tmp_path: Path, small_shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--resume without --run starts a new run at first, and later resumes it."""
    monkeypatch.chdir(tmp_path)
    settings = ["--config", "smoke", f"--set=data.root={small_shapes}", "--set=train.steps=9", "--device", "cpu"]
    clock = SimpleNamespace(monotonic=count().__next__)  # a second passes each time it is read, at any load
    monkeypatch.setattr("gan.training.stopping.time", clock)
    for _ in range(3):
        done(CliRunner().invoke(gan_train, [*settings, "--resume", "--max-minutes", "0.03"]))  # 1.8 seconds
    (run,) = (tmp_path / "runs").iterdir()
    assert read_checkpoint(run).state["step"] == 4  # two steps of a new run, one of each that is resumed


def test_stopping_where_it_stopped_trains_nothing(train: Train, tmp_path: Path) -> None:
    train("run", "--stop-after", "3")
    done(train("run", "--resume", "--stop-after", "3"))
    assert read_checkpoint(tmp_path / "run").state["step"] == 3


def test_resuming_nothing_starts_from_the_beginning(train: Train, tmp_path: Path) -> None:
    """A job script can always pass --resume."""
    result = done(train("run", "--set=train.steps=1", "--resume"))
    assert "starting from the beginning" in result.output


@pytest.mark.parametrize(
    ("first", "settings", "kept"),
    [
        ("train.steps=10", ("train.lr_decay=none",), 10),
        ("train.steps=20", ("train.lr_decay_start=20", "train.eval_every=20"), 20),
        ("train.steps=12", ("train.lr_decay=none", "train.ema_decay=0.9"), 10),  # step 12 wrote a line too many
        ("train.steps=30", ("train.lr_decay=none", "train.eval_every=20"), 20),  # step 30 wrote an evaluation too many
    ],
)
def test_a_prolonged_run_equals_one_that_began_with_as_many_steps(
    train: Train, tmp_path: Path, first: str, settings: tuple[str, ...], kept: int
) -> None:
    options = [f"--set={setting}" for setting in settings]
    done(train("whole", *options, "--set=train.steps=40"))
    done(train("parts", *options, f"--set={first}"))
    arguments = ["--resume", f"--run={tmp_path / 'parts'}", "--set=train.steps=40", "--device=cpu"]
    result = done(CliRunner().invoke(gan_train, arguments))
    assert f"continuing at step {kept} of 40" in result.output
    done(call_tool("compare_runs", tmp_path / "whole", tmp_path / "parts", "--assert-equal"))
    pictures = [sorted(path.name for path in (tmp_path / run / "samples").iterdir()) for run in ("whole", "parts")]
    assert pictures[0] == pictures[1]
    records = [read_record(tmp_path / run) for run in ("whole", "parts")]
    assert records[0]["identity"] == records[1]["identity"]
    assert [len(record["commands"]) for record in records] == [1, 2]


def test_what_would_not_equal_a_longer_run_is_not_prolonged(copied: Copied, train: Train, tmp_path: Path) -> None:
    copied("run", "train.steps=10", "train.lr_decay_start=5")
    decayed = ["--set=train.lr_decay_start=5", "--set=train.steps=20"]
    refused(train("run", *decayed, "--resume"), "began to decay at step 5, to 0 at step 10", "begin a new run")
    refused(train("run", *decayed, "--set=train.d_steps=1", "--resume"), "its own settings, except train.steps")
    shutil.rmtree(tmp_path / "run")
    copied("run", "train.steps=7", "train.lr_decay=none", "train.keep_last=1")
    constant = ["--set=train.lr_decay=none", "--resume"]
    refused(train("run", *constant, "--set=train.steps=6"), "it is at step 7 already")
    refused(train("run", *constant, "--set=train.steps=20"), "the last step wrote a line", "begin a new run")
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["step-00000007.pt"]
