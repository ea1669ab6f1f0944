"""Crop and resize of decoded images, with filters that have names because FID depends on them."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from evaluation.images.reader.errors import ReadError
from evaluation.settings.presets import RESIZES

PAD = "pad"
FILTERS = {name: Image.Resampling[name.upper()] for name in RESIZES if name != PAD}
"""Pillow's filters by name. They widen with the reduction factor, so they do not alias."""


def centre_crop(image: Image.Image, side: int) -> Image.Image:
    """Crops the centred square of `side` pixels; left and upper margins are rounded down."""
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image if image.size == (side, side) else image.crop((left, top, left + side, top + side))


def pad(image: Image.Image, size: int, name: str) -> Image.Image:
    """Puts the whole image on a black square of `size` pixels; left and upper margins are rounded down.

    Raises:
        ReadError: the image is larger.
    """
    if max(image.size) > size:
        raise ReadError(
            f"{name}: {image.width}x{image.height} pixels, larger than {size}x{size}, and pad only adds a border; "
            f"choose a larger size, or one of {', '.join(FILTERS)}, which scale the images"
        )
    square = Image.new(image.mode, (size, size))
    square.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    return square


def fit(image: Image.Image, size: int, resize: str, name: str) -> Image.Image:
    """Resizes the largest centred square to `size` pixels with a filter of FILTERS; a square of that size is kept.

    With "pad", the whole image gets a border; see `pad`.

    Args:
        name: of the image, for the error message.
    """
    if resize == PAD:
        return pad(image, size, name)
    square = centre_crop(image, min(image.size))
    return square if square.width == size else square.resize((size, size), FILTERS[resize])


def to_array(image: Image.Image) -> NDArray[np.uint8]:
    """Returns the pixels of an RGB image, uint8 (3, H, W)."""
    return np.asarray(image).transpose(2, 0, 1)
