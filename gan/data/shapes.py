"""Synthetic data set of coloured shapes, drawn as a function of (seed, index), without files or network."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from gan.data.framing import Framing
from gan.data.image_data import ImageData, check_split
from gan.errors import DataError

Array = NDArray[np.float64]

SPLITS = {"train": 10_000, "test": 2_000}
MIN_CONTRAST = 0.30  # difference of luma, in [0, 1], between a shape and any part of its background
MIN_SIZE = 16  # in smaller images the classes are indistinguishable

_SEEDS = {"train": 0, "test": 1}
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_CHUNK = 256  # images drawn at once, so that the arrays fit into the processor's cache


# Signed distances in units of the shape's radius: negative inside, with gradient 1 across the outline, so that
# distance * radius is a distance in the image. x points right and y up, each (N, H, W).


def _circle(x: Array, y: Array) -> Array:
    return np.hypot(x, y) - 0.92


def _ring(x: Array, y: Array) -> Array:
    return np.abs(np.hypot(x, y) - 0.72) - 0.23


def _half_disc(x: Array, y: Array) -> Array:
    return np.maximum(np.hypot(x, y + 0.43) - 0.96, -0.43 - y)


def _crescent(x: Array, y: Array) -> Array:
    return np.maximum(np.hypot(x, y) - 1.0, 0.82 - np.hypot(x - 0.52, y))


def _box(x: Array, y: Array, half_width: float, half_height: float) -> Array:
    return np.maximum(np.abs(x) - half_width, np.abs(y) - half_height)


def _square(x: Array, y: Array) -> Array:
    return _box(x, y, 0.74, 0.74)


def _bar(x: Array, y: Array) -> Array:
    return _box(x, y, 1.0, 0.3)


def _half_planes(x: Array, y: Array, count: int, offset: float) -> Array:
    """Returns distances to the sides of a regular polygon with one corner at the top, (count, N, H, W)."""
    angles = math.pi / 2 + (np.arange(count) + 0.5) * 2 * math.pi / count
    return np.stack([math.cos(angle) * x + math.sin(angle) * y - offset for angle in angles])


def _tips(x: Array, y: Array) -> Array:
    """Returns the distance to a disc that blunts sharp corners.

    Without it, anti-aliasing by the distance to the sides would reach far beyond the outline.
    """
    return np.hypot(x, y) - 1.03


def _triangle(x: Array, y: Array) -> Array:
    return np.maximum(_half_planes(x, y, 3, 0.54).max(0), _tips(x, y))


def _star(x: Array, y: Array) -> Array:
    # A point in a five-pointed star is beyond at most one of its five lines: the second largest distance is negative.
    return np.maximum(np.partition(_half_planes(x, y, 5, 0.335), 3, axis=0)[3], _tips(x, y))


def _cross(x: Array, y: Array) -> Array:
    return np.minimum(_box(x, y, 0.95, 0.3), _box(x, y, 0.3, 0.95))


def _heart(x: Array, y: Array) -> Array:
    # A square standing on a corner, with a disc on each of its two upper sides.
    a = 0.56
    s, t = (x + y) * math.sqrt(0.5) + a / 4, (y - x) * math.sqrt(0.5) + a / 4
    discs = np.minimum(np.hypot(s - a, t), np.hypot(s, t - a)) - a
    return np.minimum(_box(s, t, a, a), discs)


SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "circle": _circle,
    "ring": _ring,
    "half_disc": _half_disc,
    "crescent": _crescent,
    "square": _square,
    "bar": _bar,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "heart": _heart,
}


class Style(NamedTuple):
    """Distribution of the scenes; radii in units of half the image's side.

    rotation: largest angle of a shape, to either side, in radians.
    dark: share of images with a bright shape on a dark background; the others are dark on bright.
    """

    radius: tuple[float, float]
    rotation: float
    dark: float


STYLES = {
    "shapes": Style(radius=(0.50, 0.74), rotation=0.6, dark=0.5),
    "upright_shapes": Style(radius=(0.62, 0.74), rotation=0.0, dark=1.0),
}
"""Data sets by name. Upright shapes are easier: a small GAN learns them in minutes on a CPU."""


def load(
    *, root: str, split: str, image_size: int, crop: int, resize: str, download: bool, name: str = "shapes"
) -> ImageData:
    """Draws the 10,000 images of "train" or the 2,000 of "test"; `root` and `download` have no effect.

    Args:
        name: key of `STYLES`.

    Raises:
        DataError: an image size below 16, or a crop or resize, which shapes do not support.
    """
    check_split(name, split, tuple(SPLITS))
    Framing(image_size, crop, resize).check()
    if crop or resize != "none":
        raise DataError(
            f"data.crop={crop}, data.resize={resize}: {name} are drawn at data.image_size; set data.crop=0 and "
            "data.resize=none"
        )
    if image_size < MIN_SIZE:
        raise DataError(f"data.image_size: got {image_size}, expected at least {MIN_SIZE} for {name}")
    index = np.arange(SPLITS[split])
    return ImageData(
        images=torch.from_numpy(draw(index, seed=_SEEDS[split], image_size=image_size, style=STYLES[name])),
        labels=torch.from_numpy(index % len(SHAPES)),
        classes=tuple(SHAPES),
        name=name,
        split=split,
    )


def draw(index: NDArray[np.int64], *, seed: int, image_size: int, style: Style = STYLES["shapes"]) -> NDArray[np.uint8]:
    """Draws the images with the given indices, uint8 (len(index), 3, image_size, image_size).

    Image i is a function of (style, seed, i) and shows class i % 10; `image_size` changes its resolution only.
    """
    images = np.empty((len(index), 3, image_size, image_size), np.uint8)
    for start in range(0, len(index), _CHUNK):
        part = index[start : start + _CHUNK]
        images[start : start + _CHUNK] = _draw_chunk(part, seed, image_size, style)
    return images


def _draw_chunk(index: NDArray[np.int64], seed: int, image_size: int, style: Style) -> NDArray[np.uint8]:
    uniform = iter(_uniform(index, seed, 16).T[:, :, None, None])  # each (N, 1, 1)
    pixel = 2 / image_size  # scenes are drawn in [-1, 1]^2
    radius = _between(next(uniform), *style.radius)
    reach = 0.87 - radius  # outlines extend to at most 1.06 radii: at 32x32 a border of one pixel stays free
    angle = _between(next(uniform), -style.rotation, style.rotation)
    centre_x, centre_y = _between(next(uniform), -reach, reach), _between(next(uniform), -reach, reach)

    grid = (np.arange(image_size) + 0.5) * pixel - 1
    x, y = grid[None, None, :], -grid[None, :, None]
    cos, sin = np.cos(angle), np.sin(angle)
    local_x = (cos * (x - centre_x) + sin * (y - centre_y)) / radius
    local_y = (cos * (y - centre_y) - sin * (x - centre_x)) / radius
    distance = np.empty(local_x.shape)
    for label, shape in enumerate(SHAPES.values()):
        rows = index % len(SHAPES) == label
        if rows.any():
            distance[rows] = shape(local_x[rows], local_y[rows])
    coverage = np.clip(0.5 - distance * radius / pixel, 0, 1)[:, None]  # fraction of each pixel, (N, 1, H, W)

    # A dark background gets a bright shape and vice versa, at least MIN_CONTRAST apart.
    slope = _between(next(uniform), 0, 0.06)
    dark = next(uniform) < style.dark
    u = next(uniform)
    ground_luma = np.where(dark, _between(u, 0.10, 0.30), _between(u, 0.70, 0.90))
    gap = MIN_CONTRAST + slope
    u = next(uniform)
    shape_luma = np.where(dark, _between(u, ground_luma + gap, 0.80), _between(u, 0.20, ground_luma - gap))
    shape_colour = _colour(next(uniform), _between(next(uniform), 0.75, 1.0), shape_luma)
    ground_colour = _colour(next(uniform), _between(next(uniform), 0.2, 0.7), ground_luma)
    direction = next(uniform) * 2 * math.pi
    along = (np.cos(direction) * x + np.sin(direction) * y) * math.sqrt(0.5)  # in [-1, 1]
    ground = ground_colour + (slope * along)[:, None]  # an equal shift of all channels shifts the luma equally
    image = ground + coverage * (shape_colour - ground)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def _colour(hue: Array, purity: Array, luma: Array) -> Array:
    """Returns an RGB colour in [0, 1] of the given luma, (N, 3, 1, 1); arguments are (N, 1, 1).

    purity: saturation in [0, 1], as a fraction of the largest possible at this luma.
    """
    hue, purity, luma = hue[:, None], purity[:, None], luma[:, None]
    primaries = np.array([0, 2, 4]).reshape(3, 1, 1)  # red, green and blue on a circle of length 6
    away = np.abs((hue * 6 - primaries + 3) % 6 - 3)
    vivid = np.clip(2 - away, 0, 1)
    chroma = vivid - (_LUMA.reshape(3, 1, 1) * vivid).sum(1, keepdims=True)  # its luma is 0
    room = np.where(chroma > 0, 1 - luma, luma) / np.maximum(np.abs(chroma), 1e-9)
    return luma + purity * room.min(1, keepdims=True) * chroma


def _between(uniform: Array, low: float | Array, high: float | Array) -> Array:
    return low + (high - low) * uniform


def _uniform(index: NDArray[np.int64], seed: int, count: int) -> Array:
    """Draws uniform numbers in [0, 1), (len(index), count): row j by Philox with the key (seed, index[j])."""
    words = np.stack([np.random.Philox(key=np.array([seed, i], np.uint64)).random_raw(count) for i in index])
    return (words >> np.uint64(11)) * 2.0**-53
