"""Content-addressed, checksummed cache of arrays on disk."""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.runtime.files import read_arrays, replacing

_KEY = "key"  # the array that holds the canonical JSON of what decides the others
_DIGEST = "sha256"


class Cache:
    """A folder of `.npz` files, one for each key; several processes may share it.

    A key is a mapping of everything that decides the arrays: content hashes of images and weights, counts, versions. A
    file holds its key and a digest of its arrays; a damaged file, or one of another key, counts as absent. Files are
    replaced as a whole, and two processes that write the same key write the same content.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._complained = False

    def read(self, key: dict[str, Any]) -> dict[str, np.ndarray] | None:
        """The arrays stored under the key; None if there are none."""
        text = canonical(key)
        try:
            arrays = read_arrays(self._file(text))
            stored, digest = str(arrays.pop(_KEY)[()]), str(arrays.pop(_DIGEST)[()])
        except (OSError, ValueError, KeyError, IndexError):
            return None
        return arrays if stored == text and digest == _digest(arrays) else None

    def write(self, key: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Stores arrays under the key; the first failure to write is reported on stderr, and none is an error."""
        text = canonical(key)
        file = self._file(text)
        try:
            with replacing(file) as beside, beside.open("wb") as stream:
                np.savez(stream, **arrays, **{_KEY: np.array(text), _DIGEST: np.array(_digest(arrays))})  # type: ignore[arg-type]
        except OSError as error:
            if not self._complained:
                print(
                    f"cache: {file} cannot be written ({error.strerror or error}); no features are kept",
                    file=sys.stderr,
                )
            self._complained = True

    def _file(self, text: str) -> Path:
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:40]}.npz"


def canonical(fields: dict[str, Any]) -> str:
    """Canonical JSON: the same text for equal content.

    Raises:
        TypeError, ValueError: content that JSON cannot express.
    """
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)


def default_folder() -> Path:
    """$XDG_CACHE_HOME/srn-gan, or ~/.cache/srn-gan."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "srn-gan"


def _digest(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()
