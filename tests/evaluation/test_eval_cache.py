"""Tests of the cache of real images' features: content addresses, checksums, concurrent processes."""

import multiprocessing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation import Cache, Context, Settings, evaluate
from evaluation.images.image_set import ImageSet, Pass

HOW = Pass(batch_size=16, device="cpu")


class Counting:
    """Extractor of pixel means that counts its images."""

    name, fingerprint, has_logits = "means", "means-1", False
    protocol, record = {"extractor": "means"}, {}

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, None]:
        self.seen += len(images)
        return images.float().mean(dim=(2, 3)), None


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_features_are_found_again_and_a_longer_prefix_computes_the_rest_only(cache: Cache, drawn):
    images, extractor = drawn(40, seed=1)[0], Counting()
    short = ImageSet(images, seed=0, cache=cache)
    head = short.features(10, extractor, HOW).features
    whole = short.features(40, extractor, HOW).features
    again = ImageSet(images, seed=0, cache=cache).features(10, extractor, HOW)
    assert extractor.seen == 40
    assert torch.equal(again.features, head)
    assert again.logits is None
    assert torch.equal(whole[:10], head)
    assert torch.equal(whole, ImageSet(images, seed=0).features(40, Counting(), HOW).features)


def test_other_images_under_the_same_name_give_other_features(cache: Cache, drawn, pixels):
    """torch-fidelity 0.4's cache returns the old distance here, because its key has neither content nor counts."""
    generated, first, second = (drawn(60, seed=seed)[0] for seed in (1, 2, 3))
    settings = Settings(num_real=50, num_fid=50)

    def distance(reference: torch.Tensor, where: Cache | None) -> dict[str, float]:
        context = Context(
            generated=generated,
            reference=reference,
            reference_name="the same name",
            extractor=pixels,
            settings=settings,
            cache=where,
        )
        return evaluate(["fid"], context).values

    assert distance(first, cache) == distance(first, None)
    assert distance(second, cache) == distance(second, None) != distance(first, cache)


@pytest.mark.parametrize("change", ["images", "order", "count", "extractor", "batch_size", "version"])
def test_whatever_decides_features_is_in_the_key(cache: Cache, drawn, change: str, monkeypatch: pytest.MonkeyPatch):
    images, extractor = drawn(40, seed=1)[0], Counting()
    ImageSet(images, seed=0, cache=cache).features(30, extractor, HOW)
    seed, count, how = 0, 30, HOW
    if change == "images":
        images = images.clone()
        images[:, 0, 0, 0] += 1
    elif change == "order":
        seed = 1
    elif change == "count":
        count = 29
    elif change == "extractor":
        extractor.fingerprint = "means-2"
    elif change == "batch_size":
        how = replace(HOW, batch_size=8)
    else:
        monkeypatch.setattr("evaluation.images.image_set.version", lambda package: "other")
    ImageSet(images, seed=seed, cache=cache).features(count, extractor, how)
    assert extractor.seen == 30 + count


@pytest.mark.parametrize("damage", ["truncated", "empty", "foreign", "swapped", "edited"])
def test_a_damaged_file_counts_as_absent(cache: Cache, damage: str):
    key, other = {"a": 1}, {"a": 2}
    cache.write(key, {"x": np.arange(1000)})
    (file,) = cache.folder.iterdir()
    cache.write(other, {"x": np.arange(1000, 2000)})
    (second,) = {*cache.folder.iterdir()} - {file}
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "foreign":
        np.savez(file, x=np.arange(1000))
    elif damage == "swapped":
        file.write_bytes(second.read_bytes())
    else:
        with np.load(file) as arrays:
            content = dict(arrays)
        np.savez(file, **{**content, "x": np.arange(1, 1001)})
    assert cache.read(key) is None
    cache.write(key, {"x": np.arange(1000)})
    found = cache.read(key)
    assert found is not None
    assert np.array_equal(found["x"], np.arange(1000))


def _write_and_read(folder: Path, number: int) -> bool:
    cache = Cache(folder)
    arrays = {"x": np.full(50_000, 7.0)}
    for _ in range(20):
        cache.write({"shared": True}, arrays)
        found = cache.read({"shared": True})
        if found is None or not np.array_equal(found["x"], arrays["x"]):
            return False
    return True


def test_processes_that_share_a_folder_never_see_half_a_file(tmp_path: Path):
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert all(pool.starmap(_write_and_read, [(tmp_path / "cache", number) for number in range(3)]))
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_folder_that_cannot_be_written_is_reported_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file" / "cache")
    for number in range(2):
        cache.write({"a": number}, {"x": np.zeros(3)})
        assert cache.read({"a": number}) is None
    said = capsys.readouterr().err
    assert said.count("cannot be written") == said.count("\n") == 1
