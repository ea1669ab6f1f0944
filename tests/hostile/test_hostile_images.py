"""Tests of hostile folders and archives of images: both readers refuse them by name, quickly, and write nothing."""

import gzip
import io
import os
import socket
import struct
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from evaluation.errors import EvaluationError
from evaluation.images.reader import read_images
from gan.data.folder import load
from gan.errors import DataError


def png(mode: str = "RGB", size: int = 8, format: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, (size, size)).save(stream, format)
    return stream.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_size(width: int, height: int, pixels: bytes = b"", *more: bytes) -> bytes:
    """PNG with 1-bit pixels whose header declares the given size."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    body = [header, *more, chunk(b"IDAT", zlib.compress(pixels)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def read_for_training(root: Path) -> int:
    return len(load(root=str(root), split="train", image_size=8, crop=0, resize="none", download=False))


def read_for_evaluation(root: Path) -> int:
    return len(read_images(root)[0])


READERS: dict[str, Callable[[Path], int]] = {"training": read_for_training, "evaluation": read_for_evaluation}


def refused(reader: str, root: Path, *parts: str) -> None:
    with pytest.raises((DataError, EvaluationError)) as error:
        READERS[reader](root)
    assert len(str(error.value).splitlines()) == 1, str(error.value)
    for part in parts:
        assert part in str(error.value), str(error.value)


CONTENTS = {
    "no bytes": b"",
    "text": b"no image",
    "half": png()[:40],
    "no pixels": png_of_size(0, 8),
    "four billion pixels": png_of_size(65535, 65535),
    "just beyond Pillow's limit": png_of_size(10_000, 10_000, bytes(10_000 * 1251)),
    "pixels of 32 bits": png("F", format="TIFF"),
    "a hundred megabytes of text": png_of_size(8, 8, bytes(16), chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(10**8)))),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("case", CONTENTS)
def test_a_hostile_image_is_refused_by_name(reader: str, case: str, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(CONTENTS[case])
    refused(reader, tmp_path, "bad.png")


@pytest.mark.parametrize("reader", READERS)
def test_other_than_files_are_refused_by_name(reader: str, tmp_path: Path) -> None:
    """Reading a pipe would block, and reading a device would not end."""
    special: dict[str, Callable[[Path], object]] = {
        "pipe": os.mkfifo,
        "device": lambda path: path.symlink_to("/dev/zero"),
        "ring": lambda path: path.symlink_to(path.name),
        "nowhere": lambda path: path.symlink_to("nowhere.png"),
        "sparse": lambda path: (path.touch(), os.truncate(path, 2**40)),
    }
    for name, make in special.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "a.png").write_bytes(png())
        make(folder / "b.png")
        refused(reader, folder, "b.png")


@pytest.mark.parametrize("reader", READERS)
def test_a_socket_is_refused_by_name(reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path has at most 108 bytes
    with socket.socket(socket.AF_UNIX) as open_socket:
        open_socket.bind("b.png")
        refused(reader, Path(), "b.png")


@pytest.mark.parametrize("reader", READERS)
def test_a_folder_called_as_an_image_is_a_class(reader: str, tmp_path: Path) -> None:
    (tmp_path / "cat.png").mkdir()
    (tmp_path / "cat.png" / "one.png").write_bytes(png())
    assert READERS[reader](tmp_path) == 1


@pytest.mark.parametrize("reader", READERS)
def test_links_in_a_ring_end(reader: str, tmp_path: Path) -> None:
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "one.png").write_bytes(png())
    (tmp_path / "class" / "again").symlink_to(tmp_path)
    assert READERS[reader](tmp_path) == 1


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", [b"\xff\xfe", b"a\nb", b"\x1b[31mred"])
def test_classes_that_cannot_be_printed_are_refused(reader: str, name: bytes, tmp_path: Path) -> None:
    """Such names would break the lines of a table, or cannot be encoded in a report."""
    folder = os.fsencode(tmp_path) + b"/" + name
    Path(os.fsdecode(folder)).mkdir()
    Path(os.fsdecode(folder + b"/one.png")).write_bytes(png())
    refused(reader, tmp_path, "cannot be printed")


@given(
    st.binary(max_size=60), st.integers(0, 200), st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
)
def test_damage_of_any_kind_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, patch: bytes, at: int, format: str
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    content = bytearray(png(format=format))
    content[at : at + len(patch)] = patch
    (folder / "bad.png").write_bytes(content)
    for read in READERS.values():
        try:
            assert read(folder) == 1
        except (DataError, EvaluationError) as error:
            text = str(error)
            assert "bad.png" in text
            assert "\n" not in text


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


PACKERS = {"data.zip": zipped, "data.tar.gz": tarred}


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize(
    "name", ["../../evil.png", "/evil.png", "/tmp/evil/evil.png", "good/../../evil.png", "..\\evil.png"]
)
def test_members_cannot_leave_their_archive(packer: str, name: str, tmp_path: Path) -> None:
    """Nothing is unpacked to disk, and no class gets the name of a folder outside."""
    archive = PACKERS[packer](tmp_path / packer, {name: png(), "good/one.png": png()})
    before = sorted(tmp_path.parent.rglob("*"))
    try:
        loaded = load(root=str(archive), split="train", image_size=8, crop=0, resize="none", download=False)
    except DataError as error:
        assert "evil.png" in str(error)  # noqa: PT017  either outcome is right
    else:
        assert not {"/", "..", ".", ""} & set(loaded.classes)
        assert not any("/" in label for label in loaded.classes)
    assert sorted(tmp_path.parent.rglob("*")) == before
    assert not Path("/evil.png").exists()


@pytest.mark.parametrize("packer", PACKERS)
def test_archives_in_archives_are_passed_over(packer: str, tmp_path: Path) -> None:
    inner = zipped(tmp_path / "inner.zip", {"two.png": png()}).read_bytes()
    archive = PACKERS[packer](tmp_path / packer, {"one.png": png(), "inner.zip": inner})
    assert read_for_training(archive) == 1


@pytest.mark.parametrize("packer", PACKERS)
def test_a_member_too_large_for_an_image_is_refused_unread(
    packer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluation.images.reader.files.MAX_FILE_BYTES", 10**6)
    archive = PACKERS[packer](tmp_path / packer, {"one.png": png(), "bomb.png": bytes(2 * 10**6)})
    refused("training", archive, "bomb.png", "2,000,000 bytes")


@pytest.mark.parametrize("packer", PACKERS)
def test_an_archive_out_of_proportion_is_refused(packer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluation.images.reader.files.UNPACKED_BYTES", 10**6)
    archive = PACKERS[packer](tmp_path / packer, {"one.png": png(), "bomb.bin": bytes(2 * 10**6)})
    refused("training", archive, packer, "unpacks to")


def test_zeros_behind_the_end_of_a_tar_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluation.images.reader.files.UNPACKED_BYTES", 10**6)
    archive = tarred(tmp_path / "data.tar.gz", {"one.png": png()})
    archive.write_bytes(gzip.compress(gzip.decompress(archive.read_bytes()) + bytes(5 * 10**6)))
    refused("training", archive, "unpacks to")


def test_a_sparse_member_is_refused_unread(tmp_path: Path) -> None:
    """tar stores a hole of a terabyte in ten kilobytes."""
    (tmp_path / "one.png").touch()
    os.truncate(tmp_path / "one.png", 2**40)
    subprocess.run(["tar", "-S", "-cf", tmp_path / "data.tar", "-C", tmp_path, "one.png"], check=True)
    refused("training", tmp_path / "data.tar", "unpacks to")


def test_special_members_of_a_tar_are_passed_over(tmp_path: Path) -> None:
    archive = tmp_path / "data.tar"
    with tarfile.open(archive, "w") as written:
        for number, kind in enumerate((tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE)):
            member = tarfile.TarInfo(f"special{number}.png")
            member.type = kind
            written.addfile(member)
        member = tarfile.TarInfo("one.png")
        member.size = len(png())
        written.addfile(member, io.BytesIO(png()))
    assert read_for_training(archive) == 1


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_out_of_a_tar_are_refused(kind: bytes, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "data.tar", "w") as written:
        member = tarfile.TarInfo("special.png")
        member.type, member.linkname = kind, "/etc/passwd"
        written.addfile(member)
    refused("training", tmp_path / "data.tar", "which is not in the archive")


@pytest.mark.parametrize("count", [10**12, 2**62, -1])
def test_arrays_that_promise_too_much_are_refused(count: int, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "images.npz", "w") as archive, archive.open("images.npy", "w") as member:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, 8, 8, 3)}
        np.lib.format.write_array_header_1_0(member, header)
    refused("evaluation", tmp_path / "images.npz", "npz")


def test_an_npz_file_out_of_proportion_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluation.runtime.files.MAX_UNPACKED", (10**6, 100))
    np.savez_compressed(tmp_path / "images.npz", images=np.zeros((10_000, 8, 8, 3), np.uint8))
    refused("evaluation", tmp_path / "images.npz", "unpack to")


@pytest.mark.parametrize("label", [2**62, 2**20, -1])
def test_labels_without_end_are_refused(label: int, tmp_path: Path) -> None:
    """Every class up to the largest label gets a name: 2**62 would fill the memory."""
    np.savez(tmp_path / "images.npz", images=np.zeros((2, 8, 8, 3), np.uint8), labels=np.array([0, label]))
    refused("evaluation", tmp_path / "images.npz", str(label))
