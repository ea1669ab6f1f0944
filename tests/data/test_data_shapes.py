"""Tests of drawn shapes: functions of (seed, index), inside the image, with contrast, distinguishable."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gan.data import load_images, shapes
from gan.errors import DataError

SETTINGS = {"root": "", "crop": 0, "resize": "none", "download": False}


def draw(index, seed: int = 0, image_size: int = 32) -> np.ndarray:
    return shapes.draw(np.asarray(index), seed=seed, image_size=image_size)


@pytest.fixture(scope="module")
def train():
    return load_images("shapes", split="train", image_size=32, **SETTINGS)


@pytest.fixture(scope="module")
def test():
    return load_images("shapes", split="test", image_size=32, **SETTINGS)


def test_counts_classes_and_balance(train, test) -> None:
    assert train.images.shape == (10_000, 3, 32, 32)
    assert test.images.shape == (2_000, 3, 32, 32)
    assert train.classes == test.classes == tuple(shapes.SHAPES)
    assert train.labels.bincount().tolist() == [1_000] * 10
    assert test.labels.bincount().tolist() == [200] * 10
    assert (train.name, train.split, test.split) == ("shapes", "train", "test")


@given(index=st.integers(0, 9_999), seed=st.integers(0, 2**63))
@settings(max_examples=25, deadline=None)
def test_an_image_is_a_function_of_seed_and_index(index: int, seed: int) -> None:
    alone = draw([index], seed)[0]
    company = draw([index + 1, 3, index, index], seed)
    assert np.array_equal(alone, company[2])
    assert np.array_equal(alone, company[3])
    assert not np.array_equal(alone, draw([index], seed + 1)[0])


def test_independent_of_how_many_are_drawn(train) -> None:
    few = draw(np.arange(300))  # more than one chunk, and not a whole number of them
    assert np.array_equal(few, train.images[:300].numpy())


def test_no_image_twice_in_or_across_the_splits(train, test) -> None:
    rows = torch.cat([train.images, test.images]).flatten(1).numpy()
    assert len({row.tobytes() for row in rows}) == 12_000


def test_uniform_numbers_are_uniform_and_uncorrelated() -> None:
    uniform = shapes._uniform(np.arange(4_000), 0, 16)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    error = 1 / np.sqrt(12 * 4_000)
    assert np.abs(uniform.mean(0) - 0.5).max() < 5 * error
    off_diagonal = np.corrcoef(np.concatenate([uniform[:-1].T, uniform[1:].T])) - np.eye(32)
    assert np.abs(off_diagonal).max() < 5 / np.sqrt(4_000)


@pytest.mark.parametrize("label", range(10))
def test_distances_are_signed_and_in_units_of_the_radius(label: int) -> None:
    """The centre of mass is near the middle, no point lies beyond 1.06 radii, and the slope across the outline is 1."""
    shape = list(shapes.SHAPES.values())[label]
    axis = np.linspace(-1.6, 1.6, 401)
    x, y = np.broadcast_to(axis, (1, 401, 401)), np.broadcast_to(-axis[:, None], (1, 401, 401))
    distance = shape(x, y)[0]
    inside = distance < 0
    assert 0.5 < inside.sum() * (axis[1] - axis[0]) ** 2 < 3.2
    assert np.hypot(x[0], y[0])[inside].max() < 1.065
    slope = np.hypot(*np.gradient(distance, axis[1] - axis[0]))[np.abs(distance) < 0.03]
    assert np.median(slope) == pytest.approx(1, abs=0.02)


def test_circle_covers_its_area() -> None:
    """Anti-aliased coverage summed over the pixels is the area pi r^2 of the disc, here to 1 %."""
    index = np.arange(0, 200, 10)  # circles
    uniform = shapes._uniform(index, 0, 16)
    radius = (0.50 + 0.24 * uniform[:, 0]) * 0.92 * 32
    images = draw(index, image_size=64).astype(float)
    for image, expected in zip(images, np.pi * radius**2, strict=True):
        corner, centre = _ground_and_shape(image)
        share = ((image - corner) * (centre - corner)).sum(0) / ((centre - corner) ** 2).sum(0)
        # The ramp across the outline is one pixel wide, whatever the size: half of its pixels are a quarter to three
        # quarters covered. Twice the width would make it all of them.
        assert ((share > 0.25) & (share < 0.75)).sum() < 0.75 * 2 * np.sqrt(np.pi * expected)
        assert share.clip(0, 1).sum() == pytest.approx(expected, rel=0.08)  # the graded background costs accuracy


def _ground_and_shape(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean colour of the border, and the colour farthest from it, each (3, 1, 1)."""
    border = np.concatenate([image[:, 0], image[:, -1], image[:, :, 0], image[:, :, -1]], 1).mean(1)[:, None, None]
    away = np.square(image - border).sum(0)
    row, column = np.unravel_index(away.argmax(), away.shape)
    return border, image[:, row, column][:, None, None]


def test_shapes_contrast_with_their_background(train) -> None:
    """Luma of the most frequent colour (the shape) against every pixel of the border, from uint8 pixels."""
    weights = np.array([0.299, 0.587, 0.114])
    for image in train.images[:1_000].numpy():
        colours, counts = np.unique(image.reshape(3, -1).T, axis=0, return_counts=True)
        _, shape = _ground_and_shape(image.astype(float))
        luma = np.tensordot(weights, image / 255, 1)
        border = np.concatenate([luma[0], luma[-1], luma[:, 0], luma[:, -1]])
        assert len(colours) > 2, counts
        gap = np.abs(border - weights @ shape[:, 0, 0] / 255)
        assert gap.min() > shapes.MIN_CONTRAST - 2.5 / 255  # both are rounded


def test_the_whole_shape_is_in_the_picture(train) -> None:
    """The border's colours vary no more than the background's gradient."""
    images = train.images.numpy().astype(int)
    border = np.concatenate([images[:, :, 0], images[:, :, -1], images[:, :, :, 0], images[:, :, :, -1]], 2)
    spread = (border.max(2) - border.min(2)).max(1)  # (N,)
    assert spread.max() <= 40  # slope 0.06 * 2 * 255 = 31, and rounding


@pytest.mark.parametrize("image_size", [16, 48, 64])
def test_another_size_shows_the_same_scene(image_size: int) -> None:
    small, large = draw(np.arange(40)), draw(np.arange(40), image_size=image_size)
    side = np.gcd(32, image_size)

    def shrink(images: np.ndarray) -> np.ndarray:
        block = images.shape[-1] // side
        return images.reshape(40, 3, side, block, side, block).astype(float).mean((3, 5))

    assert np.abs(shrink(small) - shrink(large)).mean() < 2


def test_a_person_could_tell_the_classes_apart(train, test) -> None:
    """A linear classifier of centred, scaled silhouettes suffices; chance is 10 %."""

    def silhouettes(images: torch.Tensor) -> torch.Tensor:
        images = images.float()
        border = (images[:, :, 0].mean(2) + images[:, :, -1].mean(2))[:, :, None, None] / 2
        away = (images - border).square().sum(1).sqrt()
        away = away / away.amax((1, 2), keepdim=True)
        axis = torch.arange(32.0)
        mass = away.sum((1, 2))
        rows, columns = (away.sum(2) @ axis / mass).round().long(), (away.sum(1) @ axis / mass).round().long()
        centred = [
            torch.roll(a, (16 - int(r), 16 - int(c)), (0, 1)) for a, r, c in zip(away, rows, columns, strict=True)
        ]
        return torch.stack(centred).flatten(1)

    x, y = silhouettes(train.images[:4000]), torch.nn.functional.one_hot(train.labels[:4000]).float()
    ridge = x.T @ x + 10 * torch.eye(1024)
    weights = torch.linalg.solve(ridge, x.T @ (y - 0.1))
    correct = (silhouettes(test.images[:1000]) @ weights).argmax(1) == test.labels[:1000]
    assert correct.float().mean() > 0.8


def test_upright_shapes_are_upright_and_bright_on_dark() -> None:
    """The same classes and splits; squares with vertical sides, circles of radius 0.62 to 0.74, dark backgrounds."""
    data = load_images("upright_shapes", split="train", image_size=32, **SETTINGS)
    assert (data.name, data.classes, len(data.images)) == ("upright_shapes", tuple(shapes.SHAPES), 10_000)
    images = data.images[:1_000].numpy().astype(float)
    luma = np.tensordot(np.array([0.299, 0.587, 0.114]), images / 255, (0, 1))  # (N, 32, 32)
    border = np.concatenate([luma[:, 0], luma[:, -1], luma[:, :, 0], luma[:, :, -1]], 1)
    assert border.max() < 0.30 + 0.06 + 0.01
    bright = luma - border.max(1)[:, None, None] > 0.1
    boxes = bright.any(2)[4::10, :, None] & bright.any(1)[4::10, None, :]  # of the squares
    assert bright[4::10].sum() > 0.97 * boxes.sum(), "turned by up to 0.1 radians they would fill 92 %"
    diameters = 2 * np.sqrt(bright[0::10].sum((1, 2)) / np.pi) / 32
    assert 0.92 * 0.62 - 0.06 < diameters.min() < diameters.max() < 0.92 * 0.74 + 0.06


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"crop": 16}, "data.crop=16, data.resize=none: shapes are drawn at data.image_size"),
        ({"resize": "box"}, "data.resize=box: shapes are drawn"),
        ({"image_size": 15}, "data.image_size: got 15, expected at least 16"),
    ],
)
def test_refuses(change: dict, says: str) -> None:
    with pytest.raises(DataError) as error:
        load_images("shapes", split="train", **{"image_size": 32, **SETTINGS, **change})
    assert says in str(error.value)


def test_pixels_stay_what_they_were(test) -> None:
    """Golden value, since a changed drawing changes every number measured on `shapes`.

    A mean, not the fingerprint, because the last digit of cos and sin may differ between processors.
    """
    means = test.images.float().mean((0, 2, 3))
    assert means.tolist() == pytest.approx(GOLDEN_MEANS, abs=1e-3)


GOLDEN_MEANS = [127.87756, 127.46454, 127.93365]  # RGB of the 2,000 test images, NumPy 2.4, x86-64
