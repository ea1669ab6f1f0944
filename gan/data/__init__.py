"""Data sets as two tensors, images and labels."""

import difflib
from functools import partial
from typing import Any

from gan.data import celeba, cifar, folder, shapes, stl10
from gan.data.augment import AUGMENTATIONS
from gan.data.batches import Batches
from gan.data.framing import RESIZES
from gan.data.image_data import DataSource, ImageData, with_channels
from gan.data.packed import is_packed, load_packed
from gan.errors import DataError

__all__ = [
    "AUGMENTATIONS",
    "DATASETS",
    "RESIZES",
    "Batches",
    "DataSource",
    "ImageData",
    "find_source",
    "load_images",
    "with_channels",
]

DATASETS: dict[str, DataSource] = {
    "cifar10": DataSource(cifar.load_cifar10, 10, cifar.SPLITS),
    "cifar100": DataSource(cifar.load_cifar100, 100, cifar.SPLITS),
    "celeba": DataSource(celeba.load, 1, celeba.SPLITS),
    "stl10": DataSource(stl10.load_stl10, len(stl10.CLASSES), stl10.SPLITS["stl10"]),
    "stl10_unlabeled": DataSource(stl10.load_unlabeled, 1, stl10.SPLITS["stl10_unlabeled"]),
    "folder": DataSource(folder.load, None, folder.SPLITS, folder.load_splits),
    **{
        name: DataSource(partial(shapes.load, name=name), len(shapes.SHAPES), tuple(shapes.SPLITS))
        for name in shapes.STYLES
    },
}


def find_source(name: str) -> DataSource:
    """Returns the entry of `DATASETS` with this name.

    Raises:
        DataError: unknown name.
    """
    if name not in DATASETS:
        near = difflib.get_close_matches(name, DATASETS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise DataError(f"data.name: got {name!r}, expected one of {', '.join(DATASETS)}{hint}")
    return DATASETS[name]


def load_images(
    name: str,
    *,
    root: str,
    split: str,
    image_size: int,
    crop: int,
    resize: str,
    download: bool,
    channels: int = 3,
) -> ImageData:
    """Reads one split of a data set of `DATASETS`; `root` may be a packed copy of it.

    Args:
        channels: 1 for grey images, 3 for RGB; see `gan.data.image_data.with_channels`.

    Raises:
        DataError: an unknown name, or an error of the source or of the packed copy.
    """
    source = find_source(name)
    if root and is_packed(root):
        framing: dict[str, Any] = {"image_size": image_size, "crop": crop, "resize": resize, "channels": channels}
        return load_packed(root, name=name, split=split, **framing)
    read = source.load(root=root, split=split, image_size=image_size, crop=crop, resize=resize, download=download)
    return with_channels(read, channels)
