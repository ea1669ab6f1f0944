"""Tests of ImageData's checks and fingerprint, and of the registry."""

import hashlib
import inspect

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation.images.reader import packed
from gan.data import DATASETS, ImageData, find_source, load_images, with_channels
from gan.errors import DataError

SETTINGS = {"image_size": 32, "crop": 0, "resize": "none", "download": False}
DRAWN = {"shapes", "upright_shapes"}
"""Data sets that have no files."""


def make(count: int = 6, size: int = 4, num_classes: int = 3, seed: int = 0) -> ImageData:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, 3, size, size), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % num_classes
    return ImageData(images, labels, tuple("abcdefghij"[:num_classes]), "folder", "train")


@pytest.mark.parametrize(
    ("images", "labels", "classes", "says"),
    [
        (torch.zeros(2, 3, 4, 4), torch.zeros(2).long(), ("a",), "float32 (2, 3, 4, 4), expected uint8 (N, 3, H, W)"),
        (torch.zeros(2, 4, 4, 4).byte(), torch.zeros(2).long(), ("a",), "expected uint8 (N, 3, H, W)"),
        (torch.zeros(3, 4, 4).byte(), torch.zeros(3).long(), ("a",), "expected uint8 (N, 3, H, W)"),
        (torch.zeros(0, 3, 4, 4).byte(), torch.zeros(0).long(), ("a",), "no images"),
        (torch.zeros(2, 3, 0, 4).byte(), torch.zeros(2).long(), ("a",), "no images"),
        (torch.zeros(2, 3, 4, 4).byte(), torch.zeros(2).int(), ("a",), "int32 (2,), expected int64 (2,)"),
        (torch.zeros(2, 3, 4, 4).byte(), torch.zeros(3).long(), ("a",), "int64 (3,), expected int64 (2,)"),
        (torch.zeros(2, 3, 4, 4).byte(), torch.zeros(2, 1).long(), ("a",), "expected int64 (2,)"),
        (torch.zeros(2, 3, 4, 4).byte(), torch.tensor([0, 1]), ("a",), "labels from 0 to 1, expected 0 to 0"),
        (torch.zeros(2, 3, 4, 4).byte(), torch.tensor([-1, 0]), ("a",), "labels from -1 to 0, expected 0 to 0"),
        (torch.zeros(2, 3, 4, 4).byte(), torch.zeros(2).long(), (), "no classes"),
    ],
)
def test_refuses_at_the_door(images: torch.Tensor, labels: torch.Tensor, classes: tuple[str, ...], says: str) -> None:
    with pytest.raises(DataError) as error:
        ImageData(images, labels, classes, "folder", "train")
    assert says in str(error.value)
    assert "'folder'" in str(error.value)


def test_fingerprint_is_the_documented_hash() -> None:
    data = make()
    expected = hashlib.sha256(b"6,3,4,4" + data.images.numpy().tobytes() + data.labels.numpy().tobytes()).hexdigest()
    assert data.fingerprint == expected


def test_fingerprint_does_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make().fingerprint
    for size in (1, 50, 100, 10_000):
        monkeypatch.setattr(packed, "_CHUNK_BYTES", size)
        assert make().fingerprint == whole


def test_fingerprint_reads_pixels_not_memory_layout() -> None:
    data = make()
    other = data.images.contiguous(memory_format=torch.channels_last)
    assert ImageData(other, data.labels, data.classes, "x", "y").fingerprint == data.fingerprint


def test_fingerprint_is_computed_once_and_not_where_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make()
    first = data.fingerprint
    monkeypatch.setattr("gan.data.image_data.compute_fingerprint", lambda *_: pytest.fail("computed again"))
    assert data.fingerprint == first
    known = ImageData(data.images, data.labels, data.classes, "folder", "train", stored_fingerprint="abc")
    assert known.fingerprint == "abc"


@pytest.mark.parametrize("name", DATASETS)
def test_every_source_has_the_one_signature(name: str) -> None:
    source = DATASETS[name]
    keywords = ("root", "split", "image_size", "crop", "resize", "download")
    assert tuple(name for name in inspect.signature(source.load).parameters if name in keywords) == keywords
    assert source.splits[:2] == ("train", "test")
    assert source.num_classes is None or source.num_classes >= 1


@pytest.mark.parametrize("name", DATASETS)
def test_every_source_refuses_an_unknown_split_by_name(name: str) -> None:
    with pytest.raises(DataError, match=r"split: got 'dev', expected one of train, test"):
        load_images(name, root="nowhere", split="dev", **SETTINGS)


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"image_size": 0}, "data.image_size: got 0"),
        ({"crop": -1}, "data.crop: got -1"),
        ({"resize": "nearest"}, "data.resize: got 'nearest', expected one of none, box, bilinear, bicubic, lanczos"),
    ],
)
def test_every_source_refuses_bad_framing(name: str, change: dict, says: str) -> None:
    with pytest.raises(DataError) as error:
        load_images(name, root="nowhere", split="train", **{**SETTINGS, **change})
    assert says in str(error.value)


@pytest.mark.parametrize("name", [name for name in DATASETS if name not in DRAWN])
def test_missing_files_are_one_sentence(name: str, tmp_path) -> None:
    with pytest.raises(DataError) as error:
        load_images(name, root=str(tmp_path / "nowhere"), split="train", **SETTINGS)
    message = str(error.value)
    assert str(tmp_path / "nowhere") in message
    assert message.startswith("data.root: ")
    assert "\n" not in message


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(DataError, match=r"data\.name: got 'cifar', expected one of .*; did you mean cifar10"):
        find_source("cifar")
    with pytest.raises(DataError, match=rf"got 'qqq', expected one of {', '.join(DATASETS)}$"):
        load_images("qqq", root="", split="train", **SETTINGS)


def test_grey_is_pillows_luma_and_grey_levels_stay() -> None:
    """The oracle is Pillow's conversion, level by level."""
    colours = torch.randint(256, (3, 3, 64, 64), generator=torch.Generator().manual_seed(0)).byte()
    data = ImageData(colours, torch.zeros(3, dtype=torch.int64), ("a",), "folder", "train")
    grey = with_channels(data, 1)
    for image, found in zip(colours, grey.images, strict=True):
        oracle = Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L")
        assert torch.equal(found[0], torch.from_numpy(np.array(oracle)))
    repeated = with_channels(grey, 3)
    assert torch.equal(repeated.images, grey.images.expand(-1, 3, -1, -1))
    assert torch.equal(with_channels(repeated, 1).images, grey.images)
    assert with_channels(data, 3) is data
