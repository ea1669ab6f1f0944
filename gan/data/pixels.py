"""Conversion of uint8 pixels to the networks' range [-1, 1] and back."""

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from gan.errors import ConfigError

QUANTIZERS = ("round", "truncate")


def to_float(images: Tensor, uniforms: Tensor | None = None) -> Tensor:
    """Maps uint8 pixels p (N, C, H, W) to float32 in [-1, 1): p / 128 - 1, plus u / 128 for `uniforms` u in [0, 1).

    As in the code of Miyato et al. 2018. The noise makes grey levels continuous (dequantisation).
    """
    scaled = images.float() / 128 - 1
    return scaled if uniforms is None else scaled.add_(uniforms / 128)


def to_uint8(images: Tensor, quantizer: str = "round") -> Tensor:
    """Maps [-1, 1] to uint8 by 127.5 x + 127.5, clamped, rounded half up ("round") or down ("truncate").

    Miyato et al. evaluate with "truncate", which darkens images by half a grey level on average.
    """
    if quantizer not in QUANTIZERS:
        raise ConfigError(f"quantizer: got {quantizer!r}, expected one of {', '.join(QUANTIZERS)}")
    shift = 128.0 if quantizer == "round" else 127.5
    return (images.float() * 127.5 + shift).clamp(0, 255).to(torch.uint8)


def encode_png(image: Tensor) -> bytes:
    """Encodes one image, uint8 (3, H, W), or (1, H, W) if it is grey, as PNG."""
    stream = io.BytesIO()
    pixels = image[0] if len(image) == 1 else image.permute(1, 2, 0)
    Image.fromarray(pixels.contiguous().cpu().numpy()).save(stream, format="PNG")
    return stream.getvalue()


def save_png(image: Tensor, path: Path) -> None:
    """Writes one image, uint8 (C, H, W), as a PNG file."""
    path.write_bytes(encode_png(image))


def image_grid(images: Tensor, columns: int) -> Tensor:
    """Arranges images, uint8 (N, C, H, W), in one grid, uint8 (C, H', W'), with one black pixel between them.

    A single image is returned unchanged.
    """
    if len(images) == 1:
        return images[0]
    columns = min(columns, len(images))
    cells = F.pad(images, (0, 1, 0, 1, 0, 0, 0, -len(images) % columns))  # (rows * columns, 3, H + 1, W + 1)
    rows = cells.unflatten(0, (-1, columns)).permute(2, 0, 3, 1, 4)  # (C, rows, H + 1, columns, W + 1)
    return F.pad(rows.flatten(3).flatten(1, 2), (1, 0, 1, 0))


def captioned(images: Tensor, captions: Sequence[str]) -> Tensor:
    """Writes a caption below each image, uint8 (N, C, H, W), white on black; returns uint8 (N, C, H', W').

    W' is at least the width of the longest caption; the pixels of an image are unchanged, in the middle of its upper
    part.
    """
    font = ImageFont.load_default()
    sizes = [font.getbbox(caption)[2:] for caption in captions]
    width = max(images.shape[3], *(math.ceil(right) for right, _ in sizes))
    height = max(math.ceil(bottom) for _, bottom in sizes) + 1
    strips = []
    for caption, (right, _) in zip(captions, sizes, strict=True):
        strip = Image.new("L", (width, height))
        ImageDraw.Draw(strip).text(((width - math.ceil(right)) // 2, 0), caption, 255, font)
        strips.append(np.array(strip))
    below = torch.from_numpy(np.stack(strips)).unsqueeze(1).expand(-1, images.shape[1], -1, -1)
    left = (width - images.shape[3]) // 2
    return torch.cat([F.pad(images, (left, width - images.shape[3] - left)), below], dim=2)
