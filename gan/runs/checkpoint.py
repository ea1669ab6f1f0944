"""Checkpoints: one file {"format", "config", "state"} that torch.load(weights_only=True) reads.

If the configuration has names of imported code, the file also has "imports", records of it.
"""

import hashlib
import io
import shlex
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch

from gan.config.imported import used_by
from gan.errors import CheckpointError, DamagedCheckpointError
from gan.runs.finding import FOLDER, OF_EXPORTED, SUFFIX, find_checkpoint, list_checkpoints, step_of
from gan.runtime.files import write_atomically, writing

FORMAT = 1
DAMAGED = ".damaged"
_SEAL = b"sha256:"
_SEAL_LENGTH = len(_SEAL) + 64
_END = b"PK\5\6"  # signature of the last record of a zip archive; the record has 22 bytes if there is no comment


class Checkpoint(NamedTuple):
    """Contents of a checkpoint file.

    Attributes:
        config: plain values, see gan.config.
        state: see gan.training.state.TrainState.state_dict.
        sha256: of the file as it was read, in hexadecimal; a running training may remove the file afterwards.
        imports: records of the imported code that it needs, see gan.config.imported.used_by.
    """

    path: Path
    config: dict[str, Any]
    state: dict[str, Any]
    sha256: str
    imports: list[dict[str, Any]]


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
    imports = used_by(config)
    torch.save({"format": FORMAT, "config": config, "state": state} | ({"imports": imports} if imports else {}), buffer)
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


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint file, or the newest one of a run folder. No code in the file is run.

    A training in the folder may remove the checkpoint meanwhile; then the newest one is read again.

    Raises:
        DamagedCheckpointError: truncated, modified or not a checkpoint; the message names the newest intact older one.
        CheckpointError: missing, unreadable, or of another format version.
    """
    while True:
        found = find_checkpoint(path)
        try:
            return _read_file(found)
        except CheckpointError:
            if found == path or found.exists():
                raise


def _read_file(path: Path) -> Checkpoint:
    """Reads a checkpoint file; raises the errors of `read_checkpoint`."""
    if path.suffix == SUFFIX:
        raise CheckpointError(
            f"{path}: not a checkpoint but exported networks: {OF_EXPORTED}; expected a file {FOLDER}/*.pt"
        )
    try:
        content, digest = _read(path)
    except DamagedCheckpointError as error:
        raise DamagedCheckpointError(f"{error}{_hint(path)}") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    if content["format"] != FORMAT:
        raise CheckpointError(
            f"{path}: got format {content['format']!r}, expected {FORMAT}; use the version that wrote it"
        )
    return Checkpoint(path, content["config"], content["state"], digest, content.get("imports", []))


def _read(path: Path) -> tuple[dict[str, Any], str]:
    """Reads and verifies the contents of a checkpoint file; returns them and the SHA-256 of the file.

    Raises:
        DamagedCheckpointError: the file is truncated, modified or not a checkpoint.
        CheckpointError: the file is intact but cannot be loaded.
        OSError: the file cannot be read.
    """
    sealed, digest = _check_seal(path)
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
    return content, digest


def _check_seal(path: Path) -> tuple[bool, str]:
    """Verifies the SHA-256 at the end of a file, which files of earlier versions do not have.

    Returns:
        whether there is one, and the SHA-256 of the whole file.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        left = max(0, path.stat().st_size - _SEAL_LENGTH)
        while block := file.read(min(left, 1 << 20)):
            digest.update(block)
            left -= len(block)
        end = file.read()
    whole = digest.copy()
    whole.update(end)
    if end.startswith(_SEAL):
        if end != _SEAL + digest.hexdigest().encode():
            raise _damaged(path, "wrong SHA-256")
        return True, whole.hexdigest()
    if end[-22:-18] != _END or end[-2:] != b"\0\0":
        raise _damaged(path, "the end of the file is missing")
    return False, whole.hexdigest()


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
    again = f"with gan-train --run {shlex.quote(str(run))} --resume --skip-damaged"
    for older in reversed(list_checkpoints(run)):
        if step_of(older) < step_of(path) and _is_intact(older):
            return f"; continue from {older.name}, which is intact, {again}"
    return f"; no earlier one is intact; start again {again}"


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
