"""Reads images, uint8 (N, 3, H, W), from folders and `.npz` files."""

import unicodedata
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from evaluation.errors import EvaluationError
from evaluation.images.checks import check_images, check_labels
from evaluation.runtime.files import first_line, read_arrays
from evaluation.runtime.progress import progress

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".gif")
MODES = ("RGB", "L", "P", "1", "RGBA", "LA")
MAX_FILE_BYTES = 2**28  # size of an image file

def read_images(path: str | Path) -> tuple[Tensor, Tensor | None, tuple[str, ...]]:
    """Reads the images of a folder, sorted by file name, or of an `.npz` file.

    A folder holds images, or one sub-folder of images per class. An `.npz` file holds uint8 `images` (or `arr_0`),
    (N, H, W, 3) or (N, 3, H, W), and may hold integer `labels` (or `arr_1`) and, by label, strings `class_names`.

    Returns:
        images uint8 (N, 3, H, W), labels int64 (N,) or None, class names (empty if unnamed).

    Raises:
        EvaluationError: no images, a damaged file, images of several sizes, or another format.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return _read_folder(path)
        if path.suffix == ".npz" and path.is_file():
            return _read_npz(path)
        if path.exists():
            raise EvaluationError(f"{path}: got a file, expected a folder of images or an .npz file")
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be read ({error.strerror or error})") from error
    raise EvaluationError(f"{path}: not found, expected a folder of images or an .npz file")


def _read_folder(folder: Path) -> tuple[Tensor, Tensor | None, tuple[str, ...]]:
    plain = _image_files(folder)
    by_class = {sub.name: _image_files(sub) for sub in sorted(folder.iterdir()) if sub.is_dir()}
    by_class = {name: files for name, files in by_class.items() if files}
    if plain and by_class:
        raise EvaluationError(
            f"{folder}: got images next to sub-folders of images ({', '.join(by_class)}), "
            "expected images only, or one sub-folder per class only"
        )
    _check_class_names(by_class, folder)
    files = plain or [file for group in by_class.values() for file in group]
    if not files:
        raise EvaluationError(f"{folder}: got no images, expected files ending in {', '.join(SUFFIXES)}")
    images = _read_files(files)
    if plain:
        return images, None, ()
    counts = torch.tensor([len(group) for group in by_class.values()])
    return images, torch.repeat_interleave(torch.arange(len(by_class)), counts), tuple(by_class)


def _image_files(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and not file.is_dir()
    )


def _read_files(files: list[Path]) -> Tensor:
    first = _read_image(files[0])
    try:
        images = np.empty((len(files), *first.shape), dtype=np.uint8)
    except MemoryError:
        raise EvaluationError(
            f"{files[0].parent}: {len(files)} images of {first.shape[1]}x{first.shape[2]} do not fit into memory; "
            "use fewer or smaller images"
        ) from None
    with progress(len(files), "reading images", "images") as counter:
        for index, file in enumerate(files):
            image = _read_image(file)
            if image.shape != first.shape:
                raise EvaluationError(
                    f"{file}: got {image.shape[1]}x{image.shape[2]}, expected {first.shape[1]}x{first.shape[2]} "
                    f"as in {files[0].name}; all images of a set must have one size"
                )
            images[index] = image
            counter.advance(1)
    return torch.from_numpy(images)


def _read_image(file: Path) -> np.ndarray:
    try:
        if not file.is_file():
            raise EvaluationError(f"{file}: got a pipe, a device or a broken link, expected an image file")
        if file.stat().st_size > MAX_FILE_BYTES:
            raise EvaluationError(f"{file}: got {file.stat().st_size:,} bytes, expected at most {MAX_FILE_BYTES:,}")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _decode(file)
    except EvaluationError:
        raise
    except Exception as error:  # damaged files make Pillow's decoders raise almost anything, SyntaxError included
        raise EvaluationError(
            f"{file}: cannot be read as an image ({first_line(error)}); replace or remove it"
        ) from error


def _decode(file: Path) -> np.ndarray:
    """Decodes an image file to uint8 (3, H, W)."""
    with Image.open(file) as image:
        image.load()
        if image.mode not in MODES:
            raise EvaluationError(f"{file}: got pixel format {image.mode}, expected 8-bit RGB or grey")
        if _has_transparency(image):
            raise EvaluationError(f"{file}: got transparent pixels, expected an opaque image; flatten it first")
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


def _has_transparency(image: Image.Image) -> bool:
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.mode in ("RGBA", "LA") and image.getchannel("A").getextrema()[0] != 255


def _read_npz(file: Path) -> tuple[Tensor, Tensor | None, tuple[str, ...]]:
    try:
        arrays = read_arrays(file)
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{file}: cannot be read as an .npz file of images ({first_line(error)})") from error
    pixels = arrays.get("images", arrays.get("arr_0"))
    labels = arrays.get("labels", arrays.get("arr_1"))
    if pixels is None:
        raise EvaluationError(f"{file}: got no array named images or arr_0, expected uint8 (N, H, W, 3)")
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or 3 not in (pixels.shape[1], pixels.shape[3]):
        raise EvaluationError(f"{file}: got {pixels.dtype} {pixels.shape}, expected uint8 (N, H, W, 3) or (N, 3, H, W)")
    if pixels.shape[3] == 3:
        pixels = pixels.transpose(0, 3, 1, 2)
    images = torch.from_numpy(np.ascontiguousarray(pixels))
    check_images(images, str(file))
    if labels is None:
        return images, None, ()
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise EvaluationError(f"{file}: got labels {labels.dtype} {labels.shape}, expected integers ({len(images)},)")
    classes = torch.from_numpy(labels.astype(np.int64))
    check_labels(classes, len(images), str(file))
    return images, classes, _class_names(arrays.get("class_names"), int(classes.max()) + 1, file)


def _class_names(names: np.ndarray | None, at_least: int, file: Path) -> tuple[str, ...]:
    if names is None:
        return ()
    if names.dtype.kind == "U" and names.ndim == 1:
        _check_class_names(names.tolist(), file)
    if names.dtype.kind != "U" or names.ndim != 1 or len(names) < at_least or len(set(names.tolist())) < len(names):
        raise EvaluationError(
            f"{file}: got class_names {names.dtype} {names.shape}, expected {at_least} or more different strings"
        )
    return tuple(names.tolist())


def _check_class_names(names: Iterable[str], where: Path) -> None:
    """Raises EvaluationError for control characters and lone surrogates, which break reports, tables and figures."""
    for name in names:
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
            raise EvaluationError(f"{where}: got a class called {name!r}, expected a printable name")
