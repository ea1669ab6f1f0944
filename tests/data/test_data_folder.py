"""Tests of reading folders, zip and tar archives: supported and refused layouts."""

import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import datasets

from evaluation.images.reader import reading
from evaluation.images.reader.decoding import SUFFIXES
from evaluation.images.reader.errors import ReadError
from evaluation.images.reader.layout import arrange
from gan.data import ImageData, load_images
from gan.data.folder import load_splits
from gan.errors import DataError

SETTINGS = {"image_size": 4, "crop": 0, "resize": "none", "download": False}
KINDS = ["directory", ".zip", ".tar", ".tar.gz", ".tar.bz2", ".tar.xz"]


def png(value: int = 0, size: tuple[int, int] = (4, 4)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


def store(files: dict[str, bytes], tmp_path: Path, kind: str) -> str:
    """Writes the files as a directory or an archive, in the given order."""
    root = tmp_path / ("data" if kind == "directory" else f"data{kind}")
    if kind == "directory":
        root.mkdir()
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    elif kind == ".zip":
        with zipfile.ZipFile(root, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(root, f"w:{kind[5:]}") as archive:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return str(root)


def read(root: str, split: str = "train", **changes) -> ImageData:
    return load_images("folder", root=root, split=split, **{**SETTINGS, **changes})


def values(data: ImageData) -> list[int]:
    return data.images[:, 0, 0, 0].tolist()


SPLIT_FILES = {
    "train/dog/b.png": png(2),
    "test/dog/x.png": png(9),
    "train/cat/10.png": png(1),
    "train/dog/a.PNG": png(3),
    "test/cat/y.png": png(8),
    "train/cat/9.png": png(4),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("enclosing", ["", "set/", "./", "repository-main/data/"])
def test_splits_of_classes_in_a_fixed_order(kind: str, enclosing: str, tmp_path: Path) -> None:
    files = {enclosing + name: content for name, content in SPLIT_FILES.items()}
    root = store(files, tmp_path, kind)
    train, test = read(root), read(root, "test")
    assert train.classes == test.classes == ("cat", "dog")
    assert (values(train), train.labels.tolist()) == ([1, 4, 3, 2], [0, 0, 1, 1])
    assert (values(test), test.labels.tolist()) == ([8, 9], [0, 1])
    assert (train.name, train.split, test.split) == ("folder", "train", "test")


@given(order=st.permutations(list(SPLIT_FILES)))
@settings(max_examples=30, deadline=None)
def test_the_order_of_the_archive_does_not_matter(order: list[str]) -> None:
    assert arrange(order, "x") == arrange(list(SPLIT_FILES), "x")


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_files_have_one_fingerprint(kind: str, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = store(dict(reversed(SPLIT_FILES.items())), tmp_path / "other", "directory")
    assert read(store(SPLIT_FILES, tmp_path, kind)).fingerprint == read(other).fingerprint


def test_equals_torchvisions_image_folder(tmp_path: Path) -> None:
    root = store(SPLIT_FILES, tmp_path, "directory")
    oracle = datasets.ImageFolder(f"{root}/train")
    data = read(root)
    assert data.classes == tuple(oracle.classes)
    assert data.labels.tolist() == oracle.targets
    for image, (expected, _) in zip(data.images, oracle, strict=True):
        assert np.array_equal(image.numpy(), np.asarray(expected).transpose(2, 0, 1))


@pytest.mark.parametrize("kind", KINDS)
def test_classes_without_splits_are_train(kind: str, tmp_path: Path) -> None:
    root = store({"b/1.png": png(1), "a/2.png": png(2)}, tmp_path, kind)
    data = read(root)
    assert (data.classes, values(data), data.labels.tolist()) == (("a", "b"), [2, 1], [0, 1])
    with pytest.raises(DataError) as error:
        read(root, "test")
    assert "has no test split, only train; put the images into train/ and test/, or" in str(error.value)


@pytest.mark.parametrize("kind", ["directory", ".zip", ".tar.xz"])
@pytest.mark.parametrize("prefix", ["", "train/", "set/train/"])
def test_plain_images_are_one_class(kind: str, prefix: str, tmp_path: Path) -> None:
    data = read(store({f"{prefix}2.png": png(2), f"{prefix}1.png": png(1)}, tmp_path, kind))
    assert (data.classes, data.num_classes, values(data)) == (("images",), 1, [1, 2])


LAYOUTS = {
    "one class folder": (["cat/1", "cat/2"], "train", ("cat",), [1, 2], [0, 0]),
    "folders inside a class": (["cat/z/1", "cat/a/deep/2", "dog/3"], "train", ("cat", "dog"), [2, 1, 3], [0, 0, 1]),
    "val for test": (["train/a/1", "val/a/2"], "test", ("a",), [2], [0]),
    "valid for test": (["train/a/1", "valid/a/2"], "test", ("a",), [2], [0]),
    "test before val": (["train/a/1", "val/a/2", "test/a/3"], "test", ("a",), [3], [0]),
    "a class absent from test": (["train/a/1", "train/b/2", "test/b/5"], "test", ("a", "b"), [5], [1]),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_layouts_that_are_read(case: str, tmp_path: Path) -> None:
    names, split, *expected = LAYOUTS[case]
    data = read(store({f"{name}.png": png(int(name[-1])) for name in names}, tmp_path, "directory"), split)
    assert [data.classes, values(data), data.labels.tolist()] == expected


def test_only_a_test_split(tmp_path: Path) -> None:
    root = store({"test/b/1.png": png(1), "test/a/2.png": png(2)}, tmp_path, "directory")
    assert read(root, "test").classes == ("a", "b")
    with pytest.raises(DataError, match=r"has no train split, only test; put the images into train/"):
        read(root)


@pytest.mark.parametrize("kind", ["directory", ".zip", ".tar"])
def test_passes_over_what_is_not_an_image(kind: str, tmp_path: Path) -> None:
    junk = {"README.md": b"hello", "a/.hidden.png": b"x", ".git/a/1.png": b"x", "__MACOSX/a/1.png": b"x"}
    data = read(store({**junk, "a/1.png": png(1), "a/Thumbs.db": b"x", "b/MD5SUMS.txt": b"x"}, tmp_path, kind))
    assert (data.classes, values(data)) == (("a",), [1])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_suffix_is_read(suffix: str, tmp_path: Path) -> None:
    image = Image.new("L" if suffix == ".pgm" else "RGB", (4, 4), 7 if suffix == ".pgm" else (7, 7, 7))
    kinds = {".jfif": "JPEG", ".jpe": "JPEG", ".pbm": "PPM", ".pgm": "PPM", ".pnm": "PPM"}
    image.save(tmp_path / f"1{suffix.upper()}", kinds.get(suffix))
    assert values(read(str(tmp_path))) == [7]


@pytest.mark.parametrize("kind", KINDS)
def test_no_images(kind: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.root: no images in .*data.* \(files ending in \.bmp "):
        read(store({"a/labels.txt": b"x"}, tmp_path, kind))


def test_a_missing_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone does not exist; expected a folder of images, a \.zip or a \.tar"):
        read(str(tmp_path / "gone"))


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (["train/a/1.png", "b/1.png"], "has the split folder train/, but b/1.png is outside of it"),
        (["train/a/1.png", "1.png"], "has the split folder train/, but 1.png is outside of it"),
        (["a/1.png", "2.png"], "has images next to class folders, such as 2.png and a/1.png"),
        (["train/a/1.png", "train/2.png"], "x: train has images next to class folders"),
        (["train/a/1.png", "test/b/1.png"], "the class 'b' is in the test split but not in train/"),
        (["train/a/1.png", "test/1.png"], "has images with a class and images without one"),
        (["bus/1.png", "train/1.png"], "If train is a class, move all class folders into train/, as in train/train"),
        (["train/a/1.png", "Train/b/1.png"], "has Train/ and train/; keep one of them"),
        (["train/a/1.png", "val/a/1.png", "valid/a/1.png"], "has val/ and valid/; keep one of them"),
    ],
)
def test_mixed_layouts_are_refused_by_name(files: list[str], says: str) -> None:
    with pytest.raises(ReadError) as error:
        arrange(files, "x")
    assert says in str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_image_is_named_within_its_archive(kind: str, tmp_path: Path) -> None:
    root = store({"a/1.png": png(1), "b/2.png": png(3)[:50]}, tmp_path, kind)
    with pytest.raises(DataError) as error:
        read(root)
    assert f"{root}: b/2.png: damaged image (" in str(error.value)


def test_damage_in_a_split_not_asked_for_does_not_matter(tmp_path: Path) -> None:
    root = store({"train/a/1.png": png(1), "test/a/2.png": b"damaged"}, tmp_path, ".tar")
    assert values(read(root)) == [1]


@pytest.mark.parametrize("kind", ["directory", ".zip", ".tar.gz"])
def test_mixed_sizes(kind: str, tmp_path: Path) -> None:
    root = store({"a/1.png": png(1), "a/2.png": png(2, (9, 6))}, tmp_path, kind)
    with pytest.raises(DataError, match=r"a/2\.png: 9x6 pixels, 6x6 after the centre crop, expected 4x4; set data"):
        read(root)
    assert values(read(root, resize="lanczos")) == [1, 2]
    with pytest.raises(DataError, match=r"a/1\.png: 4x4 pixels, smaller than data\.crop=6"):
        read(root, crop=6, resize="box")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "directory"])
def test_an_archive_cut_anywhere_is_refused(kind: str, tmp_path: Path) -> None:
    """tarfile accepts a plain tar cut between two members; it must be refused too."""
    noise = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), dtype=np.uint8)
    files = {}
    for i, pixels in enumerate(noise):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        files[f"a/{i:02}.png"] = buffer.getvalue()
    root = Path(store(files, tmp_path, kind))
    whole = root.read_bytes()
    # A tar is filled up with zeros to a multiple of 10,240 bytes; losing some of those loses nothing.
    length = len(whole.rstrip(b"\0")) if kind == ".tar" else len(whole)
    cuts = {*range(0, length, max(1, length // 37)), *range(0, length, 1024), length - 1}
    for end in cuts:
        root.write_bytes(whole[:end])
        with pytest.raises(DataError) as error:
            read(str(root))
        assert str(root) in str(error.value)


@pytest.mark.parametrize("kind", [".zip", ".tar.gz", ".tar.xz"])
def test_a_flipped_byte_in_an_archive_is_noticed_or_harmless(kind: str, tmp_path: Path) -> None:
    root = Path(store({f"a/{i}.png": png(i) for i in range(5)}, tmp_path, kind))
    whole = root.read_bytes()
    expected = read(str(root)).fingerprint
    for position in range(10, len(whole), max(1, len(whole) // 60)):
        root.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        try:
            data = read(str(root))
        except DataError:
            continue
        if len(data) == 5:
            assert data.fingerprint == expected


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "data.rar"
    path.write_bytes(b"Rar!" + bytes(2000))
    with pytest.raises(DataError, match=r"data\.rar is neither a folder, a zip nor a tar archive"):
        read(str(path))


def test_an_encrypted_zip(tmp_path: Path) -> None:
    root = Path(store({"a/1.png": png(1)}, tmp_path, ".zip"))
    raw = bytearray(root.read_bytes())
    raw[6] |= 1  # the flag "encrypted" of the member and of its entry in the directory
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    root.write_bytes(bytes(raw))
    with pytest.raises(DataError, match=r"data\.root: cannot read .*data\.zip: .*encrypted"):
        read(str(root))


def test_a_tar_that_ends_in_a_zip_is_a_tar(tmp_path: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("b/9.png", png(9))
    root = store({"a/1.png": png(1), "z.zip": inner.getvalue()}, tmp_path, ".tar")
    assert values(read(root)) == [1]


def test_links_out_of_a_zip_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "data.zip"
    with zipfile.ZipFile(root, "w") as archive:
        link = zipfile.ZipInfo("a/0.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("a/1.png", png(1))
    with pytest.raises(DataError, match=r"a/0\.png: a link to /etc/passwd, which is not in the archive"):
        read(str(root))


def test_nothing_is_extracted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = store({"../../out/1.png": png(1), "a/3.png": png(3)}, tmp_path, ".tar")
    monkeypatch.chdir(tmp_path)
    assert values(read(root)) == [3, 1]
    assert [path.name for path in tmp_path.rglob("*")] == ["data.tar"]


def test_the_last_of_two_members_of_one_name_counts(tmp_path: Path) -> None:
    root = tmp_path / "data.tar"
    with tarfile.open(root, "w") as archive:
        for value in (1, 2):
            info = tarfile.TarInfo("a/1.png")
            info.size = len(png(value))
            archive.addfile(info, io.BytesIO(png(value)))
    assert values(read(str(root))) == [2]


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "1.png").write_bytes(png(1))
    root = tmp_path / "data"
    root.mkdir()
    (root / "a").symlink_to(tmp_path / "elsewhere")
    (root / "loop").symlink_to(root)
    data = read(str(root))
    assert (data.classes, values(data)) == (("a",), [1])


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0)
    with pytest.raises(DataError, match="Permission denied"):
        read(str(tmp_path))


def test_both_splits_in_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = store(SPLIT_FILES, tmp_path, ".tar.xz")
    decoded = []
    original = reading.decode
    monkeypatch.setattr(reading, "decode", lambda data, name: (decoded.append(name), original(data, name))[1])
    both = load_splits(root=root, splits=(), **SETTINGS)
    assert len(decoded) == len(set(decoded)) == 6
    assert {split: data.fingerprint for split, data in both.items()} == {
        "train": read(root).fingerprint,
        "test": read(root, "test").fingerprint,
    }


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    store({"1.png": png(1)}, tmp_path, "directory")
    assert values(read("~/data")) == [1]


@pytest.mark.parametrize(("labels", "classes"), [(None, ("images",)), ([2, 0, 2], ("0", "1", "2"))])
def test_an_npz_file_is_a_training_split_of_the_images_that_evaluation_reads(
    labels: list[int] | None, classes: tuple[str, ...], tmp_path: Path
):
    file, pixels = tmp_path / "images.npz", np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), np.uint8)
    np.savez(file, images=pixels, **({} if labels is None else {"labels": np.array(labels)}))
    data, evaluated = read(str(file)), reading.read_images(file)
    assert data.images.equal(evaluated.images)
    assert (data.classes, data.labels.tolist()) == (classes, labels or [0, 0, 0])
    assert list(load_splits(root=str(file), splits=(), **SETTINGS)) == ["train"]
    assert read(str(file), image_size=2, resize="box").images.shape == (3, 3, 2, 2)
    with pytest.raises(DataError, match="has no test split, only train; use a folder or archive"):
        read(str(file), "test")
    file.write_bytes(b"no archive")
    with pytest.raises(DataError, match="cannot be read as an"):
        read(str(file))
