"""Checks and reads images: uint8 (N, 3, H, W) from tensors, folders and `.npz` files."""

import hashlib
import unicodedata
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from evaluation.errors import EvaluationError
from evaluation.runtime.files import first_line, read_arrays
from evaluation.runtime.progress import progress

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".gif")
MODES = ("RGB", "L", "P", "1", "RGBA", "LA")
MAX_FILE_BYTES = 2**28  # size of an image file
MAX_CLASSES = 2**20

# Function that draws latents and labels and returns quantized generated images: (count, seed) -> (uint8 images, labels
# or None).
Sampler = Callable[[int, int], tuple[Tensor, Tensor | None]]


def check_images(images: Tensor, name: str) -> None:
    """Checks that images are uint8 (N, 3, H, W) with N > 0; `name` is the set's name in error messages.

    Raises:
        EvaluationError: a wrong type, dtype or shape, or no images.
    """
    if not isinstance(images, Tensor):
        raise EvaluationError(f"{name} images: got {type(images).__name__}, expected a uint8 tensor (N, 3, H, W)")
    if images.dtype != torch.uint8:
        raise EvaluationError(
            f"{name} images: got dtype {_plain(images.dtype)}, expected uint8; "
            "quantize network outputs first, because the rounding is part of the protocol"
        )
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
        raise EvaluationError(f"{name} images: got shape {tuple(images.shape)}, expected (N, 3, H, W)")
    if len(images) == 0:
        raise EvaluationError(f"{name} images: got none, expected at least one")


def check_inputs(images: Tensor, name: str) -> None:
    """Checks that a network's input is float32 or float64 (N, ...) with N > 0, and finite.

    Raises:
        EvaluationError: a wrong type, dtype or shape, no images, or values that are not finite.
    """
    if not isinstance(images, Tensor) or images.dtype not in (torch.float32, torch.float64):
        got = _plain(images.dtype) if isinstance(images, Tensor) else type(images).__name__
        raise EvaluationError(
            f"{name} images: got {got}, expected float32 in the {name} input range; scale pixels by p / 128 - 1"
        )
    if images.ndim < 2 or images.numel() == 0:
        raise EvaluationError(f"{name} images: got shape {tuple(images.shape)}, expected (N, 3, H, W) with N > 0")
    if not bool(images.isfinite().all()):
        raise EvaluationError(f"{name} images: got values that are not finite, expected numbers in [-1, 1]")


def check_labels(labels: Tensor | None, count: int, name: str) -> None:
    """Checks that labels are int64 (count,) and non-negative.

    Raises:
        EvaluationError: a wrong type, dtype or shape, or a label out of range.
    """
    if labels is None:
        return
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.shape != (count,):
        got = f"{_plain(labels.dtype)} {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        raise EvaluationError(f"{name} labels: got {got}, expected int64 ({count},), one for each image")
    if count and int(labels.min()) < 0:
        raise EvaluationError(f"{name} labels: got {int(labels.min())}, expected class numbers from 0")
    if count and int(labels.max()) >= MAX_CLASSES:
        raise EvaluationError(f"{name} labels: got {int(labels.max())}, expected class numbers below {MAX_CLASSES}")


def check_same_size(images: Tensor, name: str, other: Tensor, other_name: str) -> None:
    """Checks that two image sets have the same height and width.

    Raises:
        EvaluationError: the sizes differ.
    """
    if images.shape[2:] != other.shape[2:]:
        sizes = ["{}x{}".format(*tensor.shape[2:]) for tensor in (images, other)]
        raise EvaluationError(
            f"{name} images are {sizes[0]} and {other_name} images are {sizes[1]}, expected one size; "
            "resize one set beforehand, because the resizing method changes the value"
        )


def to_critic(images: Tensor) -> Tensor:
    """Scales uint8 pixels to float32 p / 128 - 1 in [-1, 1), the input range of Neural Divergence critics."""
    return images.float() / 128 - 1


def fingerprint(images: Tensor, labels: Tensor | None = None) -> str:
    """Returns the SHA-256 of shape, pixels and, if given, labels; equal on every device."""
    digest = hashlib.sha256(repr(tuple(images.shape)).encode())
    for start in range(0, len(images), 4096):
        digest.update(images[start : start + 4096].cpu().contiguous().numpy().data)
    if labels is not None:
        digest.update(b"labels")
        digest.update(labels.cpu().contiguous().numpy().data)
    return digest.hexdigest()


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


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
