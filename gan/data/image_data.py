"""A data set as two tensors, and the interface of data sources."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from evaluation.images.reader.decoding import to_grey
from evaluation.images.reader.errors import ReadError
from evaluation.images.reader.packed import compute_fingerprint
from gan.errors import DataError


@dataclass(frozen=True, eq=False)
class ImageData:
    """Images and labels of one split.

    Args:
        images: uint8 (N, C, H, W), N >= 1, C = 1 for grey images and 3 for RGB; may be memory-mapped.
        labels: int64 (N,), each in [0, len(classes)).
        classes: class names by label.
        name: a key of `DATASETS`.
        split: "train", "test" or another split of the source.
        stored_fingerprint: the value of `fingerprint` if already known, otherwise empty.

    Raises:
        DataError: wrong dtype or shape, no images, no classes, or a label out of range.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str
    split: str
    stored_fingerprint: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        where = f"data set {self.name!r}, split {self.split!r}"
        images, labels = self.images, self.labels
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise DataError(f"{where}: images are {_describe(images)}, expected uint8 (N, 3, H, W) or (N, 1, H, W)")
        if 0 in images.shape:
            raise DataError(f"{where}: no images: their shape is {tuple(images.shape)}")
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            raise DataError(f"{where}: labels are {_describe(labels)}, expected int64 ({len(images)},)")
        if not self.classes:
            raise DataError(f"{where}: no classes; unconditional data has one class")
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= len(self.classes):
            raise DataError(f"{where}: labels from {low} to {high}, expected 0 to {len(self.classes) - 1}")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """Number of classes; 1 for unconditional data."""
        return len(self.classes)

    @property
    def image_size(self) -> int:
        """Side of the square images, in pixels."""
        return self.images.shape[-1]

    @property
    def image_channels(self) -> int:
        """1 for grey images, 3 for RGB."""
        return self.images.shape[1]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, over the shape, the pixels and the labels."""
        return self.stored_fingerprint or compute_fingerprint(self.images, self.labels)


class Load(Protocol):
    """Function that reads one split.

    Args:
        root: folder or file of the data; ignored by sources without files.
        split: one of the source's splits.
        image_size: side of the returned images, in pixels.
        crop: side of the centre crop before resizing, in pixels; 0 is the largest that fits.
        resize: one of `gan.data.framing.RESIZES`.
        download: allows downloading missing files; ignored by sources that cannot download.

    Raises:
        DataError: data are missing, damaged or do not match the arguments.
    """

    def __call__(
        self, *, root: str, split: str, image_size: int, crop: int, resize: str, download: bool
    ) -> ImageData: ...


class LoadSplits(Protocol):
    """Function that reads several splits in one pass, with the arguments of `Load`; empty `splits` means all."""

    def __call__(
        self, *, root: str, splits: Sequence[str], image_size: int, crop: int, resize: str, download: bool
    ) -> Mapping[str, ImageData]: ...


class DataSource(NamedTuple):
    """A source of one data set.

    load: reads one split.
    num_classes: None if it depends on the files.
    splits: splits that `load` accepts.
    load_splits: reads several splits, for sources that keep them in one file that is slow to read.
    """

    load: Load
    num_classes: int | None
    splits: tuple[str, ...]
    load_splits: LoadSplits | None = None


@contextmanager
def no_empty_folders(folder: Path) -> Iterator[None]:
    """Context manager for downloads: after an error, removes the folders it created if they are empty."""
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        for path in created:
            with suppress(OSError):
                path.rmdir()
        raise


def expanded(path: str | Path, place: str = "data.root") -> Path:
    """Returns a path with `~` and `~user` replaced by the home folder.

    Args:
        place: setting or option that holds the path, for the error message.

    Raises:
        DataError: an empty path, or there is no such user, or no home folder.
    """
    if path == "":
        raise DataError(f"{place}: got an empty path; name the folder or archive, or write . for the current folder")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise DataError(
            f"{place}: {path}: no home folder is known for {Path(path).parts[0]}; write the path without ~"
        ) from None


def check_split(name: str, split: str, splits: tuple[str, ...]) -> None:
    """Raises DataError if the data set `name` has no such split."""
    if split not in splits:
        raise DataError(f"split: got {split!r}, expected one of {', '.join(splits)} for data.name={name}")


@contextmanager
def reader_errors() -> Iterator[None]:
    """Context manager: turns errors of the reader into DataError that names the setting."""
    try:
        yield
    except ReadError as error:
        raise DataError(f"data.root: {error}") from error


def with_channels(data: ImageData, channels: int) -> ImageData:
    """Returns the images with 1 or 3 channels: colours become grey levels, grey levels are repeated."""
    if data.image_channels == channels:
        return data
    images = to_grey(data.images) if channels == 1 else data.images.repeat(1, 3, 1, 1)
    return replace(data, images=images, stored_fingerprint="")


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
