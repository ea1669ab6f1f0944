"""Atomic writing of files, and a lock that lets one process at a time write in a run folder."""

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
    """Inside, errors of writing at `path` become a CheckpointError of one sentence.

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

    Missing folders are not created, so a run whose folder was deleted stops instead of writing into a new one.

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
            error.filename = path  # report the target, not the temporary file
            with contextlib.suppress(OSError):  # the folder itself may have become unwritable
                beside.unlink(missing_ok=True)
            raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Flushes the folder, so that a renaming survives a power cut, where the system supports it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_parts(*folders: Path) -> None:
    """Removes files that a killed process left half written; only the process that writes there may call it."""
    for folder in folders:
        for part in folder.glob(f"*{PART}*"):
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Holds the lock of a run's folder, which is created if missing: one process at a time trains in it.

    The lock is the system's, so it ends with the process, even a killed one. A folder in which nothing was written is
    removed at the end.

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
