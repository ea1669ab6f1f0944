"""Tests that batch k is a function of (seed, k)."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gan.data import Batches, ImageData
from gan.errors import ConfigError


def numbered(count: int, size: int = 2) -> ImageData:
    """Image i has value i in the first two red pixels, and label i % 3."""
    images = torch.zeros(count, 3, size, size, dtype=torch.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = torch.arange(count) % 256, torch.arange(count) // 256
    return ImageData(images, torch.arange(count) % 3, ("a", "b", "c"), "folder", "train")


def numbers(images: torch.Tensor) -> torch.Tensor:
    return images[:, 0, 0, 0].long() + 256 * images[:, 0, 0, 1].long()


@given(count=st.integers(3, 40), batch_size=st.integers(1, 50), seed=st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_every_epoch_is_a_permutation(count: int, batch_size: int, seed: int) -> None:
    batches = Batches(numbered(count), batch_size, seed=seed, device="cpu")
    drawn = torch.cat([numbers(batches.batch(k)[0]) for k in range(3 * count // batch_size + 1)])
    for epoch in range(len(drawn) // count):
        assert drawn[epoch * count : (epoch + 1) * count].sort().values.tolist() == list(range(count))


@given(count=st.integers(3, 30), batch_size=st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_batches_are_always_full_and_labels_stay_with_images(count: int, batch_size: int) -> None:
    batches = Batches(numbered(count), batch_size, seed=1, device="cpu")
    for k in (0, 1, 7):
        images, labels = batches.batch(k)
        assert (images.shape, images.dtype) == ((batch_size, 3, 2, 2), torch.uint8)
        assert (labels.shape, labels.dtype) == ((batch_size,), torch.int64)
        assert torch.equal(numbers(images) % 3, labels)


@pytest.mark.parametrize("flip", [False, True])
def test_independent_of_the_order_of_calls(flip: bool) -> None:
    data = numbered(17)
    expected = [Batches(data, 5, seed=3, device="cpu", flip=flip).batch(k) for k in range(20)]
    batches = Batches(data, 5, seed=3, device="cpu", flip=flip)
    order = [*range(20)] * 2
    random.Random(0).shuffle(order)
    for k in order:
        images, labels = batches.batch(k)
        assert torch.equal(images, expected[k][0])
        assert torch.equal(labels, expected[k][1])


def test_the_batch_size_cuts_one_and_the_same_sequence() -> None:
    data = numbered(11)
    small, large = Batches(data, 3, seed=0, device="cpu"), Batches(data, 12, seed=0, device="cpu")
    joined = torch.cat([small.batch(k)[0] for k in range(12)])
    assert torch.equal(joined, torch.cat([large.batch(k)[0] for k in range(3)]))


def test_seeds_and_epochs_differ() -> None:
    data = numbered(50)
    first, second = (Batches(data, 50, seed=seed, device="cpu") for seed in (0, 1))
    assert not torch.equal(first.batch(0)[0], second.batch(0)[0])
    assert not torch.equal(first.batch(0)[0], first.batch(1)[0])


def test_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    Batches(numbered(9), 4, seed=0, device="cpu", flip=True).batch(5)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_flips_mirror_half_of_the_images_left_to_right() -> None:
    data = numbered(400, size=4)
    images = torch.randint(256, (400, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = ImageData(images, data.labels, data.classes, "folder", "train")
    plain = Batches(data, 400, seed=0, device="cpu").batch(2)
    flipped = Batches(data, 400, seed=0, device="cpu", flip=True).batch(2)
    assert torch.equal(plain[1], flipped[1])
    same = (plain[0] == flipped[0]).flatten(1).all(1)
    mirrored = (plain[0].flip(3) == flipped[0]).flatten(1).all(1)
    assert bool((same ^ mirrored).all())
    assert 150 < int(mirrored.sum()) < 250  # 200 +- 5 standard deviations of 10


def test_flips_differ_between_batches() -> None:
    """Batches of the same 64 images flip different ones."""
    column = torch.arange(4, dtype=torch.uint8).expand(64, 3, 4, 4).clone()
    data = ImageData(column, torch.zeros(64, dtype=torch.int64), ("a",), "folder", "train")
    batches = Batches(data, 64, seed=0, device="cpu", flip=True)
    assert not torch.equal(batches.batch(0)[0], batches.batch(1)[0])


def test_a_batch_does_not_share_memory_with_the_data() -> None:
    data = numbered(4)
    Batches(data, 4, seed=0, device="cpu").batch(0)[0].zero_()
    assert numbers(data.images).tolist() == [0, 1, 2, 3]


def test_large_sets_stay_where_they_are() -> None:
    data = numbered(10)
    size = data.images.nbytes
    resident = Batches(data, 6, seed=0, device="cpu", resident_bytes=size)
    mapped = Batches(data, 6, seed=0, device="cpu", resident_bytes=size - 1)
    assert resident.resident
    assert not mapped.resident
    for k in range(5):
        assert torch.equal(resident.batch(k)[0], mapped.batch(k)[0])


def test_set_not_resident_is_copied_to_the_device_batch_by_batch() -> None:
    batches = Batches(numbered(10), 6, seed=0, device="meta", resident_bytes=0)
    assert batches._images.device.type == "cpu"
    images, labels = batches.batch(0)
    assert images.device.type == labels.device.type == "meta"


def test_refuses_a_batch_size_below_one() -> None:
    with pytest.raises(ConfigError, match=r"train\.batch_size: got 0"):
        Batches(numbered(3), 0, seed=0, device="cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("resident_bytes", [0, 2**30])
def test_the_device_does_not_change_the_batches(resident_bytes: int) -> None:
    data = numbered(100)
    on_cpu = Batches(data, 7, seed=5, device="cpu", flip=True)
    on_gpu = Batches(data, 7, seed=5, device="cuda", flip=True, resident_bytes=resident_bytes)
    for k in (0, 3, 40):
        for expected, got in zip(on_cpu.batch(k), on_gpu.batch(k), strict=True):
            assert got.device.type == "cuda"
            assert torch.equal(expected, got.cpu())
