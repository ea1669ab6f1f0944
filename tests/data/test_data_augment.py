"""Tests of random crops, DiffAugment and random labels."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gan.data import AUGMENTATIONS, ImageData
from gan.data.augment import PADDING, augmented, draw_shifts, num_draws, shifted
from gan.data.random_labels import with_random_labels


def drawn(count: int = 6, size: int = 8, num_classes: int = 3) -> ImageData:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(1, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    names = tuple(f"class {number}" for number in range(num_classes))
    return ImageData(images, torch.arange(count) % num_classes, names, "folder", "train")


def test_crops_are_slices_of_padded_images() -> None:
    images = drawn().images
    shifts = torch.tensor([[0, 0], [4, 4], [8, 8], [1, 7], [8, 0], [3, 4]])
    found = shifted(images, shifts)
    assert (found.dtype, found.shape) == (images.dtype, images.shape)
    padded = F.pad(images, (PADDING,) * 4)
    for image, whole, (top, left) in zip(found, padded, shifts.tolist(), strict=True):
        assert torch.equal(image, whole[:, top : top + 8, left : left + 8])
    assert torch.equal(found[1], images[1])
    assert not found[0, :, :PADDING].any()


def test_shifts_are_uniform_and_follow_seed_and_batch() -> None:
    shifts = draw_shifts(9000, seed=0, k=3)
    counts = torch.stack([side.bincount(minlength=2 * PADDING + 1) for side in shifts.unbind(1)])
    assert counts.shape == (2, 9)
    assert (counts - 1000).abs().max() < 5 * 1000**0.5  # five standard deviations
    assert torch.equal(shifts, draw_shifts(9000, seed=0, k=3))
    assert not torch.equal(shifts, draw_shifts(9000, seed=0, k=4))
    assert not torch.equal(shifts, draw_shifts(9000, seed=1, k=3))


def test_random_labels_are_fixed_and_say_nothing() -> None:
    data = drawn(count=3000, size=1)
    random = with_random_labels(data, seed=0)
    assert random.images is data.images
    assert torch.equal(random.labels, with_random_labels(data, seed=0).labels)
    assert not torch.equal(random.labels, with_random_labels(data, seed=1).labels)
    pairs = (3 * data.labels + random.labels).bincount(minlength=9)
    assert (pairs - 3000 / 9).abs().max() < 5 * (3000 / 9) ** 0.5
    assert random.fingerprint != data.fingerprint


def test_random_labels_do_not_inherit_a_stored_fingerprint() -> None:
    data = drawn()
    stored = ImageData(data.images, data.labels, data.classes, data.name, data.split, data.fingerprint)
    assert with_random_labels(stored, seed=0).fingerprint != data.fingerprint


def pictures(count: int = 5, size: int = 16) -> Tensor:
    return 2 * torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1


def uniforms(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_brightness_adds_saturation_keeps_greys_and_contrast_keeps_means() -> None:
    """Uniform numbers (1/2, 1/2, 1/2) leave images as they are; each of the three is applied after those before."""
    images, middle = pictures(4), (0.5, 0.5, 0.5)
    draws = uniforms(middle, (0.1, 0.5, 0.5), (0.5, 0.8, 0.5), (0.5, 0.5, 0.9))
    same, brighter, richer, harder = augmented(images, draws, ["color"])
    torch.testing.assert_close(same, images[0])
    torch.testing.assert_close(brighter, images[1] - 0.4)
    torch.testing.assert_close(richer.mean(0), images[2].mean(0))
    torch.testing.assert_close(richer - richer.mean(0), 1.6 * (images[2] - images[2].mean(0)))
    torch.testing.assert_close(harder.mean(), images[3].mean())
    torch.testing.assert_close(harder - harder.mean(), 1.4 * (images[3] - images[3].mean()))
    bright = augmented(images[:1], uniforms((0.9, 0.2, 0.7)), ["color"])[0] - 0.4
    torch.testing.assert_close(bright, augmented(images[:1], uniforms((0.5, 0.2, 0.7)), ["color"])[0])
    grey = augmented(images[:1], uniforms((0.5, 0.0, 0.5)), ["color"])[0]
    torch.testing.assert_close(grey, images[0].mean(0).expand(3, 16, 16))


def test_a_translation_is_the_shifted_image_on_grey() -> None:
    """By at most an eighth of the size, 2 of 16 pixels, and by 0 in the middle."""
    images = pictures(3)
    moved = augmented(images, uniforms((0.0, 0.5), (0.99, 0.3), (0.5, 0.5)), ["translation"])
    assert torch.equal(moved[0], F.pad(images[0], (0, 0, 2, 0))[:, :16])
    assert torch.equal(moved[1], F.pad(images[1], (1, 0, 0, 2))[:, 2:, :16])
    assert torch.equal(moved[2], images[2])


def test_a_cutout_is_half_the_size_and_its_centre_is_anywhere() -> None:
    images = pictures(3).add(2)  # no zeros
    holes = augmented(images, uniforms((0.5, 0.5), (0.0, 0.999), (0.25, 0.5)), ["cutout"]) == 0
    for hole, rows, columns in zip(holes, [(4, 12), (0, 4), (0, 8)], [(4, 12), (12, 16), (4, 12)], strict=True):
        expected = torch.zeros(16, 16, dtype=torch.bool)
        expected[slice(*rows), slice(*columns)] = True
        assert torch.equal(hole, expected.expand(3, 16, 16))


@pytest.mark.parametrize(("name", "count"), [("translation", 5), ("cutout", 17)])
def test_each_place_has_the_same_probability(name: str, count: int) -> None:
    """Ten draws each, evenly spaced, give `count` places along each axis; the last number below 1 gives the last."""
    draws = ((torch.arange(10 * count) + 0.5) / (10 * count))[:, None].expand(-1, 2)
    images = pictures(1).add(2).expand(10 * count, -1, -1, -1)
    places = augmented(images, draws, [name]).unflatten(0, (count, 10))
    assert torch.equal(places, places[:, :1].expand_as(places))
    assert len(places[:, 0].unique(dim=0)) == count
    assert torch.equal(augmented(images[:1], torch.full((1, 2), 1 - 2**-24), [name])[0], places[-1, 0])


@pytest.mark.parametrize("names", [[name] for name in AUGMENTATIONS] + [[*AUGMENTATIONS]])
def test_augmentations_are_differentiable(names: list[str]) -> None:
    draws = torch.rand(2, num_draws(names), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    images = pictures(2, 8).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: augmented(x, draws, names), images)
    flat = augmented(images.to(memory_format=torch.channels_last), draws, names)
    torch.testing.assert_close(flat, augmented(images, draws, names))


def test_augmentations_are_applied_in_order() -> None:
    images, draws = pictures(4), torch.rand(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    both = augmented(images, draws, ["color", "cutout"])
    assert torch.equal(both, augmented(augmented(images, draws[:, :3], ["color"]), draws[:, 3:], ["cutout"]))
    assert not torch.equal(both, augmented(images, draws.roll(2, 1), ["cutout", "color"]))
