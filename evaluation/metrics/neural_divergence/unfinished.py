"""State files: they resume interrupted runs, and keep the results of finished runs until the report is written."""

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
from evaluation.runtime.terminal import say

SECONDS_BETWEEN_SAVES = 60.0
UNFINISHED, FINISHED = "unfinished", "finished"


class Unfinished:
    """State file of a run. Its key names everything that affects the run.

    A damaged file, or a file with another key, is ignored, so a run never resumes from the state of another run. Files
    are written atomically. Without a folder nothing is saved.

    Args:
        key: content hashes, settings, seed, versions; any JSON types.
    """

    def __init__(self, folder: Path | None, key: dict[str, Any]) -> None:
        self._key = canonical(key)
        name = hashlib.sha256(self._key.encode()).hexdigest()[:16]
        self.file = None if folder is None else folder / f"{UNFINISHED}-{name}.pt"
        self.finished_file = None if folder is None else folder / f"{FINISHED}-{name}.pt"
        self._last_save = time.monotonic()
        self._complained = False

    def read(self) -> dict[str, Any] | None:
        """Reads the last state with this key, on the CPU; returns None if there is none."""
        return self._read(self.finished_file) or self._read(self.file)

    def _read(self, file: Path | None) -> dict[str, Any] | None:
        if file is None:
            return None
        try:
            stored = torch.load(file, map_location="cpu", weights_only=True)
            return stored["state"] if stored["key"] == self._key else None
        except Exception:  # a damaged pickle raises almost any type, for example IndexError
            return None

    @contextmanager
    def restoring(self) -> Iterator[None]:
        """Context manager for restoring a state; raises EvaluationError if the state does not fit the run."""
        try:
            yield
        except Exception as error:
            raise EvaluationError(f"{self.file}: does not fit this run ({error!r}); remove it to start over") from error

    @property
    def due(self) -> bool:
        """Whether a minute has passed since the last state was written."""
        return self.file is not None and time.monotonic() - self._last_save >= SECONDS_BETWEEN_SAVES

    def write(self, state: dict[str, Any]) -> None:
        """Saves the state, plain containers and tensors. Failures are not raised; the first is reported on stderr."""
        assert self.file is not None
        error = self._write(self.file, state)
        if error is not None and not self._complained:
            say(f"nd: {self.file} cannot be written ({error}); if this evaluation is interrupted, it starts again")
            self._complained = True
        self._last_save = time.monotonic()

    def finish(self, state: dict[str, Any]) -> None:
        """Replaces the unfinished state by the final one, which `forget_finished` removes."""
        if self.file is None or self.finished_file is None:
            return
        self._write(self.finished_file, state)  # the caller has the result, so a failure to save it does no harm
        with suppress(OSError):
            self.file.unlink(missing_ok=True)

    def _write(self, file: Path, state: dict[str, Any]) -> Exception | None:
        """Writes a file and returns None, or the error if it cannot be written."""
        try:
            with replacing(file) as beside:
                torch.save({"key": self._key, "state": state}, beside)
        except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
            return error
        return None


def forget_finished(folder: Path) -> None:
    """Removes the final states in a folder; call it after the report is written."""
    for file in folder.glob(f"{FINISHED}-*.pt"):
        with suppress(OSError):
            file.unlink(missing_ok=True)
