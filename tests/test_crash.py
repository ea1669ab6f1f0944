"""Tests of crashes: kills, full disks, lost folders, damaged files, concurrent runs. Each ends with a one-line error
and intact files. tools/torture.py does the same at random."""

import copy
import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from commands import done
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter

from gan.config import load_config
from gan.errors import CheckpointError, ConfigError, DamagedCheckpointError
from gan.evaluate import main as gan_eval
from gan.runs.best import Best
from gan.runs.checkpoint import read_checkpoint, save_best, save_checkpoint, set_damaged_aside
from gan.runs.finding import list_checkpoints
from gan.runs.logger import Logger, evaluated, quiet_writer
from gan.runtime import files
from gan.runtime.files import locked, write_atomically
from gan.sample import main as gan_sample

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

import torture

Train = Callable[..., Result]
Copied = Callable[..., Path]
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
EVALUATING = ("--set=train.eval_every=5", "--set=train.checkpoint_every=5", "--set=train.steps=10")
EVALUATING += ("--set=train.log_every=1", "--set=train.keep_best=fid", "--set=train.keep_last=1")


class Killed(BaseException):
    """Exception that ends a run at once, like a kill except for `finally` blocks."""


def fails(times: int, error: BaseException, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps a function so that it raises from its `times`-th call on."""
    left = [times]

    def call(*arguments: Any, **keywords: Any) -> Any:
        left[0] -= 1
        if left[0] <= 0:
            raise copy.copy(error)  # a copy, because a caught error keeps its file name
        return function(*arguments, **keywords)

    return call


def one_sentence(result: Result, *words: str) -> None:
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.output.splitlines() if "error" in line.lower()]
    assert all(word in line for word in words), line
    assert "Traceback" not in result.output


@pytest.fixture
def whole(trained: Callable[..., Path]) -> Path:
    """Uninterrupted run with the settings EVALUATING."""
    return trained(*(setting.removeprefix("--set=") for setting in EVALUATING))


@pytest.mark.parametrize(
    ("place", "times"),
    [
        ("gan.measuring.evaluator.evaluate_state", 1),
        pytest.param("gan.measuring.evaluator.evaluate_state", 2, marks=pytest.mark.slow),
        ("gan.measuring.evaluator.save_best", 1),
        pytest.param("gan.measuring.evaluator.histograms", 1, marks=pytest.mark.slow),
        pytest.param("gan.measuring.evaluator.histograms", 2, marks=pytest.mark.slow),
        ("evaluation.reporting.report.report_page", 2),
        ("gan.runs.best.write_atomically", 1),
        pytest.param("gan.runs.checkpoint.remove_superseded", 2, marks=pytest.mark.slow),
    ],
)
def test_what_a_kill_left_undone_is_done(
    train: Train, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, times: int
) -> None:
    """Kills before and after writing the report and the record of the best, also at the last checkpoint."""
    with monkeypatch.context() as patch:
        module, _, name = place.rpartition(".")
        patch.setattr(place, fails(times, Killed(), getattr(sys.modules[module], name)))
        with suppress(Killed):
            assert train("parts", *EVALUATING).exit_code, "it was to be killed"
    done(train("parts", *EVALUATING, "--resume"))
    assert torture.compare(whole, tmp_path / "parts") == []


def test_a_missing_last_evaluation_is_done_and_then_nothing_is_left_to_do(
    train: Train, whole: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole, tmp_path / "parts")
    log = tmp_path / "parts" / "metrics.jsonl"
    log.write_text("".join(line + "\n" for line in log.read_text().splitlines()[:-1]))
    shutil.rmtree(tmp_path / "parts" / "reports" / "00000010")
    assert not evaluated(tmp_path / "parts", 10)
    done(train("parts", *EVALUATING, "--resume"))
    assert torture.compare(whole, tmp_path / "parts") == []
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").rglob("*") if path.name != ".lock"}
    result = done(train("parts", *EVALUATING, "--resume"))
    assert "all 10 steps are done; next:" in result.output
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_parts_of_files_are_cleared_away(train: Train, tmp_path: Path) -> None:
    done(train("run", *EVALUATING, "--stop-after", "5"))
    run = tmp_path / "run"
    litter = [run / "config.yaml.part", run / "checkpoints" / "step-00000005.pt.part"]
    litter += [run / "samples" / "step-00000010.png.part", run / "reports" / "00000010" / "arrays.1.part.npz"]
    for path in litter:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    done(train("run", *EVALUATING, "--resume"))
    assert not list(run.rglob("*.part*"))


def test_a_best_that_was_not_removed_in_time_is(tmp_path: Path) -> None:
    old, new = (save_best(tmp_path, {}, {"step": step}) for step in (1, 2))
    record = {
        "checkpoint": new.name,
        "step": 2,
        "key": "fid",
        "value": 1.0,
        "better": "lower",
        "hash": "",
        "fields": {},
    }
    (tmp_path / "best.json").write_text(json.dumps(record))
    Best(tmp_path, "fid", 2, back_to=list, is_better=lambda *_: True, differences=lambda *_: "")
    assert new.exists()
    assert not old.exists()


def test_a_cut_event_file_does_not_disturb_the_next(train: Train, tmp_path: Path) -> None:
    """Repeated steps are shown once."""
    settings = ["--set=train.steps=10", "--set=train.log_every=1", "--set=train.checkpoint_every=5"]
    done(train("run", *settings))
    list_checkpoints(tmp_path / "run")[-1].unlink()
    (events,) = (tmp_path / "run").glob("events.*")
    events.write_bytes(events.read_bytes()[:-7])
    done(train("run", *settings, "--resume"))
    shown = EventAccumulator(str(tmp_path / "run")).Reload().Scalars("loss/generator")
    assert [event.step for event in shown] == list(range(1, 11))


def test_events_are_on_the_disk_before_the_checkpoint(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Event writes are slowed down."""
    seen: list[int] = []
    write = RecordWriter.write

    def write_slowly(self: RecordWriter, data: bytes) -> None:
        time.sleep(0.02)
        write(self, data)

    def save(run: Path, *arguments: Any, **settings: Any) -> Path:
        seen.append(EventAccumulator(str(run)).Reload().Images("samples")[-1].step)
        return save_checkpoint(run, *arguments, **settings)

    monkeypatch.setattr(RecordWriter, "write", write_slowly)
    monkeypatch.setattr("gan.runs.folder.save_checkpoint", save)
    done(train("run", "--set=train.steps=2"))
    assert seen == [0, 2], "a grid is added right before"


@pytest.mark.parametrize(
    ("place", "times", "words"),
    [
        ("gan.runtime.files.os.fsync", 1, "config.yaml"),
        pytest.param("gan.runtime.files.os.fsync", 3, "run.json", marks=pytest.mark.slow),
        pytest.param(
            "tensorboard.summary.writer.record_writer.RecordWriter.write", 1, "parts: ", marks=pytest.mark.slow
        ),
        ("tensorboard.summary.writer.record_writer.RecordWriter.write", 30, "parts: "),
        pytest.param(
            "tensorboard.summary.writer.record_writer.RecordWriter.write", 150, "parts: ", marks=pytest.mark.slow
        ),
        pytest.param("gan.runs.logger.encode_png", 2, "", marks=pytest.mark.slow),
        pytest.param("evaluation.runtime.files.Path.replace", 9, "", marks=pytest.mark.slow),
        ("evaluation.reporting.report.np.savez_compressed", 2, "report"),
        ("gan.runs.checkpoint._write", 2, ""),
        pytest.param("gan.runs.logger.json.dumps", 4, "", marks=pytest.mark.slow),
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_full_disk_is_one_sentence_whoever_writes(
    train: Train, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, times: int, words: str
) -> None:
    """Afterwards the run resumes and equals the uninterrupted one."""
    with monkeypatch.context() as patch:
        patch.setattr(place, fails(times, FULL, _resolved(place)))
        one_sentence(train("parts", *EVALUATING), "No space left on device", words)
    for path in list_checkpoints(tmp_path / "parts"):
        read_checkpoint(path)
    done(train("parts", *EVALUATING, "--resume"))
    assert torture.compare(whole, tmp_path / "parts") == []


def _resolved(place: str) -> Callable[..., Any]:
    parts = place.split(".")
    count = next(count for count in range(len(parts), 0, -1) if ".".join(parts[:count]) in sys.modules)
    found: Any = sys.modules[".".join(parts[:count])]
    for name in parts[count:]:
        found = getattr(found, name)
    return found


@pytest.mark.parametrize("after", ["config.yaml", "checkpoints/step-00000005.pt"])
def test_a_vanished_folder_is_one_sentence_and_not_made_anew(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    run = tmp_path / "run"

    def write(path: Path, content: bytes) -> None:
        write_atomically(path, content)
        if path == run / after:
            shutil.move(run, tmp_path / "elsewhere")

    for module in ("gan.runs.folder", "gan.runs.checkpoint"):
        monkeypatch.setattr(f"{module}.write_atomically", write)
    result = train("run", *EVALUATING)
    one_sentence(result, "No such file or directory")
    assert not list(run.rglob("*.pt"))


def test_a_vanished_folder_is_noticed_by_the_log(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with quiet_writer():
        logger = Logger(run, steps=1, images_per_step=1, first_step=0)
        run.rename(tmp_path / "elsewhere")
        with pytest.raises(CheckpointError, match=r"cannot be written: No such file"):
            logger.grid(0, torch.zeros(3, 8, 8, dtype=torch.uint8))
        with pytest.raises(CheckpointError, match=r"metrics.jsonl: cannot be written"):
            logger._append({"step": 0})
        logger.close()
    assert not run.exists()


@pytest.mark.parametrize("name", ["file/run", "file"])
def test_a_folder_that_cannot_be_written_is_one_sentence(train: Train, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    one_sentence(train(name), "cannot be written", "choose another --run")


@pytest.mark.parametrize("limit", [20_000, 150_000])
def test_a_real_limit_of_file_sizes(train: Train, tmp_path: Path, small_shapes: Path, limit: int) -> None:
    """The system refuses writes beyond the limit, first to TensorBoard's events, metrics.jsonl or a checkpoint."""
    command = [sys.executable, "-m", "gan.train", "--config=smoke", "--device=cpu", "--run", str(tmp_path / "parts")]
    command += [f"--set=data.root={small_shapes}", "--set=train.checkpoint_every=5"]
    process = subprocess.run(
        command,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert process.returncode == 2, process.stderr
    assert process.stderr.count("error") == 1
    assert "File too large; files saved before are intact" in process.stderr
    assert "Traceback" not in process.stderr
    done(train("parts", "--set=train.checkpoint_every=5", "--resume"))


@pytest.mark.parametrize(
    ("last", "every", "kept"), [(2, 0, [8, 9]), (1, 4, [4, 8, 9]), (3, 3, [3, 6, 7, 8, 9]), (1, 9, [9])]
)
def test_retention(train: Train, tmp_path: Path, last: int, every: int, kept: list[int]) -> None:
    settings = [f"--set=train.{name}" for name in ("checkpoint_every=1", "steps=9")]
    settings += [f"--set=train.keep_last={last}", f"--set=train.keep_every={every}"]
    done(train("run", *settings))
    assert [int(path.stem[5:]) for path in list_checkpoints(tmp_path / "run")] == kept


def test_retention_is_no_part_of_the_experiment(smoke: Callable[..., Any]) -> None:
    assert smoke("train.keep_last=5", "train.keep_every=7").identity() == smoke().identity()


def test_keep_last_is_read_by_its_old_name(smoke: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text("train: {keep_checkpoints: 7}\n")
    assert load_config(tmp_path / "old.yaml").train.keep_last == 7
    assert load_config(tmp_path / "old.yaml", ["train.keep_last=3"]).train.keep_last == 3
    assert smoke("train.keep_last=3", "train.keep_checkpoints=4").train.keep_last == 4
    (tmp_path / "old.yaml").write_text("train: {keep_checkpoints: 7, keep_last: 7}\n")
    with pytest.raises(ConfigError, match=r"train.keep_checkpoints is the old name of train.keep_last"):
        load_config(tmp_path / "old.yaml")


def test_every_flipped_bit_is_recognised(tmp_path: Path) -> None:
    """Flips 600 bits, including the whole end of the file with the digest and the archive's directory."""
    state = {"step": 1, "weights": torch.arange(40.0), "names": ["a", "b"]}
    path = save_checkpoint(tmp_path, {"name": "x"}, state, keep_last=1)
    content = path.read_bytes()
    draw = random.Random(0)
    bits = [*range(8 * (len(content) - 40), 8 * len(content)), *(draw.randrange(8 * len(content)) for _ in range(280))]
    for bit in bits:
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(DamagedCheckpointError):
            read_checkpoint(path)
    path.write_bytes(content)
    assert torch.equal(read_checkpoint(path).state["weights"], state["weights"])


def test_every_cut_is_recognised(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, {}, {"step": 1, "weights": torch.zeros(9)}, keep_last=1)
    content = path.read_bytes()
    draw = random.Random(0)
    for length in [*(draw.randrange(len(content)) for _ in range(100)), *range(len(content) - 100, len(content))]:
        path.write_bytes(content[:length])
        with pytest.raises(DamagedCheckpointError):
            read_checkpoint(path)


def test_a_damaged_checkpoint_names_the_intact_one_and_is_skipped(train: Train, tmp_path: Path) -> None:
    settings = ["--set=train.checkpoint_every=2", "--set=train.steps=8", "--set=train.keep_last=4"]
    done(train("whole", *settings))
    done(train("parts", *settings))
    older, *damaged = list_checkpoints(tmp_path / "parts")[1:]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:-1])
    refused = train("parts", *settings, "--resume")
    one_sentence(refused, "step-00000008.pt", "continue from step-00000004.pt", "--resume --skip-damaged")
    skipped = done(train("parts", *settings, "--resume", "--skip-damaged"))
    for path in damaged:
        assert f"damaged checkpoint, renamed to {path}.damaged" in skipped.output
    assert "continuing at step 4" in skipped.output
    assert older.exists()
    assert torture.compare(tmp_path / "whole", tmp_path / "parts") == []


def test_without_an_intact_checkpoint_a_run_begins_again(train: Train, copied: Copied, tmp_path: Path) -> None:
    copied("run", "train.steps=2")
    for path in list_checkpoints(tmp_path / "run"):
        path.write_bytes(b"")
    one_sentence(train("run", "--set=train.steps=2", "--resume"), "no earlier one is intact", "start again")
    done(train("run", "--set=train.steps=2", "--resume", "--skip-damaged"))
    assert read_checkpoint(tmp_path / "run").state["step"] == 2


def test_a_newer_format_is_not_set_aside(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, {}, {"step": 1}, keep_last=1)
    torch.save({"format": 2, "config": {}, "state": {}}, path)
    assert set_damaged_aside(tmp_path) == []
    assert path.exists()


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "Permission denied"), MemoryError()])
def test_what_cannot_be_read_now_is_not_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    path = save_checkpoint(tmp_path, {}, {"step": 1}, keep_last=1)
    place = "gan.runs.checkpoint._check_seal" if isinstance(error, OSError) else "gan.runs.checkpoint.torch.load"
    monkeypatch.setattr(place, fails(1, error, _resolved(place)))
    with pytest.raises(type(error)):
        set_damaged_aside(tmp_path)
    assert path.exists()


def test_a_second_process_is_refused_and_readers_are_not(train: Train, copied: Copied, tmp_path: Path) -> None:
    copied("run", "train.steps=2")
    with locked(tmp_path / "run"):
        one_sentence(train("run", "--set=train.steps=2", "--resume"), "another process is training here")
        for command, options in ((gan_eval, ["--metrics", "fid"]), (gan_sample, ["--num", "4"])):
            done(CliRunner().invoke(command, ["--run", str(tmp_path / "run"), "--device", "cpu", *options]))
    done(train("run", "--set=train.steps=2", "--resume"))


def test_a_lock_ends_with_a_killed_process(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from gan.runtime.files import locked\n"
    code += "with locked(Path(sys.argv[1])): print('locked', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(CheckpointError, match="another process is training here"), locked(tmp_path / "run"):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
    with locked(tmp_path / "run"):
        pass


def test_a_lock_leaves_no_empty_folder(train: Train, tmp_path: Path) -> None:
    assert train("run", "--set=data.root=/nowhere", "--set=data.name=folder").exit_code == 2
    assert not (tmp_path / "run").exists()


def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(files.FileLock, "acquire", fails(1, NotImplementedError(), files.FileLock.acquire))
    with locked(tmp_path / "run"):
        pass
    assert "does not support locks" in capsys.readouterr().err


@pytest.mark.slow
def test_torture(tmp_path: Path) -> None:
    """Runs four interruptions; `python tools/torture.py --interruptions 100` does more."""
    command = [sys.executable, str(Path(torture.__file__)), "--interruptions", "4", "--set=train.steps=40"]
    process = subprocess.run([*command, "--folder", str(tmp_path)], capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    assert "4 interruptions" in process.stdout
    assert "0 differences from the uninterrupted run" in process.stdout
