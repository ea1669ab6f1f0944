"""Content-addressed, checksummed cache of arrays on disk."""

import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.runtime.files import home_folder, read_arrays, replacing
from evaluation.runtime.terminal import say

_KEY = "key"  # name of the array that holds the key, as canonical JSON
_DIGEST = "sha256"


class Cache:
    """A folder of `.npz` files, one per key; several processes may share it.

    A key names everything that affects the arrays: content hashes of images and weights, counts, versions. A file holds
    its key and a digest of its arrays; a damaged file, or a file with another key, is ignored. Files are replaced
    atomically, and two processes that write the same key write the same content.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._complained = False

    def read(self, key: dict[str, Any]) -> dict[str, np.ndarray] | None:
        """Returns the arrays stored under the key, or None."""
        text = canonical(key)
        try:
            arrays = read_arrays(self._file(text))
            stored, digest = str(arrays.pop(_KEY)[()]), str(arrays.pop(_DIGEST)[()])
        except (OSError, ValueError, KeyError, IndexError):
            return None
        return arrays if stored == text and digest == _digest(arrays) else None

    def write(self, key: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Stores arrays under the key. Failures are not raised; the first one is reported on stderr."""
        text = canonical(key)
        file = self._file(text)
        try:
            with replacing(file) as beside, beside.open("wb") as stream:
                np.savez(stream, **arrays, **{_KEY: np.array(text), _DIGEST: np.array(_digest(arrays))})  # type: ignore[arg-type]
        except (OSError, ValueError) as error:  # ValueError: a zip file that a full disk interrupts cannot be closed
            reason = getattr(error, "strerror", None) or error
            if not self._complained:
                say(f"cache: {file} cannot be written ({reason}); features are not cached")
            self._complained = True

    def _file(self, text: str) -> Path:
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:40]}.npz"


def canonical(fields: dict[str, Any]) -> str:
    """Returns canonical JSON: the same text for equal content.

    Raises:
        TypeError, ValueError: content that JSON cannot represent.
    """
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)


def default_cache() -> Cache | None:
    """Returns the cache in `default_folder`; None without such a folder."""
    folder = default_folder()
    return None if folder is None else Cache(folder)


def default_folder() -> Path | None:
    """Returns the user's cache folder: $XDG_CACHE_HOME/srn-gan, or ~/.cache/srn-gan.

    A relative $XDG_CACHE_HOME is ignored, as the XDG Base Directory Specification demands. A user without a home has no
    such folder: returns None, and says so on stderr once.
    """
    base, home = Path(os.environ.get("XDG_CACHE_HOME", "")), home_folder()
    if base.is_absolute():
        return base / "srn-gan"
    if home is None:
        _say_homeless()
        return None
    return home / ".cache" / "srn-gan"


@cache
def _say_homeless() -> None:
    say("cache: this user has no home folder, so nothing is cached; set XDG_CACHE_HOME to a folder to keep it")


def _digest(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()
