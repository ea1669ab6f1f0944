"""Tests of CIFAR, STL-10 and CelebA on small files of the published layout, and of missing files."""

import hashlib
import io
import pickle
import sys
import tarfile
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from gan.data import ImageData, load_images
from gan.errors import DataError

SETTINGS = {"image_size": 32, "crop": 0, "resize": "none", "download": False}
ARCHIVED = {
    "cifar10": datasets.CIFAR10,
    "cifar100": datasets.CIFAR100,
    "stl10": datasets.STL10,
    "stl10_unlabeled": datasets.STL10,
}
"""Data sets that are published as one archive."""


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_cifar(root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Writes pickles of the published form with five images each, and patches torchvision's MD5s."""
    dataset = ARCHIVED[name]
    key, num_classes = ("labels", 10) if name == "cifar10" else ("fine_labels", 100)
    folder = root / dataset.base_folder
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    pixels: dict[str, list[np.ndarray]] = {"train": [], "test": []}
    lists = {}
    for split in pixels:
        lists[split] = []
        for file_name, _ in getattr(dataset, f"{split}_list"):
            data = random.integers(0, 256, (5, 3072), dtype=np.uint8)
            pixels[split].append(data.reshape(5, 3, 32, 32))
            (folder / file_name).write_bytes(pickle.dumps({"data": data, key: [0, 1, 2, 3, num_classes - 1]}))
            lists[split].append([file_name, md5(folder / file_name)])
        monkeypatch.setattr(dataset, f"{split}_list", lists[split])
    meta = folder / dataset.meta["filename"]
    meta.write_bytes(pickle.dumps({dataset.meta["key"]: [f"class {i}" for i in range(num_classes)]}))
    monkeypatch.setattr(dataset, "meta", {**dataset.meta, "md5": md5(meta)})
    return {split: np.concatenate(parts) for split, parts in pixels.items()}


def load(name: str, root: Path, split: str = "train", **changes) -> ImageData:
    return load_images(name, root=str(root), split=split, **{**SETTINGS, **changes})


@pytest.mark.parametrize(("name", "num_classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar_pixels_and_labels(name: str, num_classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = write_cifar(tmp_path, name, monkeypatch)
    for split in ("train", "test"):
        data = load(name, tmp_path, split)
        assert np.array_equal(data.images.numpy(), pixels[split])
        assert data.images.is_contiguous()
        assert data.labels.tolist()[:5] == [0, 1, 2, 3, num_classes - 1]
        assert (data.name, data.split, data.num_classes) == (name, split, num_classes)
        assert data.classes[1] == "class 1"


def test_cifar_at_another_size_needs_a_resize(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = write_cifar(tmp_path, "cifar10", monkeypatch)["train"]
    with pytest.raises(DataError, match=r"cifar10 image 0: 32x32 pixels, expected 64x64; set data\.image_size=32, or"):
        load("cifar10", tmp_path, image_size=64)
    halved = load("cifar10", tmp_path, image_size=16, resize="box").images.numpy().astype(float)
    assert np.abs(halved - pixels.reshape(25, 3, 16, 2, 16, 2).mean((3, 5))).max() <= 1  # Pillow rounds twice
    cropped = load("cifar10", tmp_path, image_size=24, crop=24).images.numpy()
    assert np.array_equal(cropped, pixels[:, :, 4:28, 4:28])


def write_stl10(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Writes binary files of the published form with five images each, and patches torchvision's MD5s."""
    folder = root / datasets.STL10.base_folder
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    pixels = {
        split: random.integers(0, 256, (5, 3, 96, 96), dtype=np.uint8) for split in ("train", "test", "unlabeled")
    }
    for split, images in pixels.items():
        (folder / f"{split}_X.bin").write_bytes(images.transpose(0, 1, 3, 2).tobytes())  # column by column
        (folder / f"{split}_y.bin").write_bytes(bytes([1, 2, 3, 4, 10]))  # classes are counted from 1
    (folder / "unlabeled_y.bin").unlink()
    for files in ("train_list", "test_list"):
        known = [[name, md5(folder / name)] for name, _ in getattr(datasets.STL10, files)]
        monkeypatch.setattr(datasets.STL10, files, known)
    return pixels


@pytest.mark.parametrize(
    ("name", "split", "part", "labels"),
    [
        *(("stl10", split, split, [0, 1, 2, 3, 9]) for split in ("train", "test")),
        ("stl10", "unlabeled", "unlabeled", [0] * 5),
        ("stl10_unlabeled", "train", "unlabeled", [0] * 5),
        ("stl10_unlabeled", "test", "test", [0] * 5),
    ],
)
def test_stl10_pixels_and_labels(
    name: str, split: str, part: str, labels: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = write_stl10(tmp_path, monkeypatch)[part]
    data = load(name, tmp_path, split, image_size=96)
    assert np.array_equal(data.images.numpy(), pixels)
    assert data.labels.tolist() == labels
    assert (data.name, data.split, data.num_classes) == (name, split, 10 if any(labels) else 1)
    halved = load(name, tmp_path, split, image_size=48, resize="box")
    means = pixels.reshape(5, 3, 48, 2, 48, 2).mean((3, 5))
    assert np.abs(halved.images.numpy().astype(float) - means).max() <= 1  # Pillow rounds twice
    assert halved.fingerprint != data.fingerprint == load(name, tmp_path, split, image_size=96).fingerprint


def test_stl10_at_another_size_needs_a_resize(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_stl10(tmp_path, monkeypatch)
    with pytest.raises(
        DataError, match=r"stl10_unlabeled train image 0: 96x96 pixels, expected 48x48; set data\.resize"
    ):
        load("stl10_unlabeled", tmp_path, image_size=48)


@pytest.mark.filterwarnings("ignore:Python 3.14 will:DeprecationWarning")  # torchvision 0.26 on Python 3.12 and 3.13
@pytest.mark.parametrize("download", [False, True])
@pytest.mark.parametrize("name", ARCHIVED)
def test_an_archive_is_unpacked_without_a_network(
    name: str, download: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, made = ARCHIVED[name], tmp_path / "made"
    stl10 = name.startswith("stl10")
    pixels = write_stl10(made, monkeypatch) if stl10 else write_cifar(made, name, monkeypatch)
    _no_network(monkeypatch)
    root = tmp_path / "data"
    root.mkdir()
    archive = root / dataset.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(made / dataset.base_folder, dataset.base_folder)
    monkeypatch.setattr(dataset, "tgz_md5", md5(archive))
    part, side = "unlabeled" if name == "stl10_unlabeled" else "train", 96 if stl10 else 32
    assert np.array_equal(load(name, root, image_size=side, download=download).images.numpy(), pixels[part])


def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_, **__):
        raise urllib.error.URLError("[Errno -3] Temporary failure in name resolution")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


@pytest.mark.parametrize("name", ARCHIVED)
@pytest.mark.parametrize("download", [False, True])
def test_an_absent_archive_says_what_to_fetch_and_where(
    name: str, download: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _no_network(monkeypatch)
    dataset = ARCHIVED[name]
    with pytest.raises(DataError) as error:
        load(name, tmp_path, download=download)
    message = str(error.value)
    for part in (name, dataset.url, dataset.tgz_md5, str(tmp_path / dataset.filename), "data.name=folder"):
        assert part in message
    assert ("name resolution" in message) == download
    assert ("data.download is false" in message) != download
    assert "\n" not in message


def test_damaged_cifar_files_and_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(tmp_path, "cifar10", monkeypatch)
    batch = tmp_path / datasets.CIFAR10.base_folder / "data_batch_3"
    batch.write_bytes(batch.read_bytes()[:-1])
    with pytest.raises(DataError, match="no complete cifar10 in"):
        load("cifar10", tmp_path)
    (tmp_path / datasets.CIFAR10.filename).write_bytes(b"half an archive")
    with pytest.raises(DataError, match="no complete cifar10 in"):
        load("cifar10", tmp_path)


@pytest.mark.parametrize("file", ["unlabeled_X.bin", "train_X.bin", "test_y.bin"])
def test_damaged_stl10_files(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_stl10(tmp_path, monkeypatch)
    damaged = tmp_path / datasets.STL10.base_folder / file
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(DataError, match="no complete stl10_unlabeled in"):
        load("stl10_unlabeled", tmp_path, image_size=96)


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    for name in ("cifar10", "stl10", "celeba"):
        for download in (False, True):
            with pytest.raises(DataError, match=f"no complete {name} in"):
                load(name, tmp_path / "data", download=download)


PARTITION = [0, 0, 0, 1, 1, 2, 2, 0]


def write_celeba(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Writes eight 178x218 images as PNG data under the published names, and the published lists."""
    folder = root / datasets.CelebA.base_folder
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{i + 1:06}.jpg" for i in range(len(PARTITION))]
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (218, 178, 3), dtype=np.uint8) for _ in names]
    for name, pixels in zip(names, pictures, strict=True):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        (folder / "img_align_celeba" / name).write_bytes(buffer.getvalue())

    def write(file_name: str, header: str, row: str) -> None:
        (folder / file_name).write_text(header + "".join(f"{name} {row}\n" for name in names))

    write("list_attr_celeba.txt", "8\n" + " ".join(["Smiling"] * 40) + "\n", " ".join(["-1"] * 40))
    write("identity_CelebA.txt", "", "1")
    write("list_bbox_celeba.txt", "8\nimage_id x_1 y_1 width height\n", "1 2 3 4")
    write("list_landmarks_align_celeba.txt", "8\n" + " ".join("abcdefghij") + "\n", " ".join("0123456789"))
    partition = "".join(f"{name} {part}\n" for name, part in zip(names, PARTITION, strict=True))
    (folder / "list_eval_partition.txt").write_text(partition)
    known = [
        (key, md5(folder / name) if (folder / name).is_file() else old, name)
        for key, old, name in datasets.CelebA.file_list
    ]
    monkeypatch.setattr(datasets.CelebA, "file_list", known)
    return pictures


@pytest.mark.parametrize(("split", "parts"), [("train", {0}), ("valid", {1}), ("test", {2}), ("all", {0, 1, 2})])
def test_celeba_splits_and_crop(split: str, parts: set[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = write_celeba(tmp_path, monkeypatch)
    data = load("celeba", tmp_path, split, image_size=178, crop=178)
    expected = [pixels for pixels, part in zip(pictures, PARTITION, strict=True) if part in parts]
    assert np.array_equal(data.images.numpy(), np.stack(expected)[:, 20:198].transpose(0, 3, 1, 2))
    assert (data.classes, data.split, data.labels.sum()) == (("face",), split, 0)


def test_celeba_resized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = write_celeba(tmp_path, monkeypatch)
    data = load("celeba", tmp_path, "test", image_size=64, crop=160, resize="bicubic")
    oracle = Image.fromarray(pictures[5]).crop((9, 29, 169, 189)).resize((64, 64), Image.Resampling.BICUBIC)
    assert torch.equal(data.images[0], torch.from_numpy(np.asarray(oracle).transpose(2, 0, 1).copy()))
    with pytest.raises(DataError, match=r"000006\.jpg: 178x218 pixels, 178x178 after the centre crop, expected 64x64"):
        load("celeba", tmp_path, "test", image_size=64)


def test_celeba_pictures_missing_or_damaged_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_celeba(tmp_path, monkeypatch)
    picture = tmp_path / "celeba" / "img_align_celeba" / "000004.jpg"
    picture.write_bytes(picture.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"000004\.jpg: damaged image"):
        load("celeba", tmp_path, "valid", image_size=178)
    picture.unlink()
    with pytest.raises(DataError, match=r"cannot read .*000004\.jpg .*unpack img_align_celeba\.zip again"):
        load("celeba", tmp_path, "valid", image_size=178)


class Quota(Exception):
    """Stand-in for gdown's errors, which have no standard type."""


class FakeGdown:
    @staticmethod
    def download(**_) -> None:
        raise Quota("Too many users have viewed or downloaded this file recently.\n\nTry again later.")


@pytest.mark.parametrize(
    ("download", "gdown", "says"),
    [
        (False, FakeGdown, "data.download is false"),
        (True, FakeGdown, "downloading failed (Too many users have viewed or downloaded this file recently. Try"),
        (True, None, "downloading failed (To download files from GDrive, 'gdown' is required"),
    ],
)
def test_absent_celeba_says_what_to_fetch_and_where(
    download: bool, gdown: object, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gdown", gdown)
    with pytest.raises(DataError) as error:
        load("celeba", tmp_path, download=download)
    message = str(error.value)
    assert says in message
    assert str(tmp_path / "celeba") in message
    assert "data.name=folder" in message
    for key, _, file_name in datasets.CelebA.file_list:
        assert f"{file_name} (https://drive.google.com/uc?id={key})" in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["cifar10", "stl10", "celeba"])
def test_a_failed_download_leaves_no_empty_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gdown", FakeGdown)

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(DataError, match="downloading failed"):
        load(name, tmp_path / "deep" / "data", download=True)
    assert not list(tmp_path.iterdir())
    (tmp_path / "mine").mkdir()
    with pytest.raises(DataError, match="downloading failed"):
        load(name, tmp_path / "mine", download=True)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
