"""Crop and resize of images to squares of the configured size."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from evaluation.images.reader.decoding import decode as decode_image
from evaluation.images.reader.errors import ReadError
from evaluation.images.reader.framing import FILTERS, PAD, centre_crop, pad, to_array
from gan.config import IMAGE_SIZES
from gan.errors import DataError

RESIZES = ("none", *FILTERS, PAD)
"""Values of data.resize: Pillow's filters; "pad" adds a black border, "none" refuses images of another size."""


class Framing(NamedTuple):
    """Crop and resize that give a square of `image_size` pixels.

    Crops the centred square of `crop` pixels, or the largest one if `crop` is 0; rounds left and upper margins down.
    Then resizes it to `image_size` with the filter `resize`; "none" requires that it already has that size. With "pad",
    a crop of 0 keeps the whole image, to which a black border is added.
    """

    image_size: int
    crop: int
    resize: str

    def check(self) -> None:
        """Raises DataError for a setting outside its range."""
        if self.image_size < 1:
            raise DataError(f"data.image_size: got {self.image_size}, expected at least 1 pixel")
        if self.crop < 0:
            raise DataError(f"data.crop: got {self.crop}, expected 0 for no crop or a side in pixels")
        if self.resize not in RESIZES:
            raise DataError(f"data.resize: got {self.resize!r}, expected one of {', '.join(RESIZES)}")


def frame(image: Image.Image, name: str, framing: Framing) -> np.ndarray:
    """Crops and resizes an RGB image to uint8 (3, image_size, image_size).

    Raises:
        DataError: the image is smaller than the crop, or its size is not `image_size` and `resize` is "none", or "pad"
            and the image is larger.
    """
    width, height = image.size
    side = framing.crop or min(width, height)
    if side > min(width, height):
        raise DataError(
            f"{name}: {width}x{height} pixels, smaller than data.crop={side}; lower it or leave the image out"
        )
    size = framing.image_size
    if framing.crop or framing.resize != PAD:
        image = centre_crop(image, side)
    if image.size != (size, size):
        if framing.resize == "none":
            raise _other_size(f"{name}: {width}x{height} pixels", image.size == (width, height), side, size)
        if framing.resize == PAD:
            with _data_errors():
                image = pad(image, size, name)
        else:
            image = image.resize((size, size), FILTERS[framing.resize])
    return to_array(image)


def _other_size(found: str, whole: bool, side: int, size: int) -> DataError:
    cropped = "" if whole else f", {side}x{side} after the centre crop"
    other = f"data.image_size={side}, or " if side in IMAGE_SIZES else ""
    border = f", or to {PAD}, which adds a black border" if side < size else ""
    return DataError(
        f"{found}{cropped}, expected {size}x{size}; set {other}data.resize to one of {', '.join(FILTERS)}, which "
        f"scales the images{border}"
    )


@contextmanager
def _data_errors() -> Iterator[None]:
    """Context manager: turns errors of the reader into DataError."""
    try:
        yield
    except ReadError as error:
        raise DataError(str(error)) from error


def frame_all(pixels: np.ndarray, name: str, framing: Framing) -> np.ndarray:
    """Crops and resizes square RGB images, uint8 (N, side, side, 3), to uint8 (N, 3, image_size, image_size).

    Raises:
        DataError: an error of `frame`; the message names the data set and the image.
    """
    count, side = pixels.shape[:2]
    if framing.image_size == side and framing.crop in (0, side):
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    framed = np.empty((count, 3, framing.image_size, framing.image_size), np.uint8)
    for row, image in enumerate(tqdm(pixels, name, unit="image", disable=None)):
        framed[row] = frame(Image.fromarray(image), f"{name} image {row}", framing)
    return framed


def decode(data: bytes, name: str, framing: Framing) -> np.ndarray:
    """Decodes an image file, or the first frame of an animation, to uint8 (3, image_size, image_size).

    Raises:
        DataError: an unreadable or truncated image, too many pixels, or an error of `frame`.
    """
    with _data_errors():
        image = decode_image(data, name)
    return frame(image, name, framing)
