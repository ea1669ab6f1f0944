"""Decoding of image files to RGB with 8 bits per channel."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from evaluation.images.reader.errors import ReadError

SUFFIXES = (
    *(".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm"),
    *(".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
"""Suffixes of image files, in lower case."""

CHUNK = 1024  # images that are converted at once
ORIENTED = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}  # entries of Image.info with an orientation


def decode(data: bytes, name: str) -> Image.Image:
    """Decodes an image file, or the first frame of an animation; see `to_rgb`.

    Raises:
        ReadError: an unreadable or truncated image, too many pixels, or pixels that `to_rgb` refuses.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return to_rgb(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ReadError(f"{name}: too many pixels for Pillow's limit ({error}); leave the image out") from error
    except ReadError as error:
        raise ReadError(f"{name}: {error}") from error
    except Exception as error:  # on damaged files Pillow's decoders raise almost any type, SyntaxError included
        unknown = isinstance(error, Image.UnidentifiedImageError)
        reason = "not an image that Pillow reads" if unknown else " ".join(str(error).split()) or type(error).__name__
        raise ReadError(f"{name}: damaged image ({reason}); replace the file or leave it out") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts an image to RGB with 8 bits per channel, rotated by its EXIF orientation.

    Transparent pixels are composited over white, as viewers do. 16-bit grey levels are divided by 257 and rounded.

    Raises:
        ReadError: pixels without a standard range (32-bit integers or floats), or a mode that Pillow cannot convert.
    """
    if ORIENTED & image.info.keys():  # Pillow rotates TIFF files itself
        with suppress(Exception):  # damaged metadata, which viewers pass over, too
            ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    # Pillow may open 16-bit grey PNG and PGM files in mode "I", whose conversion to RGB clips at 255.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        levels = np.asarray(image).astype(np.uint32)
        grey = ((levels + 128) // 257).astype(np.uint8)
        grey[levels == image.info.get("transparency", -1)] = 255
        return Image.fromarray(grey).convert("RGB")
    if image.mode in ("I", "F"):
        raise ReadError(f"32-bit pixels (mode {image.mode}) have no standard range; save the image with 8 or 16 bits")
    if image.mode == "LAB":
        raise ReadError("pixels of mode LAB, which Pillow does not convert; save the image as RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def to_grey(images: Tensor) -> Tensor:
    """Maps RGB pixels, uint8 (N, 3, H, W), to grey levels (N, 1, H, W): the luma of ITU-R BT.601 as Pillow rounds it.

    L = (19595 R + 38470 G + 7471 B + 2^15) / 2^16, rounded down: 0.299 R + 0.587 G + 0.114 B. Grey stays as it is.
    """
    grey = images.new_empty(len(images), 1, *images.shape[2:])
    for part, whole in zip(grey.split(CHUNK), images.split(CHUNK), strict=True):
        red, green, blue = whole.int().split(1, dim=1)
        part.copy_((19595 * red + 38470 * green + 7471 * blue + 2**15) >> 16)
    return grey


@contextmanager
def strict_decoding() -> Iterator[None]:
    """Context manager: turns Pillow's warning about too many pixels into an error and hides its other warnings."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield
