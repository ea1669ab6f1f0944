"""Tests of packed data sets: packing, memory mapping, damage, and the command."""

import importlib.util
import json
import subprocess
import sys
import tarfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from commands import done
from PIL import Image

from evaluation.images.reader import packed
from gan.data import Batches, ImageData, load_images, with_channels
from gan.data.packed import load_packed, pack, verify_packed
from gan.errors import DataError

TOOL = Path(__file__).parents[2] / "tools" / "prepare_dataset.py"
FRAMING = {"image_size": 8, "crop": 0, "resize": "none"}


def make(split: str = "train", count: int = 7) -> ImageData:
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return ImageData(images, torch.arange(count) % 2, ("a", "b"), "folder", split)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    splits = {"train": make(), "test": make("test", 3)}
    return pack(splits, tmp_path / "packed", **FRAMING, overwrite=False)


def read(folder: Path, split: str = "train", **changes) -> ImageData:
    return load_packed(folder, **{"name": "folder", "split": split, **FRAMING, **changes})


def test_comes_back_equal(folder: Path) -> None:
    for original in (make(), make("test", 3)):
        data = read(folder, original.split)
        assert torch.equal(data.images, original.images)
        assert torch.equal(data.labels, original.labels)
        assert (data.classes, data.name, data.split) == (original.classes, original.name, original.split)
        assert data.fingerprint == original.fingerprint


def test_files_are_the_documented_ones(folder: Path) -> None:
    names = ["dataset.json", "test-images.npy", "test-labels.npy", "train-images.npy", "train-labels.npy"]
    assert sorted(path.name for path in folder.iterdir()) == names
    manifest = json.loads((folder / "dataset.json").read_text())
    assert manifest == {
        "format": 1,
        "name": "folder",
        "classes": ["a", "b"],
        "image_size": 8,
        "crop": 0,
        "resize": "none",
        "splits": {
            split: {
                "count": count,
                "images": f"{split}-images.npy",
                "labels": f"{split}-labels.npy",
                "fingerprint": make(split, count).fingerprint,
            }
            for split, count in (("train", 7), ("test", 3))
        },
    }
    assert np.array_equal(np.load(folder / "train-images.npy"), make().images.numpy())


def test_is_mapped_and_writing_to_it_does_not_reach_the_file(folder: Path) -> None:
    before = (folder / "train-images.npy").read_bytes()
    data = read(folder)
    data.images.zero_()
    assert (folder / "train-images.npy").read_bytes() == before


def test_the_fingerprint_is_stored_not_computed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "VERIFIED_BYTES", 0)
    for module in ("gan.data.image_data", "evaluation.images.reader.packed"):
        monkeypatch.setattr(f"{module}.compute_fingerprint", lambda *_: pytest.fail("computed"))
    assert (
        read(folder).fingerprint == json.loads((folder / "dataset.json").read_text())["splits"]["train"]["fingerprint"]
    )


def test_batches_from_the_map_equal_those_from_memory(folder: Path) -> None:
    mapped = Batches(read(folder), 5, seed=0, device="cpu", resident_bytes=0)
    memory = Batches(make(), 5, seed=0, device="cpu")
    for k in range(4):
        assert torch.equal(mapped.batch(k)[0], memory.batch(k)[0])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "cifar10"}, "packed with data.name=folder, but data.name is cifar10; set data.name=folder"),
        ({"image_size": 64}, "packed with data.image_size=8, but data.image_size is 64"),
        ({"crop": 4}, "packed with data.crop=0, but data.crop is 4"),
        ({"resize": "box"}, "packed with data.resize=none, but data.resize is box"),
        ({"split": "valid"}, "packed without a valid split, only train, test; pack the data again with it"),
    ],
)
def test_what_does_not_fit_is_named(folder: Path, changes: dict, says: str) -> None:
    with pytest.raises(DataError) as error:
        read(folder, **changes)
    assert says in str(error.value)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize("name", ["train-images.npy", "train-labels.npy"])
def test_truncated_at_any_length(folder: Path, name: str) -> None:
    whole = (folder / name).read_bytes()
    for end in range(0, len(whole), max(1, len(whole) // 40)):
        (folder / name).write_bytes(whole[:end])
        with pytest.raises(DataError, match=name):
            read(folder)


@pytest.mark.parametrize("name", ["train-images.npy", "train-labels.npy"])
def test_any_changed_byte_of_the_data_is_noticed(folder: Path, name: str) -> None:
    whole = (folder / name).read_bytes()
    for position in range(128, len(whole), max(1, len(whole) // 40)):
        (folder / name).write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(DataError):
            read(folder)
        with pytest.raises(DataError):
            verify_packed(folder)


def test_a_changed_byte_of_the_header_is_noticed_or_harmless(folder: Path) -> None:
    path = folder / "train-images.npy"
    whole = path.read_bytes()
    for position in range(0, 128, 3):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 3]) + whole[position + 1 :])
        with suppress(DataError):
            assert torch.equal(read(folder).images, make().images), position


def test_foreign_arrays(folder: Path) -> None:
    np.save(folder / "train-images.npy", np.zeros((7, 3, 8, 8)))
    with pytest.raises(DataError, match=r"train-images\.npy does not hold uint8 \(7, 3, 8, 8\)"):
        read(folder)
    np.save(folder / "train-images.npy", np.zeros((8, 3, 8, 8), np.uint8))
    with pytest.raises(DataError, match=r"does not hold uint8 \(7, 3, 8, 8\)"):
        read(folder)
    np.save(folder / "train-images.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"cannot read .*train-images\.npy"):
        read(folder)
    (folder / "train-images.npy").unlink()
    with pytest.raises(DataError, match=r"cannot read .*train-images\.npy"):
        read(folder)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        "{}",
        '{"format": 1}',
        "\xff",
        '{"format": 1, "name": 3, "classes": [], "image_size": 8, "crop": 0, "resize": "none", "splits": {}}',
        '{"format": 1, "name": "folder", "classes": ["a"], "image_size": 8, "crop": 0, "resize": "none", "splits": {}}',
        '{"format": 1, "name": "folder", "classes": ["a"], "image_size": 8, "crop": 0, "resize": "none", '
        '"splits": {"train": 3}}',
        '{"format": 1, "name": "folder", "classes": ["a"], "image_size": 8, "crop": 0, "resize": "none", '
        '"splits": {"train": {"count": 1, "images": "../x.npy", "labels": "y.npy", "fingerprint": "z"}}}',
    ],
)
def test_damaged_manifest(folder: Path, text: str) -> None:
    (folder / "dataset.json").write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=r"dataset\.json.*; pack the data again$"):
        read(folder)


def test_a_later_format_is_refused(folder: Path) -> None:
    manifest = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**manifest, "format": 2}))
    with pytest.raises(DataError, match="has format 2, this version reads 1"):
        read(folder)


def test_an_existing_output_is_refused_or_replaced(folder: Path) -> None:
    with pytest.raises(DataError, match=r"packed exists; choose another folder or replace it with --overwrite"):
        pack({"train": make(count=5)}, folder, **FRAMING, overwrite=False)
    assert len(read(folder)) == 7
    pack({"train": make(count=5)}, folder, **FRAMING, overwrite=True)
    assert len(read(folder)) == 5
    assert sorted(path.name for path in folder.parent.iterdir()) == ["packed"]
    assert len(list(folder.iterdir())) == 3


def test_overwrite_never_removes_other_files(folder: Path, tmp_path: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("mine")
    for target in (folder, other, other / "thesis.tex"):
        with pytest.raises(DataError, match="holds other files than a packed data set, so it is not replaced"):
            pack({"train": make()}, target, **FRAMING, overwrite=True)
    assert (folder / "notes.txt").read_text() == (other / "thesis.tex").read_text() == "mine"


@pytest.mark.parametrize("failing", ["save", "rename"])
def test_a_failure_leaves_what_was_there(folder: Path, failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    original = Path.rename
    if failing == "save":
        monkeypatch.setattr(np, "save", full)
    else:
        monkeypatch.setattr(Path, "rename", lambda a, b: full() if "partial" in a.name else original(a, b))
    with pytest.raises(OSError, match="No space left"):
        pack({"train": make(count=5)}, folder, **FRAMING, overwrite=True)
    assert len(read(folder)) == 7
    assert [path.name for path in folder.parent.iterdir()] == ["packed"]


def test_verify(folder: Path, tmp_path: Path) -> None:
    assert {split: len(data) for split, data in verify_packed(folder).items()} == {"train": 7, "test": 3}
    with pytest.raises(DataError, match=r"is not a packed data set: it has no dataset\.json"):
        verify_packed(tmp_path)


# The command


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("prepare_dataset", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Archive of two classes with five training and two test images of 8x8."""
    path = tmp_path / "images.tar.xz"
    with tarfile.open(path, "w:xz") as tar:
        for i, name in enumerate(
            ["train/a/0", "train/a/1", "train/b/2", "train/b/3", "train/b/4", "test/a/5", "test/b/6"]
        ):
            Image.new("RGB", (8, 8), (i, i, i)).save(tmp_path / "image.png")
            tar.add(tmp_path / "image.png", f"{name}.png")
    return path


def run(tool, *arguments: object) -> Result:
    return CliRunner().invoke(tool.main, [str(argument) for argument in arguments])


def test_command_packs_what_load_images_reads(tool, archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "data" / "small"
    result = done(run(tool, "--data", "folder", "--root", archive, "--out", out, "--image-size", 8))
    settings = {**FRAMING, "download": False}
    for split, count in (("train", 5), ("test", 2)):
        data = load_images("folder", root=str(out), split=split, **settings)
        direct = load_images("folder", root=str(archive), split=split, **settings)
        assert torch.equal(data.images, direct.images)
        assert data.fingerprint == direct.fingerprint
        assert f"{split}: {count} images of 2 classes, fingerprint {data.fingerprint}" in result.output
    check = done(run(tool, "--check", out))
    assert f"train: 5 images, fingerprint {direct.fingerprint}"[:16] in check.output


def test_command_packs_drawn_images(tool, tmp_path: Path) -> None:
    done(run(tool, "--data", "shapes", "--split", "test", "--out", tmp_path / "shapes", "--image-size", 16))
    settings = {"image_size": 16, "crop": 0, "resize": "none", "download": False}
    data = load_images("shapes", root=str(tmp_path / "shapes"), split="test", **settings)
    assert torch.equal(data.images, load_images("shapes", root="", split="test", **settings).images)


def test_command_overwrites_only_when_told(tool, archive: Path, tmp_path: Path) -> None:
    arguments = ["--root", archive, "--out", tmp_path / "out", "--image-size", 8]
    done(run(tool, *arguments))
    refused = run(tool, *arguments)
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert "exists; choose another folder or replace it with --overwrite" in refused.stderr
    done(run(tool, *arguments, "--overwrite"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"--root": "gone"}, "gone does not exist"),
        ({"--image-size": 32}, "8x8 pixels, expected 32x32"),
        ({"--split": "dev"}, "no dev split"),
        ({"--data": "cifar10"}, "no complete cifar10"),
        ({"--check": "gone"}, "gone is not a packed data set"),
        ({"--out": "a.zip"}, "a packed data set is a folder; name one, or add --labels csv"),
        ({"--out": "a.tar.gz", "--labels": "csv"}, "an archive is written as .zip; name one, or a folder"),
        ({"--data": "celeba", "--labels": "csv", "--split": "all"}, "--split: got all with --labels, expected one of"),
    ],
)
def test_command_errors_are_one_sentence(tool, archive: Path, tmp_path: Path, changes: dict, says: str) -> None:
    options = {"--root": archive, "--out": tmp_path / "out", "--image-size": 8, **changes}
    result = run(tool, *(part for option in options.items() for part in option))
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_command_reports_a_full_disk(tool, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    result = run(tool, "--root", archive, "--out", tmp_path / "out", "--image-size", 8)
    assert (result.exit_code, result.stderr) == (2, "error: [Errno 28] No space left on device\n")


def test_command_as_typed() -> None:
    done = subprocess.run([sys.executable, TOOL, "--help"], capture_output=True, text=True, cwd=TOOL.parents[1])
    assert done.returncode == 0, done.stderr
    assert "python tools/prepare_dataset.py --data folder --root" in done.stdout


def test_command_writes_files_with_labels_that_are_read_back(tool, archive: Path, tmp_path: Path) -> None:
    """Writing, reading and packing what was written keep images, classes and order, in grey and in RGB."""
    read_as = {"root": str(archive), "image_size": 8, "crop": 0, "resize": "none", "download": False}
    for labels, out, channels in (("csv", "a.zip", 1), ("json", "b.zip", 3), ("csv", "folder", 3), ("json", "grey", 1)):
        place = tmp_path / out
        arguments = ["--image-size", 8, "--channels", channels]
        written = done(run(tool, "--root", archive, "--out", place, "--labels", labels, *arguments))
        assert f"--set data.root={place} --set data.image_size=8" in written.output
        packed_at = tmp_path / f"{out}-packed"
        done(run(tool, "--root", place, "--out", packed_at, *arguments))
        for split in ("train", "test"):
            direct = load_images("folder", split=split, channels=channels, **read_as)
            assert direct.images.shape[1] == channels
            for root in (place, packed_at):
                found = load_images("folder", split=split, channels=channels, **{**read_as, "root": str(root)})
                assert found.fingerprint == direct.fingerprint
                assert found.classes == (("a", "b") if labels == "csv" else ("0", "1"))
        again = run(tool, "--root", archive, "--out", place, "--labels", labels, *arguments)
        assert (again.exit_code, "choose another name" in again.stderr) == (2, True)


@pytest.mark.parametrize(
    ("labels", "folders", "numbers", "classes"),
    [
        ("csv", ["0", "1", "10", "2"], None, ("0", "1", "2", "10")),
        ("json", ["0", "1", "10", "2"], [0, 1, 10, 2], ("0", "1", "2", "10")),
        ("json", ["01", "1", "10"], [0, 1, 2], ("0", "1", "2")),
    ],
)
def test_numbers_of_classes_are_kept(tool, tmp_path: Path, labels, folders, numbers, classes) -> None:
    """Class folders that are called by numbers; the printed fingerprint is that of the files written."""
    for value, folder in enumerate(folders):
        (tmp_path / "set" / folder).mkdir(parents=True)
        Image.new("L", (8, 8), value).save(tmp_path / "set" / folder / "1.png")
    out = tmp_path / "out"
    written = done(run(tool, "--root", tmp_path / "set", "--out", out, "--image-size", 8, "--labels", labels))
    found = load_images("folder", root=str(out), split="train", download=False, **FRAMING)
    assert found.fingerprint in written.output
    assert found.classes == classes
    assert found.images[:, 0, 0, 0].tolist() == list(range(len(folders)))
    if numbers:
        assert [label for _, label in json.loads((out / "dataset.json").read_text())["labels"]] == numbers
    else:
        assert [found.classes[label] for label in found.labels] == folders


def test_files_of_one_class(tool, tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    Image.new("L", (8, 8), 7).save(tmp_path / "flat" / "1.png")
    for labels in ("csv", "json"):
        done(
            run(
                tool,
                "--root",
                tmp_path / "flat",
                "--out",
                tmp_path / f"{labels}.zip",
                "--image-size",
                8,
                "--labels",
                labels,
            )
        )
        found = load_images("folder", root=str(tmp_path / f"{labels}.zip"), split="train", download=False, **FRAMING)
        assert (found.num_classes, found.images.unique().tolist()) == (1, [7])


def test_packed_grey_images(tmp_path: Path) -> None:
    grey = with_channels(make(), 1)
    folder = pack({"train": grey}, tmp_path / "grey", **FRAMING, overwrite=False)
    data = read(folder, channels=1)
    assert (data.fingerprint, data.image_channels) == (grey.fingerprint, 1)
    with pytest.raises(DataError, match=r"packed with data\.channels=1, but data\.channels is 3; set data\.channels=1"):
        read(folder)
