"""Packed data sets: written here, and read with the settings of a configuration."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.images.reader import packed
from evaluation.images.reader.packed import FORMAT, MANIFEST, array_files, map_split, read_manifest
from gan.config import IMAGE_SIZES
from gan.data.image_data import ImageData, expanded, reader_errors
from gan.errors import DataError


def is_packed(root: str | Path) -> bool:
    """Returns whether a folder holds a packed data set."""
    return packed.is_packed(expanded(root))


def check_output(out: str | Path, *, overwrite: bool) -> Path:
    """Returns the folder to pack into, checked before the data are read.

    Raises:
        DataError: it exists and `overwrite` is false, or it holds files that are not of a packed data set.
    """
    folder = expanded(out, "--out")
    if not folder.exists() and not folder.is_symlink():
        return folder
    if not overwrite:
        raise DataError(f"{folder} exists; choose another folder or replace it with --overwrite")
    known: set[str] = set()
    if is_packed(folder):
        with reader_errors():
            splits = read_manifest(folder)["splits"].values()
        known = {MANIFEST} | {name for split in splits for name in array_files(split)}
    if folder.is_symlink() or not folder.is_dir() or {path.name for path in folder.iterdir()} - known:
        raise DataError(f"{folder} holds other files than a packed data set, so it is not replaced; choose another one")
    return folder


def pack(
    splits: Mapping[str, ImageData], out: str | Path, *, image_size: int, crop: int, resize: str, overwrite: bool
) -> Path:
    """Writes the splits of a data set to the folder `out`, atomically.

    `<split>-images.npy` uint8 (N, C, H, W), `<split>-labels.npy` int64 (N,), and dataset.json with source, classes,
    crop, resize, counts and fingerprints, and of grey images the number of channels, 1.

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
            **({"channels": first.image_channels} if first.image_channels != 3 else {}),
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


def load_packed(
    root: str | Path, *, name: str, split: str, image_size: int, crop: int, resize: str, channels: int = 3
) -> ImageData:
    """Maps one split of a packed data set into memory; images are read on use.

    The fingerprint of up to 1 GiB is verified at once.

    Raises:
        DataError: packed from another source or with other settings, missing split, or damaged files.
    """
    folder = expanded(root)
    with reader_errors():
        manifest = read_manifest(folder)
    asked = {"name": name, "image_size": image_size, "channels": channels, "crop": crop, "resize": resize}
    for key, value in asked.items():
        if manifest[key] != value:
            usable = key != "image_size" or manifest[key] in IMAGE_SIZES
            change = f"set data.{key}={manifest[key]}, or " if usable else ""
            raise DataError(
                f"data.root: {folder} was packed with data.{key}={manifest[key]}, but data.{key} is {value}; {change}"
                f"pack the data again with data.{key}={value}"
            )
    if split not in manifest["splits"]:
        present = ", ".join(manifest["splits"])
        raise DataError(
            f"data.root: {folder} was packed without a {split} split, only {present}; pack the data again with it"
        )
    return _map_split(folder, manifest, split)


def verify_packed(root: str | Path) -> dict[str, ImageData]:
    """Reads every split of a packed data set and verifies its fingerprint.

    Raises:
        DataError: not a packed data set, or damaged.
    """
    folder = expanded(root)
    if not is_packed(folder):
        raise DataError(f"{folder} is not a packed data set: it has no {MANIFEST}")
    with reader_errors():
        manifest = read_manifest(folder)
    return {split: _map_split(folder, manifest, split, verify=True) for split in manifest["splits"]}


def _map_split(folder: Path, manifest: Mapping[str, Any], split: str, verify: bool | None = None) -> ImageData:
    with reader_errors():
        images, labels, fingerprint = map_split(folder, dict(manifest), split, verify=verify)
    return ImageData(images, labels, manifest["classes"], manifest["name"], split, stored_fingerprint=fingerprint)


def _write_split(folder: Path, split: str, data: ImageData) -> dict[str, Any]:
    images, labels = f"{split}-images.npy", f"{split}-labels.npy"
    np.save(folder / images, data.images.numpy())
    np.save(folder / labels, data.labels.numpy())
    return {"count": len(data), "images": images, "labels": labels, "fingerprint": data.fingerprint}
