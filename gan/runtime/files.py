"""Writes files atomically, and locks run folders against a second process."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import click
from filelock import FileLock, Timeout

from gan.errors import CheckpointError

LOCK = ".lock"
PART = ".part"


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Context manager: turns errors of writing at `path` into a CheckpointError.

    Raises:
        CheckpointError: the disk is full, or the folder was deleted or cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"{error.filename or path}: cannot be written: {error.strerror or error}; files saved before are intact"
        ) from None


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file as `replacing` does."""
    with replacing(path) as file:
        file.write(content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Opens a temporary file, flushes it to the disk and renames it: readers see the old or the complete new file.

    Missing folders are not created, so a run whose folder was deleted stops instead of writing into a new one.

    Raises:
        CheckpointError: the disk is full or cannot be written; the old file is unchanged.
    """
    beside = path.with_name(path.name + PART)
    with writing(path):
        try:
            with beside.open("wb") as file:
                yield file
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
    """Flushes the folder to the disk, if the system supports it, so that a rename survives a power cut."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_parts(*folders: Path) -> None:
    """Removes half-written files of a killed process; only the process that writes in the folders may call it."""
    for folder in folders:
        for part in folder.glob(f"*{PART}*"):
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Context manager: holds the lock of a run folder, so that one process at a time trains in it.

    The folder is created if missing, and removed at the end if nothing was written in it. The operating system releases
    the lock when the process ends, even if it is killed.

    Raises:
        CheckpointError: another process holds the lock, or the folder cannot be written.
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
        click.echo(f"{run}: the file system does not support locks; do not train here in another process", err=True)
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
