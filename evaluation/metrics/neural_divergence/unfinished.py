"""What an interrupted run leaves on disk, to go on from; and a finished one, until its report is safe."""

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from evaluation.errors import EvaluationError
from evaluation.images.cache import canonical
from evaluation.runtime.files import replacing

SECONDS_BETWEEN_SAVES = 60.0
UNFINISHED, FINISHED = "unfinished", "finished"


class Unfinished:
    """A file in a folder, named and keyed by everything that decides the run; no folder: nothing is kept.

    A file that is damaged or was written for another key counts as absent, so a run never goes on from another's
    state. Files are written beside and renamed: what is there is whole.

    Args:
        key: content hashes, settings, seed, versions; anything JSON knows.
    """

    def __init__(self, folder: Path | None, key: dict[str, Any]) -> None:
        self._key = canonical(key)
        name = hashlib.sha256(self._key.encode()).hexdigest()[:16]
        self.file = None if folder is None else folder / f"{UNFINISHED}-{name}.pt"
        self.finished_file = None if folder is None else folder / f"{FINISHED}-{name}.pt"
        self._last_save = time.monotonic()

    def read(self) -> dict[str, Any] | None:
        """What was saved last under this key, on the CPU; None: nothing."""
        if self.file is None or self.finished_file is None:
            return None
        return self._read(self.finished_file) or self._read(self.file)

    def _read(self, file: Path) -> dict[str, Any] | None:
        try:
            stored = torch.load(file, map_location="cpu", weights_only=True)
            return stored["state"] if stored["key"] == self._key else None
        except Exception:  # a damaged pickle raises whatever its bytes lead to, IndexError among others
            return None

    @contextmanager
    def restoring(self) -> Iterator[None]:
        """Around the use of what was read.

        Raises:
            EvaluationError: it is not what was written under this key.
        """
        try:
            yield
        except Exception as error:
            raise EvaluationError(f"{self.file}: does not fit its key ({error!r}); remove it to start anew") from error

    @property
    def due(self) -> bool:
        """Whether a minute has passed since the last state was written."""
        return self.file is not None and time.monotonic() - self._last_save >= SECONDS_BETWEEN_SAVES

    def write(self, state: dict[str, Any]) -> None:
        """Replaces what was saved; plain containers and tensors.

        Raises:
            EvaluationError: the folder cannot be written.
        """
        assert self.file is not None
        self._write(self.file, state)
        self._last_save = time.monotonic()

    def finish(self, state: dict[str, Any]) -> None:
        """Replaces what was saved by the end of the run, where the folder can be written; see `forget_finished`."""
        if self.file is None or self.finished_file is None:
            return
        with suppress(EvaluationError):  # the run has its result: a copy of it is not worth losing it
            self._write(self.finished_file, state)
        with suppress(OSError):
            self.file.unlink(missing_ok=True)

    def _write(self, file: Path, state: dict[str, Any]) -> None:
        try:
            with replacing(file) as beside:
                torch.save({"key": self._key, "state": state}, beside)
        except (OSError, RuntimeError) as error:
            raise EvaluationError(f"checkpoint: {file} cannot be written ({error}); free space there") from error


def forget_finished(folder: Path) -> None:
    """Removes the ends of runs in a folder: call it when what was made of them is on the disk."""
    for file in folder.glob(f"{FINISHED}-*.pt"):
        with suppress(OSError):
            file.unlink(missing_ok=True)
