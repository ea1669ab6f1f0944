"""Decoding of image files to square uint8 RGB images: decode, convert to RGB, crop, resize."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from gan.errors import DataError

RESIZES = {
    "none": None,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
"""Resize filters by name. They widen with the reduction factor, so they do not alias. FID depends on the filter."""


class Framing(NamedTuple):
    """Crop and resize that give a square of `image_size` pixels.

    Crops the centred square of `crop` pixels, or the largest one if `crop` is 0; rounds left and upper margins down.
    Then resizes it to `image_size` with the filter `resize`; "none" requires that it already has that size.
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
        DataError: the image is smaller than the crop, or `resize` is "none" and the image is not of size `image_size`.
    """
    width, height = image.size
    side = framing.crop or min(width, height)
    if side > min(width, height):
        raise DataError(
            f"{name}: {width}x{height} pixels, smaller than data.crop={side}; lower it or leave the image out"
        )
    left, top = (width - side) // 2, (height - side) // 2
    if (width, height) != (side, side):
        image = image.crop((left, top, left + side, top + side))
    size = framing.image_size
    if side != size:
        resample = RESIZES[framing.resize]
        if resample is None:
            cropped = "" if (width, height) == (side, side) else f", {side}x{side} after the centre crop"
            raise DataError(
                f"{name}: {width}x{height} pixels{cropped}, expected {size}x{size}; set data.image_size={side}, or "
                f"data.resize to one of {', '.join(RESIZES)[len('none, ') :]}"
            )
        image = image.resize((size, size), resample)
    return np.asarray(image).transpose(2, 0, 1)


def decode(data: bytes, name: str, framing: Framing) -> np.ndarray:
    """Decodes an image file, or the first frame of an animation, to uint8 (3, image_size, image_size).

    Raises:
        DataError: an unreadable or truncated image, too many pixels, or an error of `frame`.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            pixels = to_rgb(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{name}: too many pixels for Pillow's limit ({error}); leave the image out") from error
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    except Exception as error:  # on damaged files Pillow's decoders raise almost any type, SyntaxError included
        reason = "not an image that Pillow reads" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        raise DataError(f"{name}: damaged image ({reason}); replace the file or leave it out") from error
    return frame(pixels, name, framing)


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts an image to RGB with 8 bits per channel, rotated by its EXIF orientation.

    Transparent pixels are composited over white, as viewers do. 16-bit grey levels are divided by 257 and rounded.

    Raises:
        DataError: pixels without a standard range (32-bit integers or floats).
    """
    if "exif" in image.info:
        image = ImageOps.exif_transpose(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    # Pillow may open 16-bit grey PNG and PGM files in mode "I", whose conversion to RGB clips at 255.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        levels = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((levels + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise DataError(f"32-bit pixels (mode {image.mode}) have no standard range; save the image with 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


@contextmanager
def strict_decoding() -> Iterator[None]:
    """Context manager: turns Pillow's warning about too many pixels into an error and hides its other warnings."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield
