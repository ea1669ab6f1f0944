"""Checkpoints: one file {"format", "config", "state"} that torch.load(weights_only=True) reads."""

import hashlib
import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch

from gan.config import Config
from gan.config.classifier import ClassifierConfig
from gan.config.loading import load
from gan.errors import CheckpointError, ConfigError, DamagedCheckpointError
from gan.runtime.files import write_atomically, writing

FORMAT = 1
FOLDER = "checkpoints"
DAMAGED = ".damaged"
_SEAL = b"sha256:"
_SEAL_LENGTH = len(_SEAL) + 64
_END = b"PK\5\6"  # signature of the last record of a zip archive; the record has 22 bytes if there is no comment
_NAME = re.compile(r"(?P<kind>step|best)-(?P<step>\d+)\.pt")


class Checkpoint(NamedTuple):
    """Contents of a checkpoint file.

    Attributes:
        config: plain values, see gan.config.
        state: see gan.training.state.TrainState.state_dict.
    """

    path: Path
    config: dict[str, Any]
    state: dict[str, Any]


def save_checkpoint(
    run: Path, config: dict[str, Any], state: dict[str, Any], *, keep_last: int, keep_every: int = 0
) -> Path:
    """Writes `run`/checkpoints/step-<step>.pt and removes superseded checkpoints; returns the file."""
    path = _write(run / FOLDER / f"step-{state['step']:08d}.pt", config, state)
    remove_superseded(run, keep_last=keep_last, keep_every=keep_every)
    return path


def remove_superseded(run: Path, *, keep_last: int, keep_every: int) -> None:
    """Removes all checkpoints but the newest `keep_last` and those whose step > 0 is a multiple of `keep_every` > 0."""
    for old in list_checkpoints(run)[:-keep_last]:
        step = step_of(old)
        if not (keep_every and step and step % keep_every == 0):
            old.unlink(missing_ok=True)


def save_best(run: Path, config: dict[str, Any], state: dict[str, Any]) -> Path:
    """Writes `run`/checkpoints/best-<step>.pt; returns the file."""
    return _write(run / FOLDER / f"best-{state['step']:08d}.pt", config, state)


def _write(path: Path, config: dict[str, Any], state: dict[str, Any]) -> Path:
    buffer = io.BytesIO()  # in memory, because torch.save would hide the cause of a file system's error
    torch.save({"format": FORMAT, "config": config, "state": state}, buffer)
    _seal(buffer)
    with writing(path):
        path.parent.mkdir(exist_ok=True)
    write_atomically(path, buffer.getvalue())
    return path


def _seal(archive: io.BytesIO) -> None:
    """Appends the SHA-256 of a zip archive as its comment, which readers of zip archives ignore."""
    with archive.getbuffer() as content:
        assert content[-22:-18] == _END
        content[-2:] = _SEAL_LENGTH.to_bytes(2, "little")
        digest = hashlib.sha256(content).hexdigest()
    archive.seek(0, io.SEEK_END)
    archive.write(_SEAL + digest.encode())


def list_checkpoints(run: Path) -> list[Path]:
    """Returns the checkpoints of a run, oldest first."""
    return _numbered(run, "step")


def best_checkpoints(run: Path) -> list[Path]:
    """Returns the best checkpoints of a run, oldest first; see gan.runs.best."""
    return _numbered(run, "best")


def step_of(path: Path) -> int:
    """Returns the step of a file from `list_checkpoints` or `best_checkpoints`."""
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match["step"])


def _numbered(run: Path, kind: str) -> list[Path]:
    found = [(match, path) for path in (run / FOLDER).glob("*.pt") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted((int(match["step"]), path) for match, path in found if match["kind"] == kind)]


def find_checkpoint(path: Path) -> Path:
    """Returns a checkpoint file unchanged, or the newest one of a run folder.

    Raises:
        CheckpointError: there is none; the message names the checkpoints in the same folder.
    """
    if path.is_file():
        return path
    if path.is_dir():
        checkpoints = list_checkpoints(path)
        if checkpoints:
            return checkpoints[-1]
        raise CheckpointError(f"{path}: holds no checkpoint ({FOLDER}/step-*.pt)")
    beside = [other.name for other in sorted(path.parent.glob("*.pt"))]
    hint = f"; in the same folder: {', '.join(beside)}" if beside else ""
    raise CheckpointError(f"{path}: no such checkpoint or run folder{hint}")


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint file, or the newest one of a run folder. No code in the file is run.

    Raises:
        DamagedCheckpointError: truncated, modified or not a checkpoint; the message names the newest intact older one.
        CheckpointError: missing, unreadable, or of another format version.
    """
    path = find_checkpoint(path)
    try:
        content = _read(path)
    except DamagedCheckpointError as error:
        raise DamagedCheckpointError(f"{error}{_hint(path)}") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    if content["format"] != FORMAT:
        raise CheckpointError(
            f"{path}: got format {content['format']!r}, expected {FORMAT}; use the version that wrote it"
        )
    return Checkpoint(path, content["config"], content["state"])


def _read(path: Path) -> dict[str, Any]:
    """Reads and verifies the contents of a checkpoint file.

    Raises:
        DamagedCheckpointError: the file is truncated, modified or not a checkpoint.
        CheckpointError: the file is intact but cannot be loaded.
        OSError: the file cannot be read.
    """
    sealed = _check_seal(path)
    try:
        _check_archive(path, sums=not sealed)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle can raise almost any error, such as IndexError
        if sealed:
            raise CheckpointError(f"{path}: cannot be loaded: {_first_line(error)}") from None
        raise _damaged(path, _first_line(error)) from None
    if not isinstance(content, dict) or not {"format", "config", "state"} <= content.keys():
        raise DamagedCheckpointError(f"{path}: not a checkpoint of gan-train: expected format, config and state in it")
    return content


def _check_seal(path: Path) -> bool:
    """Verifies the SHA-256 at the end of a file; returns False if there is none (files of earlier versions)."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        left = max(0, path.stat().st_size - _SEAL_LENGTH)
        while block := file.read(min(left, 1 << 20)):
            digest.update(block)
            left -= len(block)
        end = file.read()
    if end.startswith(_SEAL):
        if end != _SEAL + digest.hexdigest().encode():
            raise _damaged(path, "wrong SHA-256")
        return True
    if end[-22:-18] != _END or end[-2:] != b"\0\0":
        raise _damaged(path, "the end of the file is missing")
    return False


def _check_archive(path: Path, *, sums: bool) -> None:
    """Raises BadZipFile for compressed records and, if `sums` is true, for wrong checksums.

    A checkpoint never has compressed records, but a zip bomb does. torch.load does not verify checksums.
    """
    with zipfile.ZipFile(path) as archive:
        if any(member.compress_type for member in archive.infolist()):
            raise zipfile.BadZipFile("compressed records")
        broken = archive.testzip() if sums else None
    if broken is not None:
        raise zipfile.BadZipFile(f"wrong checksum of {broken}")


def _damaged(path: Path, reason: str) -> DamagedCheckpointError:
    return DamagedCheckpointError(
        f"{path}: not readable as a checkpoint: truncated, damaged or not from this program ({reason})"
    )


def _hint(path: Path) -> str:
    """Returns advice for a damaged checkpoint of a run; it names the newest intact checkpoint before it."""
    run = path.parent.parent
    if path not in list_checkpoints(run):
        return ""
    for older in reversed(list_checkpoints(run)):
        if step_of(older) < step_of(path) and _is_intact(older):
            return f"; continue from {older.name}, which is intact, with gan-train --run {run} --resume --skip-damaged"
    return f"; no earlier one is intact; start again with gan-train --run {run} --resume --skip-damaged"


def _is_intact(path: Path) -> bool:
    try:
        _read(path)
    except (CheckpointError, OSError):
        return False
    return True


def set_damaged_aside(run: Path) -> list[Path]:
    """Renames damaged checkpoints, newest first, until one is intact; returns their new names.

    Raises:
        CheckpointError: a file cannot be renamed, or is intact but cannot be loaded.
        OSError: a file cannot be read, so it may be intact.
    """
    renamed = []
    for path in reversed(list_checkpoints(run)):
        try:
            _read(path)
            break
        except DamagedCheckpointError:
            with writing(path):
                renamed.append(path.rename(path.with_name(path.name + DAMAGED)))
    return renamed


def _first_line(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return text.splitlines()[0][:120]


def newest_run(runs: Path = Path("runs"), identity: str = "", kind: str = "gan") -> Path:
    """Returns the run of this kind under `runs` that was saved last.

    Args:
        identity: if not empty, only runs with this identity are considered.
        kind: see `kind_of`.

    Raises:
        CheckpointError: no such run has a checkpoint.
    """
    found = [(checkpoints[-1].stat().st_mtime, run) for run in _folders(runs) if (checkpoints := list_checkpoints(run))]
    for _, run in sorted(found, reverse=True):
        if kind_of(run) == kind and identity in ("", identity_of(run)):
            return run
    raise CheckpointError(f"{runs}: contains no run with a checkpoint; train one, or give --run or --checkpoint")


def _folders(runs: Path) -> list[Path]:
    return list(runs.iterdir()) if runs.is_dir() else []


def identity_of(run: Path) -> str:
    """Returns the identity of a run's stored configuration, as this version computes it; "" without one."""
    kind = ClassifierConfig if kind_of(run) == ClassifierConfig.kind else Config
    try:
        return load(kind, run / "config.yaml").identity()
    except ConfigError:
        return ""


def kind_of(run: Path) -> str:
    """Returns the kind of a run, "gan" or "classifier"; "gan" if it is not stored, as in runs of earlier versions."""
    return str(read_record(run).get("kind", "gan"))


def read_record(run: Path) -> dict[str, Any]:
    """Returns the contents of run.json; {} if it is missing or invalid."""
    try:
        record = json.loads((run / "run.json").read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}
