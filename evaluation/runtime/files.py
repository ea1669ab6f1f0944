"""Atomic writing of files, and reading of `.npz` files that may be damaged."""

import errno
import glob
import os
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

SECONDS_OF_WRITING = 3600.0  # age from which a temporary file is considered abandoned
MAX_UNPACKED = 2**30, 100  # unpacked bytes that are always allowed; above them, the largest ratio to the packed size


def home_folder() -> Path | None:
    """Returns the user's home folder; None without one, as for a foreign user id in a container."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def is_file(path: Path) -> bool:
    """Returns whether a path is a file; False, too, in a folder that may not be entered."""
    try:
        return path.is_file()
    except OSError:
        return False


def check_writable(folder: Path) -> None:
    """Checks that files can be written into a folder, or that a missing folder can be made. Creates nothing.

    Raises:
        OSError: they cannot; `filename` is the path that forbids it.
    """
    place = folder.absolute()
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
    if not os.access(place, os.W_OK | os.X_OK):
        read_only = os.statvfs(place).f_flag & os.ST_RDONLY
        number = errno.EROFS if read_only else errno.EACCES
        raise OSError(number, os.strerror(number), str(place))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder; the file there replaces `path` if the body succeeds.

    Creates the folder. Temporary files of killed processes are removed after an hour.

    Raises:
        OSError: the folder or the file cannot be written; an existing file at `path` stays.
    """
    partial = path.with_name(f"{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_over(path)
        yield partial
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text to a file atomically; lone surrogates are escaped."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


def _remove_left_over(path: Path) -> None:
    """Removes old temporary files. Only age is checked, because their processes may run on another machine."""
    for partial in path.parent.glob(f"{glob.escape(path.stem)}.*.part{glob.escape(path.suffix)}"):
        with suppress(OSError):
            if time.time() - partial.stat().st_mtime > SECONDS_OF_WRITING:
                partial.unlink()


def array_names(path: Path) -> set[str]:
    """Returns the names of the arrays in an `.npz` file; an empty set for any other file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        return set()


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Reads all arrays of an `.npz` file, without unpickling.

    Raises:
        OSError: the file is missing or cannot be read.
        ValueError: the file is damaged or needs pickle.
    """
    try:
        # np.load gets an open file, because it does not close a file that it opened itself if it fails.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            _check_unpacked(path.stat().st_size, sum(info.file_size for info in archive.zip.infolist()))
            return {name: archive[name] for name in archive.files}
    except OSError:
        raise
    except ValueError as error:
        if "pickle" in str(error):  # NumPy's own message advises an argument that no command has
            raise ValueError("it holds a pickle, which may run code; save its arrays with numpy.savez") from error
        raise
    except Exception as error:  # damaged files make zipfile, zlib and numpy's header parser raise almost anything
        raise ValueError(first_line(error)) from error


def _check_unpacked(packed: int, unpacked: int) -> None:
    least, factor = MAX_UNPACKED
    if unpacked > max(least, factor * packed):
        raise ValueError(f"{packed:,} bytes that unpack to {unpacked:,}, expected at most {factor} times as many")


def first_lines(error: BaseException | None) -> str:
    """Returns the first line of an error and of the errors that led to it."""
    lines: list[str] = []
    while error is not None:
        lines.append(first_line(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return ", caused by: ".join(dict.fromkeys(lines))


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or its type if that is empty."""
    return str(error).strip().split("\n")[0] or type(error).__name__
