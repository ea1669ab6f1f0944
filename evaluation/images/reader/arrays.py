"""Images and labels in `.npz` files."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from evaluation.images.checks import check_images, check_labels
from evaluation.images.reader.errors import ReadError
from evaluation.images.reader.layout import composed_names
from evaluation.runtime.files import first_line, read_arrays


def read_npz(file: Path) -> tuple[Tensor, Tensor | None, tuple[str, ...]]:
    """Reads uint8 `images` (or `arr_0`), and integer `labels` (or `arr_1`) if present.

    Images are (N, H, W, 3) or (N, 3, H, W), grey ones (N, H, W), (N, H, W, 1) or (N, 1, H, W).

    Returns:
        images uint8 (N, C, H, W), labels int64 (N,) or None, and the strings of `class_names` by label, empty if there
        are none.

    Raises:
        EvaluationError: a damaged file, or other arrays.
    """
    try:
        arrays = read_arrays(file)
    except (OSError, ValueError) as error:
        raise ReadError(f"{file}: cannot be read as an .npz file of images ({first_line(error)})") from error
    pixels = arrays.get("images", arrays.get("arr_0"))
    labels = arrays.get("labels", arrays.get("arr_1"))
    if pixels is None:
        raise ReadError(f"{file}: got no array named images or arr_0, expected uint8 (N, H, W, 3)")
    images = torch.from_numpy(np.ascontiguousarray(_channels_first(pixels, file)))
    check_images(images, str(file))
    if labels is None:
        return images, None, ()
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise ReadError(f"{file}: got labels {labels.dtype} {labels.shape}, expected integers ({len(images)},)")
    classes = torch.from_numpy(labels.astype(np.int64))
    check_labels(classes, len(images), str(file))
    return images, classes, _class_names(arrays.get("class_names"), int(classes.max()) + 1, file)


def _channels_first(pixels: np.ndarray, file: Path) -> np.ndarray:
    """Returns the pixels of images as (N, C, H, W), with three channels or one."""
    shaped = pixels[:, None] if pixels.ndim == 3 else pixels
    for channels in (3, 1) if pixels.dtype == np.uint8 and shaped.ndim == 4 else ():
        if shaped.shape[3] == channels:
            return shaped.transpose(0, 3, 1, 2)
        if shaped.shape[1] == channels:
            return shaped
    raise ReadError(
        f"{file}: got {pixels.dtype} {pixels.shape}, expected uint8 (N, H, W, 3) or (N, 3, H, W), or (N, H, W) for "
        "grey images"
    )


def _class_names(names: np.ndarray | None, at_least: int, file: Path) -> tuple[str, ...]:
    if names is None:
        return ()
    if names.dtype.kind != "U" or names.ndim != 1 or len(names) < at_least or len(set(names.tolist())) < len(names):
        raise ReadError(
            f"{file}: got class_names {names.dtype} {names.shape}, expected {at_least} or more different strings"
        )
    return composed_names(names.tolist(), str(file))
