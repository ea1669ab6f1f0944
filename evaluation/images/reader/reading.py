"""Reads images and labels from folders, archives, packed data sets and `.npz` files."""

import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from evaluation.errors import EvaluationError
from evaluation.images.checks import three_channels
from evaluation.images.reader.arrays import read_npz
from evaluation.images.reader.decoding import decode, strict_decoding
from evaluation.images.reader.errors import ReadError
from evaluation.images.reader.files import Files, open_files, read_errors
from evaluation.images.reader.framing import fit, to_array
from evaluation.images.reader.labels import read_labels
from evaluation.images.reader.layout import Entry, Layout, arrange
from evaluation.images.reader.packed import is_packed, map_split, read_manifest
from evaluation.runtime.progress import progress

Frame = Callable[[Image.Image, str], NDArray[np.uint8]]
"""Function of a decoded RGB image and its name in messages that returns uint8 (3, H, W)."""


class Images(NamedTuple):
    """A set of images.

    images: uint8 (N, 3, H, W), or (N, 1, H, W) if they are stored so, in arrays and packed data sets.
    labels: int64 (N,), or None if the images have no classes.
    class_names: by label; empty if they have no names.
    split: name of the split that was read; empty if the set is not divided into splits.
    """

    images: Tensor
    labels: Tensor | None
    class_names: tuple[str, ...]
    split: str = ""


class Resize(NamedTuple):
    """Resize of the largest centred square of each image to `size` pixels by the filter `name`, one of RESIZES.

    "pad" adds a black border to the whole image instead.
    """

    size: int
    name: str


def read_images(
    path: str | Path, split: str = "train", resize: Resize | None = None, *, strict: bool = False
) -> Images:
    """Reads the images of a folder, an archive or a packed data set, or of an `.npz` file.

    Of a set that is divided into splits, the split named in the path is read, as in "data.zip:test", else `split`, else
    the only one. See docs/data.md for the layouts and the order of the images.

    Args:
        resize: None: the images must have one size.
        strict: refuses a set whose only split is another one than `split`.

    Raises:
        EvaluationError: no images, a damaged file, images of several sizes, or another layout or format.
    """
    root, named = _find(path)
    if root.suffix.lower() == ".npz" and root.is_file():
        found = Images(*read_npz(root))
    elif is_packed(root):
        found = _read_packed(root, named, split, strict)
    else:
        files = open_files(root)
        layout = _read_layout(files)
        if named not in ("", "train") and not layout.divided:
            folder = f"give the folder {root / named}" if (root / named).is_dir() else f"give {root}"
            raise ReadError(f"{path}: {root} is not divided into splits; {folder}")
        chosen = _choose_split(layout.splits, named, split, root, strict) if layout.divided or named else "train"
        frame = _as_it_is if resize is None else lambda image, name: to_array(fit(image, *resize, name))
        read = _decode(files, layout, [chosen], frame)[chosen]
        return read._replace(split=chosen if layout.divided else "")
    return found if resize is None else found._replace(images=_resized(found.images, resize))


def read_splits(root: Path, splits: Sequence[str], frame: Frame) -> dict[str, Images]:
    """Reads the named splits of a folder or archive, or all if none is named; each image is decoded once.

    An `.npz` file is a training split, whose classes are named by their numbers unless it has names. Class names are
    those of the training split, if there is one.

    Raises:
        ReadError: see `read_images`; or a missing split.
    """
    if is_packed(root):
        raise ReadError(f"{root} is a packed data set already; use it as it is")
    if root.suffix.lower() == ".npz" and root.is_file():
        _check_splits(root, splits, ["train"], "use a folder or archive of images with train/<class>/, test/<class>/")
        return {"train": _read_framed(root, frame)}
    files = open_files(root)
    layout = _read_layout(files)
    _check_splits(
        root, splits, layout.splits, "put the images into train/ and test/, or train/<class>/ and test/<class>/"
    )
    return _decode(files, layout, splits or list(layout.splits), frame)


def _check_splits(root: Path, wanted: Sequence[str], present: Collection[str], advice: str) -> None:
    for split in wanted:
        if split not in present:
            raise ReadError(f"{_missing(present, split, root)}; {advice}")


def _read_framed(file: Path, frame: Frame) -> Images:
    """Reads the images of an `.npz` file through `frame`."""
    try:
        found = Images(*read_npz(file))
    except EvaluationError as error:
        raise ReadError(str(error)) from error
    pixels = three_channels(found.images).permute(0, 2, 3, 1).contiguous().numpy()
    framed = np.stack([frame(Image.fromarray(array), f"{file}: image {row}") for row, array in enumerate(pixels)])
    classes = range(0 if found.labels is None else int(found.labels.max()) + 1)
    return found._replace(images=torch.from_numpy(framed), class_names=found.class_names or tuple(map(str, classes)))


def _find(path: str | Path) -> tuple[Path, str]:
    """Returns an existing path and the name of the split at its end, empty if there is none.

    Raises:
        ReadError: no such path.
    """
    root = Path(os.path.expanduser(path))  # noqa: PTH111  Path.expanduser raises for an unknown user
    base, _, split = str(root).rpartition(":")
    with read_errors(root):
        if root.exists():
            return root, ""
        if base and Path(base).exists():
            return Path(base), split
    by_name = "; named data sets are read by gan-eval, as in gan-eval --generated DIR --reference cifar10:train"
    raise ReadError(
        f"{path}: not found, expected a folder, a .zip or a .tar archive of images, a packed data set or an .npz file"
        + (by_name if re.fullmatch(r"\w+(:\w+)?", str(path)) else "")
    )


def _choose_split(present: Collection[str], named: str, wanted: str, root: Path, strict: bool) -> str:
    if (named or wanted) in present:
        return named or wanted
    if not named and not strict and len(present) == 1:
        return next(iter(present))
    example = next(iter(present))
    raise ReadError(f"{_missing(present, named or wanted, root)}; name one of them, as in {root}:{example}")


def _missing(present: Collection[str], split: str, root: Path) -> str:
    return f"{root} has no {split} split, only {' and '.join(present)}"


def _read_layout(files: Files) -> Layout:
    return arrange(files.paths, str(files.root), read_labels(files), archive=files.archive)


def _read_packed(folder: Path, named: str, wanted: str, strict: bool) -> Images:
    manifest = read_manifest(folder)
    split = _choose_split(manifest["splits"], named, wanted, folder, strict)
    found, classes = map_split(folder, manifest, split), manifest["classes"]
    if len(classes) < 2:
        return Images(found.images, None, (), split)
    if int(found.labels.min()) < 0 or int(found.labels.max()) >= len(classes):
        raise ReadError(f"{folder}: got labels outside of 0 to {len(classes) - 1}; pack the data again")
    return Images(found.images, found.labels, classes, split)


def _decode(files: Files, layout: Layout, splits: Sequence[str], frame: Frame) -> dict[str, Images]:
    """Decodes the images of each split in the order of its entries."""
    rows = {split: layout.splits[split] for split in splits}
    pixels = _decode_all(files, rows, frame)
    numbers = {name: number for number, name in enumerate(layout.classes)}

    def labels(split: str) -> Tensor | None:
        return torch.tensor([numbers[str(entry.label)] for entry in rows[split]]) if numbers else None

    return {split: Images(torch.from_numpy(pixels[split]), labels(split), layout.classes) for split in splits}


def _decode_all(files: Files, rows: Mapping[str, list[Entry]], frame: Frame) -> dict[str, NDArray[np.uint8]]:
    places = {entry.path: (split, row) for split, entries in rows.items() for row, entry in enumerate(entries)}
    images: dict[str, NDArray[np.uint8]] = {}
    first, shape = "", (0, 0, 0)
    with read_errors(files.root), strict_decoding(), progress(len(places), files.root.name, "images") as counter:
        for path, data in files.read(places):
            name = f"{files.root}: {path}"
            image = frame(decode(data, name), name)
            if not images:
                first, shape = path, image.shape
                images = {split: _allocate(files.root, (len(entries), *shape)) for split, entries in rows.items()}
            if image.shape != shape:
                raise ReadError(_other_size(name, image.shape, first, shape))
            split, row = places[path]
            images[split][row] = image
            counter.advance(1)
    return images


def _allocate(root: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    try:
        return np.empty(shape, np.uint8)
    except MemoryError:
        count, _, height, width = shape
        raise ReadError(
            f"{root}: {count} images of {height}x{width} do not fit into memory; use fewer or smaller images"
        ) from None


def _other_size(name: str, shape: tuple[int, ...], first: str, expected: tuple[int, ...]) -> str:
    return (
        f"{name}: {shape[2]}x{shape[1]} pixels, expected {expected[2]}x{expected[1]} as in {first}; all images of a "
        "set must have one size. Resize them with the settings resize and image_size, such as lanczos and 32 "
        "(--resize, --image-size; gan-eval: --set eval.resize=lanczos), which are part of the protocol"
    )


def _as_it_is(image: Image.Image, name: str) -> NDArray[np.uint8]:
    return to_array(image)


def _resized(images: Tensor, resize: Resize) -> Tensor:
    if images.shape[2:] == (resize.size, resize.size):
        return images
    pixels = three_channels(images).permute(0, 2, 3, 1).contiguous().numpy()
    fitted = np.empty((len(images), 3, resize.size, resize.size), np.uint8)
    for row, array in enumerate(pixels):
        fitted[row] = to_array(fit(Image.fromarray(array), *resize, f"image {row}"))
    return torch.from_numpy(fitted)
