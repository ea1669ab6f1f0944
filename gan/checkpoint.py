"""Checkpoints: one file {"format", "config", "state"} that torch.load(weights_only=True) reads."""

import contextlib
import io
import json
import os
import re
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch

from gan.errors import CheckpointError

FORMAT = 1
FOLDER = "checkpoints"
_NAME = re.compile(r"(?P<kind>step|best)-(?P<step>\d+)\.pt")


class Checkpoint(NamedTuple):
    """config: plain values, see gan.config; state: see gan.state.TrainState.state_dict."""

    path: Path
    config: dict[str, Any]
    state: dict[str, Any]


def write_atomically(path: Path, content: bytes) -> None:
    """Writes beside the target, flushes to the disk, then renames: a reader sees the old file or the whole new one.

    Raises:
        CheckpointError: the disk is full or cannot be written; the old file is as it was.
    """
    beside = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # the folder itself may have become unwritable: the sentence below says so
            beside.unlink(missing_ok=True)
        raise CheckpointError(
            f"{path}: cannot be written: {error.strerror or error}; what was saved before is intact"
        ) from None


def save_checkpoint(run: Path, config: dict[str, Any], state: dict[str, Any], *, keep: int) -> Path:
    """Writes `run`/checkpoints/step-<step>.pt and removes all but the newest `keep`; returns the file."""
    path = _write(run / FOLDER / f"step-{state['step']:08d}.pt", config, state)
    for old in list_checkpoints(run)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def save_best(run: Path, config: dict[str, Any], state: dict[str, Any]) -> Path:
    """Writes `run`/checkpoints/best-<step>.pt; returns the file."""
    return _write(run / FOLDER / f"best-{state['step']:08d}.pt", config, state)


def _write(path: Path, config: dict[str, Any], state: dict[str, Any]) -> Path:
    buffer = io.BytesIO()  # a file system's errors inside torch.save would not say what they are
    torch.save({"format": FORMAT, "config": config, "state": state}, buffer)
    write_atomically(path, buffer.getvalue())
    return path


def list_checkpoints(run: Path) -> list[Path]:
    """Checkpoints of a run, oldest first."""
    return _numbered(run, "step")


def best_checkpoints(run: Path) -> list[Path]:
    """Checkpoints that were the best when they were written: one, but for a moment while it is replaced."""
    return _numbered(run, "best")


def _numbered(run: Path, kind: str) -> list[Path]:
    found = [(match, path) for path in (run / FOLDER).glob("*.pt") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted((int(match["step"]), path) for match, path in found if match["kind"] == kind)]


def find_checkpoint(path: Path) -> Path:
    """A checkpoint file as given, or the newest one of a run folder.

    Raises:
        CheckpointError: there is none; names what there is instead.
    """
    if path.is_file():
        return path
    if path.is_dir():
        checkpoints = list_checkpoints(path)
        if checkpoints:
            return checkpoints[-1]
        raise CheckpointError(f"{path}: holds no checkpoint ({FOLDER}/step-*.pt)")
    beside = [other.name for other in sorted(path.parent.glob("*.pt"))]
    hint = f"; beside it: {', '.join(beside)}" if beside else ""
    raise CheckpointError(f"{path}: no such checkpoint or run folder{hint}")


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint file, or the newest one of a run folder. No code in the file is run.

    Raises:
        CheckpointError: missing, truncated, foreign, or written by a newer version.
    """
    path = find_checkpoint(path)
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load itself does not compare the checksums
            if any(member.compress_type for member in archive.infolist()):
                raise zipfile.BadZipFile("compressed, as no checkpoint is")
            broken = archive.testzip()
        if broken is not None:
            raise zipfile.BadZipFile(f"checksum of {broken}")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises whatever its bytes lead to, IndexError among others
        raise CheckpointError(
            f"{path}: not readable as a checkpoint: truncated, damaged or another program's file ({_first_line(error)})"
        ) from None
    if not isinstance(content, dict) or not {"format", "config", "state"} <= content.keys():
        raise CheckpointError(f"{path}: not a checkpoint of gan-train: expected format, config and state in it")
    if content["format"] != FORMAT:
        raise CheckpointError(f"{path}: format {content['format']!r}; this version reads format {FORMAT}")
    return Checkpoint(path, content["config"], content["state"])


def _first_line(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return text.splitlines()[0][:120]


def newest_run(runs: Path = Path("runs"), identity: str = "") -> Path:
    """The run under `runs` whose newest checkpoint was written last; only of this identity, if one is given.

    Raises:
        CheckpointError: no run there has a checkpoint.
    """
    candidates = [
        (checkpoints[-1].stat().st_mtime, run)
        for run in (runs.iterdir() if runs.is_dir() else ())
        if (checkpoints := list_checkpoints(run)) and (not identity or identity_of(run) == identity)
    ]
    if not candidates:
        raise CheckpointError(
            f"{runs}: no run with a checkpoint there; train one, or name it with --run or --checkpoint"
        )
    return max(candidates)[1]


def identity_of(run: Path) -> str:
    """The identity of the configuration that made a run, from its folder; empty if it has none."""
    try:
        return str(json.loads((run / "run.json").read_text())["identity"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""
