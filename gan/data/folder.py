"""Images in a directory, zip or tar archive, with or without a folder per class."""

import lzma
import os
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from gan.data.framing import Framing, decode, strict_decoding
from gan.data.image_data import ImageData, check_split
from gan.errors import DataError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
SPLITS = ("train", "test")
PLAIN_CLASS = "images"  # class of all images if there are no class folders
MAX_FILE_BYTES = 2**28  # size limit of an image file: Pillow's limit of 89 million pixels at three bytes each
UNPACKED_BYTES = 2**30  # unpacked size allowed for any archive; beyond it, UNPACKED_RATIO times the archive's size
UNPACKED_RATIO = 100

_SPLIT_FOLDERS = {"train": "train", "test": "test", "val": "test", "valid": "test"}


class Entry(NamedTuple):
    """Class of an image and its path inside the root."""

    label: str
    path: str


class Reader(NamedTuple):
    """Functions for one kind of root: `paths` lists all files, `read` yields (path, bytes) of requested files."""

    paths: Callable[[Path], list[str]]
    read: Callable[[Path, Collection[str]], Iterator[tuple[str, bytes]]]


def load(*, root: str, split: str, image_size: int, crop: int, resize: str, download: bool) -> ImageData:
    """Reads one split of a directory, .zip or .tar(.gz, .bz2, .xz); see `load_splits`."""
    check_split("folder", split, SPLITS)
    loaded = load_splits(root=root, splits=(split,), image_size=image_size, crop=crop, resize=resize, download=download)
    return loaded[split]


def load_splits(
    *, root: str, splits: Sequence[str], image_size: int, crop: int, resize: str, download: bool
) -> dict[str, ImageData]:
    """Reads the named splits, or all if none is named; each image is decoded once.

    Folders that enclose everything else are ignored. Below them the layout is `train/<class>/...` and
    `test/<class>/...` (val/ or valid/ if there is no test/), or `<class>/...`, or images only, one class.
    Without split folders everything is "train". The class is the first folder; deeper folders are part of the image's
    name. Classes and paths are sorted by code points. Hidden files, __MACOSX and files without an image suffix are
    skipped. Nothing is extracted to disk. `download` has no effect.

    Raises:
        DataError: no such path, an unreadable archive or image, no images, a missing split, or a mixture of layouts.
    """
    framing = Framing(image_size, crop, resize)
    framing.check()
    where = Path(root).expanduser()
    reader = _find_reader(where)
    with _archive_errors(where):
        entries = arrange(reader.paths(where), str(where))
    for split in splits:
        if split not in entries:
            raise DataError(_missing_split(where, split, entries))
    chosen = {split: entries[split] for split in (splits or entries)}
    classes = tuple(sorted({entry.label for entry in entries.get("train", entries.get("test", []))}))
    images = _decode_all(reader, where, chosen, framing)
    return {
        split: ImageData(
            images=torch.from_numpy(images[split]),
            labels=torch.tensor([classes.index(entry.label) for entry in rows]),
            classes=classes,
            name="folder",
            split=split,
        )
        for split, rows in chosen.items()
    }


def _decode_all(
    reader: Reader, where: Path, entries: dict[str, list[Entry]], framing: Framing
) -> dict[str, NDArray[np.uint8]]:
    """Decodes the images of each split in the order of its entries, uint8 (N, 3, image_size, image_size)."""
    places = {entry.path: (split, row) for split, rows in entries.items() for row, entry in enumerate(rows)}
    shape = (3, framing.image_size, framing.image_size)
    images = {split: np.empty((len(rows), *shape), np.uint8) for split, rows in entries.items()}
    with _archive_errors(where), strict_decoding():
        progress = tqdm(reader.read(where, places), where.name, total=len(places), unit="image", disable=None)
        for path, data in progress:
            split, row = places[path]
            images[split][row] = decode(data, f"{where}: {path}", framing)
    return images


def arrange(paths: Iterable[str], where: str) -> dict[str, list[Entry]]:
    """Assigns image paths to splits and classes, in a fixed order.

    Raises:
        DataError: no images, or a layout that `load_splits` does not read.
    """
    parts = {path: PurePosixPath(path.replace("\\", "/").lstrip("/")).parts for path in paths}
    images = {path: names for path, names in parts.items() if _is_image(names)}
    if not images:
        raise DataError(f"data.root: no images in {where} (files ending in {' '.join(SUFFIXES)})")
    while _in_outer_folder(images.values()):
        images = {path: names[1:] for path, names in images.items()}

    found = {names[0] for names in images.values() if len(names) > 1 and names[0] in _SPLIT_FOLDERS}
    if not found:
        return {"train": _arrange_split(images, where)}
    for path, names in images.items():
        if names[0] not in found or len(names) == 1:
            raise DataError(
                f"data.root: {where} has the split folder {min(found)}/, but {path} is outside of it; move this image"
            )
    if {"val", "valid"} <= found:
        raise DataError(f"data.root: {where} has val/ and valid/; keep one of them")
    if "test" in found:
        found -= {"val", "valid"}
    splits = {
        _SPLIT_FOLDERS[folder]: _arrange_split(
            {path: names[1:] for path, names in images.items() if names[0] == folder}, f"{where}: {folder}"
        )
        for folder in sorted(found, reverse=True)
    }
    extra = {entry.label for entry in splits.get("test", [])} - {
        entry.label for entry in splits.get("train", splits.get("test", []))
    }
    if extra:
        raise DataError(f"data.root: {where}: the class {min(extra)!r} is in the test split but not in train/")
    return splits


def _arrange_split(images: dict[str, tuple[str, ...]], where: str) -> list[Entry]:
    plain = [path for path, names in images.items() if len(names) == 1]
    if plain and len(plain) < len(images):
        inside = next(path for path, names in images.items() if len(names) > 1)
        raise DataError(
            f"data.root: {where} has images next to class folders, such as {min(plain)} and {inside}; "
            "move all images into class folders, or none"
        )
    ordered = sorted(images, key=lambda path: images[path])
    entries = [Entry(PLAIN_CLASS if plain else images[path][0], path) for path in ordered]
    for label in {entry.label for entry in entries}:
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in label):
            raise DataError(f"data.root: {where}: the class folder {label!r} cannot be printed; rename it")
    return entries


def _is_image(names: tuple[str, ...]) -> bool:
    hidden = any(name.startswith(".") or name == "__MACOSX" for name in names)
    return bool(names) and not hidden and names[-1].lower().endswith(SUFFIXES)


def _in_outer_folder(images: Collection[tuple[str, ...]]) -> bool:
    """Returns whether a single folder encloses everything and is neither a split nor the only class."""
    first = {names[0] for names in images}
    return len(first) == 1 and not first & _SPLIT_FOLDERS.keys() and any(len(names) > 2 for names in images)


def _missing_split(where: Path, split: str, entries: dict[str, list[Entry]]) -> str:
    present = " and ".join(sorted(entries, reverse=True))
    return f"data.root: {where} has no {split} split, only {present}; put the images into train/<class>/, test/<class>/"


def _find_reader(where: Path) -> Reader:
    if where.is_dir():
        return Reader(_directory_paths, _read_directory)
    if not where.is_file():
        raise DataError(f"data.root: {where} does not exist; expected a folder of images, a .zip or a .tar archive")
    try:
        # tar first: zipfile also accepts other files with a zip archive at their end.
        if tarfile.is_tarfile(where):
            return Reader(_tar_paths, _read_tar)
        if zipfile.is_zipfile(where):
            return Reader(_zip_paths, _read_zip)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"data.root: cannot read {where}: {error}") from error
    raise DataError(f"data.root: {where} is neither a folder, a zip nor a tar archive, or it is damaged")


@contextmanager
def _archive_errors(where: Path) -> Iterator[None]:
    """Turns errors of the archive libraries and the file system into DataError."""
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        raise DataError(f"data.root: cannot read {where}: {error}; it is damaged or incomplete") from error
    except (RuntimeError, NotImplementedError) as error:  # zipfile raises them for encryption and unknown compression
        raise DataError(f"data.root: cannot read {where}: {error}") from error


def _directory_paths(root: Path) -> list[str]:
    paths = []
    seen = {os.path.realpath(root)}  # links to folders are followed, but each folder is entered once
    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=_raise):
        subfolders[:] = [name for name in sorted(subfolders) if not name.startswith(".")]
        for name in list(subfolders):
            real = os.path.realpath(Path(folder, name))
            if real in seen:
                subfolders.remove(name)
            seen.add(real)
        paths += [Path(folder, name).relative_to(root).as_posix() for name in files]
    return paths


def _raise(error: OSError) -> None:
    raise error


def _read_directory(root: Path, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    for path in wanted:
        file = Path(root, path)
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{file}: a pipe, a device or a folder, expected an image file; remove it")
        _check_file_size(str(file), status.st_size)
        yield path, file.read_bytes()


def _check_file_size(where: str, size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise DataError(
            f"{where}: {size:,} bytes, expected an image file of at most {MAX_FILE_BYTES:,}; leave the image out"
        )


def _check_unpacked(root: Path, size: int) -> None:
    """Raises DataError for a decompression bomb: an archive that unpacks to far more bytes than images can."""
    packed = root.stat().st_size
    if size > max(UNPACKED_BYTES, UNPACKED_RATIO * packed):
        raise DataError(
            f"data.root: {root} has {packed:,} bytes and unpacks to {size:,} or more, expected at most "
            f"{UNPACKED_RATIO} times as many; unpack it into a folder if that is intended"
        )


def _zip_paths(root: Path) -> list[str]:
    with zipfile.ZipFile(root) as archive:
        _check_unpacked(root, sum(info.file_size for info in archive.infolist()))
        return [
            info.filename for info in archive.infolist() if stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
        ]


def _read_zip(root: Path, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(root) as archive:
        for path in wanted:
            _check_file_size(f"{root}: {path}", archive.getinfo(path).file_size)
            yield path, archive.read(path)


def _tar_paths(root: Path) -> list[str]:
    """Lists the regular files; links and devices are skipped."""
    paths, size = [], 0
    with tarfile.open(root) as archive:
        for member in archive:
            size += member.size
            _check_unpacked(root, size)
            if member.isreg():
                paths.append(member.name)
        # tarfile takes a truncated header for the end of the archive; a complete archive ends with a block of zeros.
        assert archive.fileobj is not None
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it ends without a closing block of zeros")
        while rest := archive.fileobj.read(2**20):  # compressed formats verify their checksum at the very end
            size += len(rest)
            _check_unpacked(root, size)
    return paths


def _read_tar(root: Path, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Reads in the archive's order, because seeking in compressed data is slow.

    A path that occurs several times is yielded each time; callers keep the last occurrence, as tar does.
    """
    with tarfile.open(root) as archive:
        for member in archive:
            if member.isreg() and member.name in wanted:
                _check_file_size(f"{root}: {member.name}", member.size)
                file = archive.extractfile(member)
                assert file is not None
                yield member.name, file.read()
