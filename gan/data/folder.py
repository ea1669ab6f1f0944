"""Images in a directory, zip or tar archive, with or without classes; the reader is evaluation's, too."""

from collections.abc import Sequence
from functools import partial
from pathlib import PurePath

import torch

from evaluation.images.reader import read_splits
from evaluation.images.reader.splits import SPLIT_FOLDERS, find_split
from gan.data.framing import Framing, frame
from gan.data.image_data import ImageData, check_split, expanded, reader_errors

SPLITS = ("train", "test")
PLAIN_CLASS = "images"  # class of all images if they have no classes


def load(*, root: str, split: str, image_size: int, crop: int, resize: str, download: bool) -> ImageData:
    """Reads one split of a directory, .zip or .tar(.gz, .bz2, .xz); see `load_splits`."""
    check_split("folder", split, SPLITS)
    loaded = load_splits(root=root, splits=(split,), image_size=image_size, crop=crop, resize=resize, download=download)
    return loaded[split]


def load_splits(
    *, root: str, splits: Sequence[str], image_size: int, crop: int, resize: str, download: bool
) -> dict[str, ImageData]:
    """Reads the named splits, or all if none is named; each image is decoded once.

    See `evaluation.images.reader.layout.arrange` for splits and classes, and docs/data.md. Images without classes are
    one class. `download` has no effect.

    Raises:
        DataError: no such path, an unreadable archive or image, no images, a missing split, or a layout that is not
            understood.
    """
    framing = Framing(image_size, crop, resize)
    framing.check()
    where = expanded(root)
    with reader_errors():
        found = read_splits(where, splits, partial(frame, framing=framing))
    return {
        split: ImageData(
            images=read.images,
            labels=torch.zeros(len(read.images), dtype=torch.int64) if read.labels is None else read.labels,
            classes=read.class_names or (PLAIN_CLASS,),
            name="folder",
            split=split,
        )
        for split, read in found.items()
    }


def class_folders(class_names: Sequence[str]) -> list[PurePath]:
    """Returns a folder for each class that is read back as this class: train/NAME if one is called like a split."""
    nested = any(name.lower() in SPLIT_FOLDERS for name in class_names)
    nested = nested or sum(find_split(name) is not None for name in class_names) > 1  # any two may look like splits
    return [PurePath("train", name) if nested else PurePath(name) for name in class_names]
