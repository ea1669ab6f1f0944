"""Packed data sets: decoded images as memory-mapped NumPy arrays with a dataset.json."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from evaluation.images.reader.errors import ReadError
from evaluation.images.reader.layout import composed_names

FORMAT = 1
MANIFEST = "dataset.json"
ARRAYS = "*-images.npy"
AGAIN = "pack the data again"
VERIFIED_BYTES = 2**30  # fingerprints of larger data sets are verified only if asked
_CHUNK_BYTES = 2**24  # memory-mapped data sets are hashed in chunks of this size


class PackedSplit(NamedTuple):
    """One split: images uint8 (N, C, H, W), memory-mapped, labels int64 (N,), and the stored fingerprint."""

    images: Tensor
    labels: Tensor
    fingerprint: str


def is_packed(root: Path) -> bool:
    """Returns whether a folder holds a packed data set; StyleGAN's data sets have a dataset.json of another form."""
    path = root / MANIFEST
    if not path.is_file():
        return False
    if next(root.glob(ARRAYS), None) is not None:
        return True
    try:
        manifest = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(manifest, dict) and {"format", "splits"} <= manifest.keys()


def read_manifest(folder: Path) -> dict[str, Any]:
    """Reads dataset.json, checks the types of its entries and composes the names of the classes (NFC).

    Raises:
        ReadError: damaged, changed, or of another format.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        manifest.setdefault("channels", 3)  # written for other numbers only
        if manifest["format"] != FORMAT:
            raise ReadError(f"{path} has format {manifest['format']!r}, this version reads {FORMAT}; {AGAIN}")
        valid = (
            _is(manifest, name=str, classes=list, image_size=int, channels=int, crop=int, resize=str, splits=dict)
            and all(isinstance(name, str) for name in manifest["classes"])
            and manifest["splits"]
            and all(
                _is(split, count=int, images=str, labels=str, fingerprint=str) for split in manifest["splits"].values()
            )
            and all(Path(name).name == name for split in manifest["splits"].values() for name in array_files(split))
        )
    except ReadError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ReadError(f"cannot read {path} ({error}); {AGAIN}") from error
    if not valid:
        raise ReadError(f"{path} was not written by prepare_dataset.py, or was changed; {AGAIN}")
    manifest["classes"] = composed_names(manifest["classes"], str(path))
    return dict(manifest)


def _is(entries: Any, **types: type) -> bool:
    return all(isinstance(entries[key], kind) for key, kind in types.items())


def array_files(split: dict[str, Any]) -> tuple[str, str]:
    """Returns the names of a split's files."""
    return split["images"], split["labels"]


def map_split(folder: Path, manifest: dict[str, Any], split: str, *, verify: bool | None = None) -> PackedSplit:
    """Maps a split into memory; images are read on use.

    Args:
        split: a key of manifest["splits"].
        verify: whether to verify the fingerprint; None: if the images have at most VERIFIED_BYTES.

    Raises:
        ReadError: damaged files.
    """
    entry, size = manifest["splits"][split], manifest["image_size"]
    # Copy-on-write: torch warns about read-only memory. The file is never written.
    shape = (entry["count"], manifest["channels"], size, size)
    images = _load_array(folder / entry["images"], np.dtype(np.uint8), shape, "c")
    labels = _load_array(folder / entry["labels"], np.dtype(np.int64), (entry["count"],), None)
    found = PackedSplit(torch.from_numpy(images), torch.from_numpy(labels), entry["fingerprint"])
    verify = images.nbytes <= VERIFIED_BYTES if verify is None else verify
    if verify and compute_fingerprint(found.images, found.labels) != found.fingerprint:
        raise ReadError(f"the {split} images or labels in {folder} are damaged; {AGAIN}")
    return found


def _load_array(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], mmap_mode: Any) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except Exception as error:  # NumPy parses the header as Python, so damage raises TokenError, SyntaxError and others
        raise ReadError(f"cannot read {path} ({error}); {AGAIN}") from error
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.shape != shape:
        raise ReadError(f"{path} does not hold {dtype} {shape} as its {MANIFEST} says; {AGAIN}")
    return array


def compute_fingerprint(images: Tensor, labels: Tensor) -> str:
    """Returns the SHA-256, in hexadecimal, over "N,C,H,W", the pixels and the labels as little-endian int64."""
    digest = hashlib.sha256(",".join(str(size) for size in images.shape).encode())
    rows = max(1, _CHUNK_BYTES // max(1, images[0].numel()))
    for chunk in images.split(rows):
        digest.update(chunk.cpu().contiguous().numpy().data)
    digest.update(labels.cpu().contiguous().numpy().astype("<i8", copy=False).data)
    return digest.hexdigest()
