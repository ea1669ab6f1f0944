"""Files of a run that are whole or not there, and one process at a time that writes them."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import click
from filelock import FileLock, Timeout

from gan.errors import CheckpointError

LOCK = ".lock"
PART = ".part"


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Where writing at `path` fails inside, one sentence says so.

    Raises:
        CheckpointError: the disk is full, the folder has vanished or cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"{error.filename or path}: cannot be written: {error.strerror or error}; what was saved before is intact"
        ) from None


def write_atomically(path: Path, content: bytes) -> None:
    """Writes beside the target, flushes to the disk, then renames: a reader sees the old file or the whole new one.

    No folder is made: a run whose folder has vanished does not go on in another of that name.

    Raises:
        CheckpointError: the disk is full or cannot be written; the old file is as it was.
    """
    beside = path.with_name(path.name + PART)
    with writing(path):
        try:
            with beside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except OSError as error:
            error.filename = path  # not the file beside, of which nobody has heard
            with contextlib.suppress(OSError):  # the folder itself may have become unwritable
                beside.unlink(missing_ok=True)
            raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Renaming outlasts a power cut once the folder is on the disk, where the system can be asked for that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_parts(*folders: Path) -> None:
    """What a killed process has left half written in these folders; for the one that writes there now."""
    for folder in folders:
        for part in folder.glob(f"*{PART}*"):
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Inside, no other process trains in the folder, which is made where missing.

    The lock is the system's and ends with the process, also with one that is killed. A folder in which nothing was
    written is removed at the end.

    Raises:
        CheckpointError: another process has it, or it cannot be written.
    """
    lock = FileLock(run / LOCK)
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise CheckpointError(
            f"{run}: another process is training here; wait until it ends, or choose another --run"
        ) from None
    except NotImplementedError:  # network file systems without locks
        click.echo(f"{run}: the file system has no locks: let no other process train here", err=True)
    except OSError as error:
        raise CheckpointError(f"{run}: cannot be written: {error.strerror or error}; choose another --run") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if [path.name for path in run.iterdir()] == [LOCK]:
                (run / LOCK).unlink()
                run.rmdir()
        lock.release()
