"""From an image file's bytes to one square uint8 image: decode, make RGB, crop, resize."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from gan.errors import DataError

# Pillow's filters widen with the reduction, so they do not alias. FID depends on which one is used.
RESIZES = {
    "none": None,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class Framing(NamedTuple):
    """How an image becomes a square of `image_size` pixels.

    First the centred square of `crop` pixels is cut out (0: the largest that fits; the left and upper margins are
    rounded down), then it is resized to `image_size` with the filter named by `resize` ("none": it must fit already).
    """

    image_size: int
    crop: int
    resize: str

    def check(self) -> None:
        """Raises DataError where a setting is out of its range."""
        if self.image_size < 1:
            raise DataError(f"data.image_size: got {self.image_size}, expected at least 1 pixel")
        if self.crop < 0:
            raise DataError(f"data.crop: got {self.crop}, expected 0 for no crop or a side in pixels")
        if self.resize not in RESIZES:
            raise DataError(f"data.resize: got {self.resize!r}, expected one of {', '.join(RESIZES)}")


def frame(image: Image.Image, name: str, framing: Framing) -> np.ndarray:
    """Crops and resizes an RGB image, uint8 (3, image_size, image_size).

    Raises:
        DataError: the image is smaller than the crop, or of another size where `resize` is "none".
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
    """Decodes one image file, uint8 (3, image_size, image_size). Animations give their first frame.

    Raises:
        DataError: not an image that Pillow reads, truncated, too large to be meant, or one that `frame` refuses.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            pixels = to_rgb(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{name}: too many pixels for Pillow's limit ({error}); leave the image out") from error
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    except Exception as error:  # damaged files make Pillow's decoders raise almost anything, SyntaxError included
        reason = "not an image that Pillow reads" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        raise DataError(f"{name}: damaged image ({reason}); replace the file or leave it out") from error
    return frame(pixels, name, framing)


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB with 8 bits per channel, upright as its EXIF orientation says.

    Transparent pixels are laid over white, as a viewer shows them. 16-bit grey levels are divided by 257 and rounded.

    Raises:
        DataError: pixels without an agreed range (32-bit integers or floats).
    """
    if "exif" in image.info:
        image = ImageOps.exif_transpose(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    # PNG and PGM may give 16-bit grey levels as mode "I", where Pillow's own conversion would clip at 255.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        levels = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((levels + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise DataError(f"32-bit pixels (mode {image.mode}) have no agreed range; save the image with 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


@contextmanager
def strict_decoding() -> Iterator[None]:
    """Around many `decode`: refuses at Pillow's lower pixel limit already and keeps its other warnings quiet."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield
