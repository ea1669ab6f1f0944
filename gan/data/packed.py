"""Packed data sets: decoded images as memory-mapped NumPy arrays with a dataset.json."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gan.data.image_data import ImageData, compute_fingerprint
from gan.errors import DataError

FORMAT = 1
MANIFEST = "dataset.json"
VERIFIED_BYTES = 2**30  # fingerprints of larger data sets are verified only by `verify_packed`


def is_packed(root: str | Path) -> bool:
    """Returns whether a folder holds a packed data set."""
    return Path(root).expanduser().joinpath(MANIFEST).is_file()


def check_output(out: str | Path, *, overwrite: bool) -> Path:
    """Returns the folder to pack into, checked before the data are read.

    Raises:
        DataError: it exists and `overwrite` is false, or it holds files that are not of a packed data set.
    """
    folder = Path(out).expanduser()
    if not folder.exists() and not folder.is_symlink():
        return folder
    if not overwrite:
        raise DataError(f"{folder} exists; choose another folder or replace it with --overwrite")
    known: set[str] = set()
    if is_packed(folder):
        known = {MANIFEST} | {name for split in _read_manifest(folder)["splits"].values() for name in _files(split)}
    if folder.is_symlink() or not folder.is_dir() or {path.name for path in folder.iterdir()} - known:
        raise DataError(f"{folder} holds other files than a packed data set, so it is not replaced; choose another one")
    return folder


def pack(
    splits: Mapping[str, ImageData], out: str | Path, *, image_size: int, crop: int, resize: str, overwrite: bool
) -> Path:
    """Writes the splits of a data set to the folder `out`, atomically.

    `<split>-images.npy` uint8 (N, 3, H, W), `<split>-labels.npy` int64 (N,), and dataset.json with source, classes,
    crop, resize, counts and fingerprints.

    Raises:
        DataError: see `check_output`.
        OSError: full disk, or the folder cannot be written; an existing `out` stays unchanged.
    """
    folder = check_output(out, overwrite=overwrite)
    first = next(iter(splits.values()))
    assert all(data.name == first.name and data.classes == first.classes for data in splits.values())
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    replaced = folder.with_name(f".{folder.name}.{os.getpid()}.replaced")
    try:
        beside.mkdir()
        manifest = {
            "format": FORMAT,
            "name": first.name,
            "classes": list(first.classes),
            "image_size": image_size,
            "crop": crop,
            "resize": resize,
            "splits": {split: _write_split(beside, split, data) for split, data in splits.items()},
        }
        beside.joinpath(MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        if folder.exists():
            folder.rename(replaced)
        beside.rename(folder)
    finally:
        if replaced.exists() and not folder.exists():
            replaced.rename(folder)
        for leftover in (beside, replaced):
            shutil.rmtree(leftover, ignore_errors=True)
    return folder


def load_packed(root: str | Path, *, name: str, split: str, image_size: int, crop: int, resize: str) -> ImageData:
    """Maps one split of a packed data set into memory; images are read on use.

    The fingerprint of up to 1 GiB is verified at once.

    Raises:
        DataError: packed from another source or with other settings, missing split, or damaged files.
    """
    folder = Path(root).expanduser()
    manifest = _read_manifest(folder)
    asked = {"name": name, "image_size": image_size, "crop": crop, "resize": resize}
    for key, value in asked.items():
        if manifest[key] != value:
            raise DataError(
                f"data.root: {folder} was packed with data.{key}={manifest[key]}, but data.{key} is {value}; set "
                f"data.{key}={manifest[key]}, or pack the data again"
            )
    if split not in manifest["splits"]:
        present = ", ".join(manifest["splits"])
        raise DataError(
            f"data.root: {folder} was packed without a {split} split, only {present}; pack the data again with it"
        )
    data = _map_split(folder, manifest, split)
    if data.images.nbytes <= VERIFIED_BYTES:
        _verify(folder, data)
    return data


def verify_packed(root: str | Path) -> dict[str, ImageData]:
    """Reads every split of a packed data set and verifies its fingerprint.

    Raises:
        DataError: not a packed data set, or damaged.
    """
    folder = Path(root).expanduser()
    if not is_packed(folder):
        raise DataError(f"{folder} is not a packed data set: it has no {MANIFEST}")
    manifest = _read_manifest(folder)
    splits = {split: _map_split(folder, manifest, split) for split in manifest["splits"]}
    for data in splits.values():
        _verify(folder, data)
    return splits


def _write_split(folder: Path, split: str, data: ImageData) -> dict[str, Any]:
    images, labels = f"{split}-images.npy", f"{split}-labels.npy"
    np.save(folder / images, data.images.numpy())
    np.save(folder / labels, data.labels.numpy())
    return {"count": len(data), "images": images, "labels": labels, "fingerprint": data.fingerprint}


def _files(split: dict[str, Any]) -> tuple[str, str]:
    return split["images"], split["labels"]


def _read_manifest(folder: Path) -> dict[str, Any]:
    """Reads dataset.json and checks the types of its entries."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise DataError(
                f"data.root: {path} has format {manifest['format']!r}, this version reads {FORMAT}; pack the data again"
            )
        valid = (
            _is(manifest, name=str, classes=list, image_size=int, crop=int, resize=str, splits=dict)
            and all(isinstance(name, str) for name in manifest["classes"])
            and manifest["splits"]
            and all(
                _is(split, count=int, images=str, labels=str, fingerprint=str) for split in manifest["splits"].values()
            )
            and all(Path(name).name == name for split in manifest["splits"].values() for name in _files(split))
        )
    except DataError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"data.root: cannot read {path} ({error}); pack the data again") from error
    if not valid:
        raise DataError(f"data.root: {path} was not written by prepare_dataset.py, or was changed; pack the data again")
    return manifest


def _is(entries: Any, **types: type) -> bool:
    return all(isinstance(entries[key], kind) for key, kind in types.items())


def _map_split(folder: Path, manifest: dict[str, Any], split: str) -> ImageData:
    entry = manifest["splits"][split]
    size = manifest["image_size"]
    # Copy-on-write: torch warns about read-only memory. The file is never written.
    images = _load_array(folder / entry["images"], np.dtype(np.uint8), (entry["count"], 3, size, size), "c")
    labels = _load_array(folder / entry["labels"], np.dtype(np.int64), (entry["count"],), None)
    return ImageData(
        images=torch.from_numpy(images),
        labels=torch.from_numpy(labels),
        classes=tuple(manifest["classes"]),
        name=manifest["name"],
        split=split,
        stored_fingerprint=entry["fingerprint"],
    )


def _load_array(path: Path, dtype: np.dtype, shape: tuple[int, ...], mmap_mode: Any) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except Exception as error:  # NumPy parses the header as Python, so damage raises TokenError, SyntaxError and others
        raise DataError(f"data.root: cannot read {path} ({error}); pack the data again") from error
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.shape != shape:
        raise DataError(f"data.root: {path} does not hold {dtype} {shape} as its {MANIFEST} says; pack the data again")
    return array


def _verify(folder: Path, data: ImageData) -> None:
    if compute_fingerprint(data.images, data.labels) != data.stored_fingerprint:
        raise DataError(f"data.root: the {data.split} images or labels in {folder} are damaged; pack the data again")
