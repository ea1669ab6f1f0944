"""Tests of random crops and random labels."""

import torch
import torch.nn.functional as F

from gan.data import ImageData
from gan.data.augment import PADDING, draw_shifts, shifted
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
