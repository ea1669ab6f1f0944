"""Interrupted and resumed equals uninterrupted, tensor by tensor; and what happens to damaged checkpoints."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from equality import lines, same

from gan.build import load_discriminator, load_generator
from gan.errors import CheckpointError
from gan.normalization import NORMALIZATIONS
from gan.runs.checkpoint import list_checkpoints, read_checkpoint
from gan.runtime import files
from gan.train import main as gan_train

Train = Callable[..., Result]
Copied = Callable[..., Path]


@pytest.mark.parametrize(
    ("normalization", "conditional"),
    [*((name, "false") for name in NORMALIZATIONS), ("srn", "true"), ("wgan_gp", "true")],
)
def test_resumed_equals_uninterrupted(train: Train, tmp_path: Path, normalization: str, conditional: str) -> None:
    """Stopped in the middle of a window of the log, and again, with averaging on."""
    settings = [
        *("--set", f"discriminator.normalization={normalization}", "--set", f"conditional={conditional}"),
        *("--set", "train.steps=12", "--set", "train.ema_decay=0.9", "--set", "train.flip=true"),
    ]
    assert train("whole", *settings).exit_code == 0
    assert train("parts", *settings, "--stop-after", "3").exit_code == 0
    assert train("parts", *settings, "--resume", "--stop-after", "7").exit_code == 0
    assert train("parts", *settings, "--resume").exit_code == 0
    whole, parts = (read_checkpoint(tmp_path / run) for run in ("whole", "parts"))
    assert whole.state["step"] == 12
    same(whole.state, parts.state)
    same(lines(tmp_path / "whole"), lines(tmp_path / "parts"))
    grids = [(tmp_path / run / "samples" / "step-00000012.png").read_bytes() for run in ("whole", "parts")]
    assert grids[0] == grids[1]


def test_bf16_resumes_bit_exactly(train: Train, tmp_path: Path) -> None:
    settings = ["--set", "train.steps=6", "--set", "train.precision=bf16"]
    train("whole", *settings)
    train("parts", *settings, "--stop-after", "3")
    train("parts", *settings, "--resume")
    same(read_checkpoint(tmp_path / "whole").state, read_checkpoint(tmp_path / "parts").state)


def test_a_normalization_with_a_penalty_resumes_bit_exactly(train: Train, tmp_path: Path) -> None:
    """The gradient penalty draws its mixtures per step."""
    settings = ["--set", "train.steps=6", "--set", "discriminator.normalization=srn"]
    settings += ["--set", "discriminator.penalty=gradient", "--set", "conditional=true"]
    assert train("whole", *settings).exit_code == 0
    assert train("parts", *settings, "--stop-after", "3").exit_code == 0
    assert train("parts", *settings, "--resume").exit_code == 0
    same(read_checkpoint(tmp_path / "whole").state, read_checkpoint(tmp_path / "parts").state)


def test_steps_after_the_last_checkpoint_are_trained_and_logged_again(train: Train, tmp_path: Path) -> None:
    """A killed run has logged more than its checkpoint knows."""
    settings = ["--set", "train.steps=15"]
    train("whole", *settings)
    train("parts", *settings)
    list_checkpoints(tmp_path / "parts")[-1].unlink()
    with (tmp_path / "parts" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 15, "d_lo')
    assert train("parts", *settings, "--resume").exit_code == 0
    same(read_checkpoint(tmp_path / "whole").state, read_checkpoint(tmp_path / "parts").state)
    same(lines(tmp_path / "whole"), lines(tmp_path / "parts"))


def test_max_minutes_saves_and_exits_0(train: Train, tmp_path: Path) -> None:
    result = train("run", "--max-minutes", "0.00001")
    assert result.exit_code == 0, result.output
    assert "--max-minutes" in result.output
    assert read_checkpoint(tmp_path / "run").state["step"] == 1


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves(tmp_path: Path, small_shapes: Path, number: signal.Signals, status: int) -> None:
    command = [
        sys.executable,
        "-m",
        "gan.train",
        "--config",
        "smoke",
        "--device",
        "cpu",
        "--run",
        str(tmp_path / "run"),
    ]
    settings = ["--set", f"data.root={small_shapes}", "--set", "train.steps=100000"]
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


def test_only_the_newest_checkpoints_stay(train: Train, tmp_path: Path) -> None:
    train("run", "--set", "train.checkpoint_every=2", "--set", "train.steps=9", "--set", "train.keep_last=3")
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == [f"step-{step:08d}.pt" for step in (6, 8, 9)]


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


def flip(path: Path) -> None:
    """Flips a bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def change(path: Path, place: str, **values: object) -> None:
    """Changes entries of a mapping in a checkpoint, such as state.g_optimizer; None removes one."""
    stored = torch.load(path, weights_only=True)
    found = stored
    for name in filter(None, place.split(".")):
        found = found[name]
    found.update(values)
    for name in [name for name, value in values.items() if value is None]:
        del found[name]
    torch.save(stored, path)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("no checkpoint"),
    "foreign": lambda path: torch.save({"weights": torch.zeros(3)}, path),
    "code": lambda path: torch.save(subprocess.Popen, path),
    "newer": lambda path: change(path, "", format=99),
    "other networks": lambda path: change(path, "config.generator", channels=9),
    "incomplete": lambda path: change(path, "state", g_optimizer=None),
    "one byte": flip,
    "pickle": lambda path: path.write_bytes(b"\x80\x02."),
    "optimizer": lambda path: change(path, "state.g_optimizer", param_groups=[]),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_checkpoint_is_one_sentence(train: Train, copied: Copied, tmp_path: Path, how: str) -> None:
    copied("run", "train.steps=1")
    path = list_checkpoints(tmp_path / "run")[-1]
    DAMAGES[how](path)
    with pytest.raises(CheckpointError, match=path.name):
        load_generator(path)
    result = train("run", "--set", "train.steps=1", "--resume")
    assert result.exit_code == 2
    assert "error:" in result.output
    assert "Traceback" not in result.output


def test_a_full_disk_leaves_the_previous_checkpoint(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def full(descriptor: int) -> None:
        if (tmp_path / "run" / "checkpoints" / "step-00000006.pt").exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(files.os, "fsync", full)
    result = train("run", "--set", "train.checkpoint_every=3")
    assert result.exit_code == 2
    assert "No space left on device; what was saved before is intact" in result.output
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["step-00000003.pt", "step-00000006.pt"]
    assert read_checkpoint(tmp_path / "run").state["step"] == 6


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_really_full_disk(copied: Copied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same through a file whose writes fail: /dev/full in the place of the file beside."""
    copied("run", "train.steps=1")
    path = list_checkpoints(tmp_path / "run")[0]
    before = path.read_bytes()
    path.with_name(path.name + ".part").symlink_to("/dev/full")
    with pytest.raises(CheckpointError, match="No space left"):
        files.write_atomically(path, b"x" * 100_000)
    assert path.read_bytes() == before


def test_other_settings_do_not_continue_a_run(train: Train, copied: Copied) -> None:
    copied("run", "train.steps=2")
    result = train("run", "--set", "train.steps=2", "--set", "train.seed=5", "--resume")
    assert result.exit_code == 2
    assert "train.seed: 5, 0" in result.output
    result = train("run", "--set", "train.steps=2", "--set", "train.log_every=1", "--resume")
    assert result.exit_code == 0, "how often it logs is no part of the experiment"


def test_a_run_is_not_overwritten(train: Train, copied: Copied) -> None:
    copied("run", "train.steps=1")
    result = train("run", "--set", "train.steps=1")
    assert result.exit_code == 2
    assert "--resume" in result.output


def test_a_job_script_can_repeat_one_command(
    tmp_path: Path, small_shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--resume without --run: a new run at first, that same run from then on."""
    monkeypatch.chdir(tmp_path)
    settings = ["--config", "smoke", "--set", f"data.root={small_shapes}", "--set", "train.steps=4", "--device", "cpu"]
    for _ in range(3):
        assert CliRunner().invoke(gan_train, [*settings, "--resume", "--max-minutes", "0.00001"]).exit_code == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert read_checkpoint(run).state["step"] == 3


def test_stopping_where_it_stopped_trains_nothing(train: Train, tmp_path: Path) -> None:
    train("run", "--stop-after", "3")
    assert train("run", "--resume", "--stop-after", "3").exit_code == 0
    assert read_checkpoint(tmp_path / "run").state["step"] == 3


def test_resuming_nothing_starts_from_the_beginning(train: Train, tmp_path: Path) -> None:
    """So that a job script can always say --resume."""
    result = train("run", "--set", "train.steps=1", "--resume")
    assert result.exit_code == 0
    assert "starting from the beginning" in result.output
