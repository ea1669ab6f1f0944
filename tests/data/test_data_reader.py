"""Tests of the reader of training and evaluation: the same images and classes, by any path to them."""

import io
import itertools
import json
import os
import stat
import tarfile
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from evaluation import EvaluationError, Settings
from evaluation.folders import measure_folders
from evaluation.images.reader import Images, read_images
from gan.config import load_config
from gan.data import ImageData
from gan.data.folder import class_folders, load_splits
from gan.data.packed import pack
from gan.errors import DataError
from gan.measuring.gans import Evaluation

FRAMING = {"image_size": 32, "crop": 0, "resize": "none"}
NOISE = np.random.default_rng(0)
ROTATED = Image.Exif()
ROTATED[0x0112] = 6


def encode(kind: str, value: int) -> tuple[str, bytes]:
    """Returns the suffix and the bytes of a 32x32 image of noise in one of many formats."""
    noise = np.random.default_rng(value).integers(0, 256, (32, 32, 4), dtype=np.uint8)
    colour = Image.fromarray(np.ascontiguousarray(noise[..., :3]))
    image, suffix, options = {
        "rgb": (colour, ".png", {}),
        "exif": (colour, ".JPG", {"exif": ROTATED}),
        "grey": (colour.convert("L"), ".pgm", {"format": "PPM"}),
        "16 bits": (Image.fromarray(noise[..., 0].astype(np.uint16) * 257), ".png", {}),
        "alpha": (Image.fromarray(noise), ".png", {}),
        "palette": (colour.quantize(16), ".gif", {"transparency": 3}),
        "cmyk": (colour.convert("CMYK"), ".jpeg", {}),
        "ycbcr": (colour.convert("YCbCr"), ".tiff", {}),
        "bits": (colour.convert("1"), ".bmp", {}),
        "webp": (colour, ".webp", {"lossless": True, "exif": ROTATED}),
    }[kind]
    stream = io.BytesIO()
    image.save(stream, **{"format": Image.registered_extensions()[suffix.lower()], **options})
    return suffix, stream.getvalue()


KINDS = ("rgb", "exif", "grey", "16 bits", "alpha", "palette", "cmyk", "ycbcr", "bits", "webp")


def store(files: dict[str, bytes], root: Path) -> Path:
    """Writes files as the folder, .zip or .tar that the suffix names."""
    root.parent.mkdir(parents=True, exist_ok=True)
    if root.suffix == ".zip":
        with zipfile.ZipFile(root, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    elif root.suffix == ".tar":
        with tarfile.open(root, "w") as archive:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    else:
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return root


def archive(folder: Path, root: Path, name: str) -> Path:
    """Stores a folder, its links included, as `tar` and `zip -y` do; the members' names begin with `name`."""
    if root.suffix != ".zip":
        with tarfile.open(root, f"w:{root.suffix[1:].replace('tar', '')}") as stored:
            stored.add(folder, name)
        return root
    with zipfile.ZipFile(root, "w") as packed:
        for path in sorted(folder.rglob("*")):
            info = zipfile.ZipInfo("x")
            info.filename = f"{name}/{path.relative_to(folder)}"  # the constructor would change odd names
            info.external_attr = (stat.S_IFLNK if path.is_symlink() else stat.S_IFREG) << 16
            if path.is_symlink():
                packed.writestr(info, str(path.readlink()))
            elif path.is_file():
                packed.writestr(info, path.read_bytes())
    return root


def add_links(root: Path, one: str, other: str) -> None:
    """Adds a hard link, a link in the same and one from another folder, and a link to a link to files of a folder."""
    place, suffix = (root / one).parent, Path(other).suffix
    (place / f"hard{suffix}").hardlink_to(root / other)
    (place / f"soft{suffix}").symlink_to(os.path.relpath(root / other, place))
    (place / f"twice{suffix}").symlink_to(f"./soft{suffix}")
    (place / "itself").symlink_to(".")


def load(root: Path) -> dict[str, ImageData]:
    return load_splits(root=str(root), splits=(), download=False, **FRAMING)


LAYOUTS = {
    "plain": ["{}"],
    "classes": ["cat/{}", "töpfe/{}", unicodedata.normalize("NFD", "café") + "/{}"],
    "deep": ["a/{}", "a/x/y/{}", "b/2019/{}"],
    "splits": ["train/a/{}", "train/b/deep/{}", "test/b/{}", "test/a/{}"],
    "plain splits": ["Training/{}", "Testing/{}"],
    "enclosed": ["set-main/a/{}", "set-main/b/c/{}"],
    "a class called train": ["train/train/{}", "train/test/{}", "train/bus/{}"],
}
JUNK = {"README.md": b"x", "a/.hidden.png": b"x", "__MACOSX/a/1.png": b"x", "cat/Thumbs.db": b"x", "sha256.txt": b"x"}
JUNK |= {"LICENSES.txt": b"x", "NOTES_2.txt": b"x", "LICENSE-MIT.txt": b"x", "changes_v2.txt": b"x"}


@given(
    layout=st.sampled_from(list(LAYOUTS)),
    kinds=st.lists(st.sampled_from(KINDS), min_size=6, max_size=12),
    junk=st.booleans(),
    name=st.sampled_from(["set", "./set/", "../set", "/abs/set", ".hidden/set", "."]),
)
@settings(max_examples=8, phases=(Phase.explicit, Phase.generate))
def test_a_set_is_equal_to_itself_by_any_path(
    layout: str, kinds: list[str], junk: bool, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Training, evaluation and gan-eval read the same images, so the FID of any two paths to a set is 0."""
    places = itertools.cycle(LAYOUTS[layout])
    files = dict(JUNK) if junk and layout != "enclosed" else {}
    for number, kind in enumerate(kinds):
        suffix, content = encode(kind, number)
        files[next(places).format(f"{number}{suffix}")] = content
    folder = tmp_path_factory.mktemp("sets")
    roots = [store(files, folder / "set")]
    add_links(roots[0], *list(files)[-2:])
    name = "." if layout == "plain" else name  # a folder around images without classes is a class
    roots += [archive(roots[0], folder / f"set{kind}", name) for kind in (".zip", ".tar", ".gz", ".bz2", ".xz")]
    trained = load(roots[0])
    roots.append(pack(trained, folder / "packed", **FRAMING, overwrite=False))
    for root in roots:
        for split, data in trained.items():
            assert_equal(read_images(root, split), data)
    chosen = Settings(metrics="fid", extractor="pixels", num_real=0, num_fid=0, floor=False, cache=False)
    for one, other in itertools.pairwise([*roots, roots[0]]):
        assert measure_folders(one, other, None, "cpu", chosen).values == {"fid/pixels": 0}
    config = load_config("smoke", ["data.name=folder", f"data.root={roots[0]}", "eval.num_real=0", "eval.num_fid=0"])
    for root in roots:
        assert Evaluation(config, "cpu").of_folder(["fid"], root).values["fid/pixels"] == 0


def assert_equal(read: Images, data: ImageData) -> None:
    assert torch.equal(read.images, data.images)
    assert (read.class_names or ("images",)) == data.classes
    assert (data.labels * 0 if read.labels is None else read.labels).tolist() == data.labels.tolist()


def png(value: int = 0, size: int = 32) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (size, size), (value, value, value)).save(stream, "PNG")
    return stream.getvalue()


NAMES = ("00000/a.png", "00000/b.png", "00001/é.png")
LABELLED = {
    "numbers": ("dataset.json", {"labels": [["00000/a.png", 1], ["00000/b.png", 0], ["00001/é.png", 10]]}, [1, 0, 2]),
    "a mapping": ("dataset.json", {"labels": {"00000/a.png": 1, "00000\\b.png": 0, "./00001/é.png": 1}}, [1, 0, 1]),
    "no labels": ("dataset.json", {"labels": None}, None),
    "names": ("labels.csv", "00000/a.png,dog\n00000/b.png,cat\n00001/é.png,dog\n", [1, 0, 1]),
    "a header": ("labels.csv", "label,filename\r\n2,00000/a.png\r\n10,00000/b.png\r\n\r\n2,00001/é.png", [0, 1, 0]),
    "Kaggle": ("labels.csv", "id,breed\n00001/é,pug\n00000/a,corgi\n00000/b,pug", [0, 1, 1]),
    "fastai": ("labels.csv", "fname,labels\n00000/a.png,pug\n00000/b.png,corgi\n00001/é.png,pug", [1, 0, 1]),
    "no suffix, no header": ("labels.csv", "00000/a,7\n00000/b,10\n00001/é,7", [0, 1, 0]),
    "quotes and a mark": (
        "labels.csv",
        '\ufefffile,label\n"00000/a.png", "a, b"\n00000/b.png,c\n00001/é.png,c\n',
        [0, 1, 1],
    ),
}


@pytest.mark.parametrize("form", [".zip", ".tar", ""])
@pytest.mark.parametrize("enclosing", ["", "set/"])
@pytest.mark.parametrize("case", LABELLED)
def test_files_of_labels_are_read(case: str, enclosing: str, form: str, tmp_path: Path) -> None:
    name, content, labels = LABELLED[case]
    text = content if isinstance(content, str) else json.dumps(content)
    stored = {unicodedata.normalize("NFD", image): png(number) for number, image in enumerate(NAMES)}
    files = {enclosing + path: data for path, data in {name: text.encode(), **stored}.items()}
    root = store(files, tmp_path / f"set{form}")
    read = read_images(root)
    assert (None if read.labels is None else read.labels.tolist()) == labels
    assert read.images[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert_equal(read, load(root)["train"])


def test_labels_of_splits(tmp_path: Path) -> None:
    """One table for all images, or one in each split."""
    images = {"train/1.png": png(1), "train/2.png": png(2), "test/3.png": png(3)}
    whole = {"labels.csv": b"train/1.png,b\ntrain/2.png,a\ntest/3.png,b", **images}
    parts = {"train/labels.csv": b"1.png,b\n2.png,a", "test/labels.csv": b"3.png,b", **images}
    for number, files in enumerate((whole, parts)):
        found = load(store(files, tmp_path / f"{number}.zip"))
        assert [(data.labels.tolist(), data.classes) for data in found.values()] == [
            ([1, 0], ("a", "b")),
            ([1], ("a", "b")),
        ]


AB = {"a.png": png(), "b.png": png()}
REFUSED = {
    "a table of something": ({"annotations.csv": b"x"}, "annotations.csv: not understood; labels are read from class"),
    "labels as text": ({"labels.txt": b"a.png 1"}, "labels.txt: not understood"),
    "a caption": ({"a.txt": b"a cat"}, "a.txt: not understood"),
    "boxes": ({"a.xml": b"<object/>"}, "a.xml: not understood"),
    "Hugging Face": ({"metadata.jsonl": b"{}"}, "metadata.jsonl: not understood"),
    "COCO": ({"deep/_annotations.coco.json": b"{}"}, "_annotations.coco.json: not understood"),
    "statistics": ({"mean.npz": b"x"}, "mean.npz: not understood"),
    "labels in YAML": ({"labels.yaml": b"x"}, "labels.yaml: not understood"),
    "packed labels": ({"labels.csv.gz": b"x"}, "labels.csv.gz: not understood"),
    "records": ({"a.tfrecords": b"x"}, "a.tfrecords: not understood"),
    "tensors": ({"labels.pt": b"x"}, "labels.pt: not understood"),
    "a database": ({"labels.db": b"x"}, "labels.db: not understood"),
    "captions": ({"a.caption": b"x"}, "a.caption: not understood"),
    "like a licence": ({"license_plates.txt": b"x"}, "license_plates.txt: not understood"),
    "like a log": ({"logits.txt": b"x"}, "logits.txt: not understood"),
    "like changes": ({"change_labels.txt": b"x"}, "change_labels.txt: not understood"),
    "another format": ({"c.HEIC": b"x"}, "c.HEIC: an image of a format that is not read; convert it to PNG"),
    "vectors": ({"dataset.json": b'{"labels": [["a.png", [0, 1]]]}'}, "label 1: got [0, 1] for a.png, expected the"),
    "a true label": ({"dataset.json": b'{"labels": {"a.png": true}}'}, "got true for a.png"),
    "half a label": ({"dataset.json": b'{"labels": [["a.png"]]}'}, 'got ["a.png"], expected a pair [file, number]'),
    "two numbers": ({"dataset.json": b'{"labels": {"a.png": 1, "a.png": 2}}'}, "'a.png' occurs twice"),
    "other JSON": ({"dataset.json": b'{"images": []}'}, "dataset.json: not understood; labels are read from"),
    "no JSON": ({"dataset.json": b"{"}, "dataset.json: cannot be read as JSON"),
    "an unknown image": (
        {"labels.csv": b"a.png,1\nb.png,1\nc.png,2"},
        "labels.csv; remove it, or correct its path, which is relative to the file, such as a.png",
    ),
    "Kaggle's folder of training images": (
        {"labels.csv": b"id,breed\nc,1\nd,2", "train/c.jpg": png(), "train/d.jpg": png()},
        "row 2: there is no image 'c' beside labels.csv but train/c.jpg: move labels.csv into that folder, or correct",
    ),
    "an image left out": ({"labels.csv": b"a.png,1\n"}, "labels.csv has no label for b.png; add one"),
    "two rows": ({"labels.csv": b"a.png,1\na.png,2\nb.png,1"}, "row 2: a second label for a.png; remove one"),
    "semicolons": ({"labels.csv": b"a.png;1\nb.png;1"}, "row 1: got 1 column ("),
    "three columns": ({"labels.csv": b"file,label,split\na.png,1,train"}, "got 3 columns"),
    "no header where one is expected": ({"labels.csv": b"c,1\nb,2"}, "labels.csv has no label for a.png; add one"),
    "two images of a name": ({"labels.csv": b"a,1\nb,2", "b.jpg": png()}, "labels.csv has no label for b."),
    "another suffix": ({"labels.csv": b"id,label\na.jpg,1\nb.jpg,2"}, "row 2: there is no image 'a.jpg' beside labels"),
    "no label": ({"labels.csv": b"a.png,\nb.png,1"}, "row 1: no label for a.png"),
    "another encoding": ({"labels.csv": "a.png,ä\nb.png,1".encode("latin-1")}, "in UTF-8"),
    "a slash": ({"labels.csv": b"a.png,x/y\nb.png,1"}, "the class 'x/y' cannot be the name of a folder"),
    "two files of labels": (
        {"labels.csv": b"a.png,1\nb.png,1", "dataset.json": b'{"labels": {"a.png": 1, "b.png": 1}}'},
        "has a label in another file, too; keep one of labels.csv and dataset.json",
    ),
    "a packed set in an archive": (
        {"dataset.json": b'{"format": 1, "splits": {}}', "train-images.npy": b"x"},
        "train-images.npy: not understood",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_understood_is_refused(case: str, tmp_path: Path) -> None:
    files, says = REFUSED[case]
    root = store({**AB, **files}, tmp_path / "set.zip")
    with pytest.raises(EvaluationError) as evaluated:
        read_images(root)
    assert says in str(evaluated.value)
    assert "\n" not in str(evaluated.value)
    with pytest.raises(DataError) as trained:
        load(root)
    assert str(trained.value) == f"data.root: {evaluated.value}"


def test_names_that_differ_in_their_unicode_form_alone_are_refused(tmp_path: Path) -> None:
    forms = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]
    root = store({f"{form}/{number}.png": png() for number, form in enumerate(forms)}, tmp_path / "set")
    with pytest.raises(EvaluationError, match="has two class folders called 'café', in different Unicode forms"):
        read_images(root)


def test_the_split_is_chosen(tmp_path: Path) -> None:
    """The one named in the path, else the wanted one, else the only one; test images are never those of training."""
    root = store({"train/1.png": png(1), "test/2.png": png(2)}, tmp_path / "set.zip")
    only = store({"train/1.png": png(1)}, tmp_path / "only.tar")
    for path, wanted, value, split in [
        (root, "train", 1, "train"),
        (root, "test", 2, "test"),
        (f"{root}:test", "train", 2, "test"),
        (only, "test", 1, "train"),
        (f"{only}:train", "test", 1, "train"),
    ]:
        read = read_images(path, wanted)
        assert (read.images.max(), read.split) == (value, split)
    for path, strict, says in [
        (f"{root}:valid", False, "has no valid split, only train and test; name one of them, as in "),
        (only, True, f"only train; name one of them, as in {only}:train"),
        ("cifar10:train", False, "as in gan-eval --generated DIR --reference cifar10:train"),
    ]:
        with pytest.raises(EvaluationError, match=says):
            read_images(path, "test", strict=strict)
    with pytest.raises(EvaluationError, match="only train; name one of them"):  # the protocol compares with test images
        measure_folders(only, only, None, "cpu", Settings(metrics="fid", extractor="pixels", protocol="test10k"))


def test_packed_sets_in_other_places_are_named(tmp_path: Path) -> None:
    splits = load(store({"a/1.png": png(1), "b/2.png": png(2)}, tmp_path / "set"))
    packed = pack(splits, tmp_path / "outer" / "packed", **FRAMING, overwrite=False)
    archive = store({path.name: path.read_bytes() for path in packed.iterdir()}, tmp_path / "packed.zip")
    for root, says in ((packed.parent, "give the folder inside"), (archive, "unpack it and give the folder")):
        with pytest.raises(EvaluationError, match=f"holds a packed data set; {says}"):
            read_images(root)
    with pytest.raises(DataError, match="is a packed data set already; use it as it is"):
        load(packed)


def test_folders_that_are_linked_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store({"1.png": png(1)}, tmp_path / "elsewhere")
    for split in ("train", "test"):
        (tmp_path / "set").mkdir(exist_ok=True)
        (tmp_path / "set" / split).symlink_to(tmp_path / "elsewhere")
    assert {split: len(data) for split, data in load(tmp_path / "set").items()} == {"train": 1, "test": 1}
    monkeypatch.setattr("evaluation.images.reader.files.MAX_REVISITS", 20)
    for one, other in itertools.permutations("abcdefgh", 2):
        (tmp_path / "web" / one).mkdir(parents=True, exist_ok=True)
        (tmp_path / "web" / one / other).symlink_to(tmp_path / "web" / other)
    with pytest.raises(EvaluationError, match="the folders link to each other"):
        read_images(tmp_path / "web")


def test_links_in_archives(tmp_path: Path) -> None:
    """A folder and archives of it that store links hold the same images; links to missing files are refused."""
    root = store({"data/cat/1.png": png(1), "data/dog/2.png": png(2), "blobs/3": png(3)}, tmp_path / "set")
    (root / "data" / "cat" / "3.png").symlink_to("../../blobs/3")  # as huggingface_hub does
    (root / "all").symlink_to("data")
    (root / "data" / "dog" / "cats").symlink_to("../cat")
    for number, kind in enumerate((".zip", ".tar", ".gz", ".bz2", ".xz")):
        whole = archive(root, tmp_path / f"set{kind}", "./set")
        assert_equal(read_images(whole), load(root)["train"])
        assert len(read_images(whole).images) == 10
        part = archive(root / "data", tmp_path / f"part{number}{kind}", "data")
        with pytest.raises(EvaluationError, match=r"cats?/3\.png: a link to \.\./\.\./blobs/3, .* tar -h or with zip"):
            read_images(part)
    (root / "data" / "cat" / "4.png").symlink_to("gone.png")
    with pytest.raises(EvaluationError, match=r"4\.png: a link to gone\.png, which does not exist; remove the link"):
        read_images(root)


def test_names_of_members(tmp_path: Path) -> None:
    """The last of several members with one name counts; two names that are unpacked to one path are refused."""
    members = [("./s/0.png", png(1)), ("s/0.png", png(2)), ("s//1.png", png(3)), ("s/../s/0.png", png(4))]
    for kind in (".zip", ".tar"):
        odd = store(dict(members), tmp_path / f"odd{kind}")
        assert read_images(odd).images[:, 0, 0, 0].tolist() == [4, 3]
        outer = store({"../s/0.png": png(1), "s/1.png": png(2)}, tmp_path / f"outer{kind}")
        assert len(read_images(outer).images) == 2
        both = store({"../s/0.png": png(1), "s/0.png": png(2)}, tmp_path / f"both{kind}")
        with pytest.raises(EvaluationError, match=r"holds \.\./s/0\.png and s/0\.png, one file when unpacked; make"):
            read_images(both)


def test_hidden_images(tmp_path: Path) -> None:
    """Folders of storage devices are passed over; if all images are hidden, the message says so."""
    devices = ("cat/@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found", "__MACOSX", ".trash")
    files = {f"{folder}/1.png": png(2) for folder in devices}
    for kind in ("", ".zip", ".tar"):
        root = store({"cat/1.png": png(1), "dog/1.png": png(1), **files}, tmp_path / f"set{kind}")
        assert read_images(root).class_names == ("cat", "dog")
        hidden = store({**files, "README": b"x"}, tmp_path / f"hidden{kind}")
        with pytest.raises(EvaluationError, match=r"but 6 in hidden folders or with hidden names, such as #recycle"):
            read_images(hidden)


LOOKALIKES = {
    "CycleGAN": (["trainA", "trainB", "testA", "testB"], "trainA"),
    "COCO": (["train2017", "val2017"], "train2017"),
    "COCO and more": (["train2017", "test2017", "panoptic"], "train2017"),
    "ImageNet-64": (["train_64x64", "valid_64x64"], "train_64x64"),
    "Kaggle": (["train_images", "test_images"], "train_images"),
    "capitals": (["Training_Data", "Testing_Data"], "Training_Data"),
    "at the end": (["imgs-train", "imgs-test"], "imgs-train"),
    "one word": (["trainset", "testset"], "trainset"),
    "MVTec": (["bottle/train/good", "bottle/test/bad", "cable/train/good", "cable/test/bad"], "bottle/train"),
}


@pytest.mark.parametrize("case", LOOKALIKES)
def test_folders_that_look_like_splits_are_refused(case: str, tmp_path: Path) -> None:
    """Test images are never mixed in; both ways out that the message names work."""
    folders, one = LOOKALIKES[case]
    files = {f"{folder}/{number}.png": png(number) for number, folder in enumerate(folders)}
    root = store(files, tmp_path / "set")
    with pytest.raises(EvaluationError, match=rf"look like splits, .*; give {root}/{one}\. If .* put all folders into"):
        read_images(root)
    assert len(read_images(root / one).images) == 1
    with pytest.raises(EvaluationError, match=f"unpack it and give its folder {one}"):
        read_images(store(files, tmp_path / "set.zip"))
    inside = store({f"train/{path}": content for path, content in files.items()}, tmp_path / "inside")
    assert len(read_images(inside).images) == len(files)


@pytest.mark.parametrize(
    "names", [["trainer", "testudo"], ["training_shoes", "test_tube", "cat"], ["trainer", "test2"]]
)
def test_classes_that_are_called_almost_like_splits(names: list[str], tmp_path: Path) -> None:
    root = store({f"{name}/1.png": png() for name in names}, tmp_path / "set")
    assert read_images(root).class_names == tuple(sorted(names))
    assert [str(folder) for folder in class_folders(("trainA", "testA", "cat"))] == [
        "train/trainA",
        "train/testA",
        "train/cat",
    ]


def test_advice_about_splits(tmp_path: Path) -> None:
    """The folder that the message names can be read."""
    train = {"train/a/1.png": png(), "train/b/1.png": png()}
    for number, (more, says) in enumerate(
        (
            (["val/1.png", "val/2.png"], "such as train/a/1.png and val/1.png; give {}/train, or give all of them"),
            (
                ["unlabeled/1.png", "unlabeled/2.png"],
                "and 1 more are outside of it; give {}/train, or move the folder unl",
            ),
            (["dev/a/1.png", "eval/a/1.png"], "give {}/train, or move the folders dev/, eval/ away"),
        )
    ):
        root = store({**train, **dict.fromkeys(more, png())}, tmp_path / f"set{number}")
        with pytest.raises(EvaluationError) as refused:
            read_images(root)
        assert says.format(root) in str(refused.value)
        assert len(read_images(root / "train").images) == 2
    plain = store({"a/1.png": png(), "b/1.png": png()}, tmp_path / "plain")
    with pytest.raises(EvaluationError, match=f"is not divided into splits; give the folder {plain}/a"):
        read_images(f"{plain}:a")


def test_sizes_differ_or_are_resized(tmp_path: Path) -> None:
    """The resize is part of the protocol and applies to both sides, to `.npz` files as well."""
    root = store({"a.png": png(1, 40), "b.png": png(2, 32), "c.png": png(3, 20)}, tmp_path / "set.zip")
    np.savez(tmp_path / "set.npz", images=NOISE.integers(0, 256, (3, 40, 48, 3), dtype=np.uint8))
    chosen = {"metrics": "fid", "extractor": "pixels", "num_real": 0, "num_fid": 0, "floor": False, "cache": False}
    with pytest.raises(EvaluationError, match="settings resize and image_size"):
        measure_folders(root, root, None, "cpu", Settings(**chosen))
    hashes = set()
    for resize in ("box", "lanczos"):
        wanted = Settings(**chosen, resize=resize, image_size=24)
        report = measure_folders(root, root, None, "cpu", wanted)
        assert report.values["fid/pixels"] == 0
        entry = report.protocol["values"]["fid/pixels"]
        assert entry["fields"]["generation"]["resize"] == resize
        assert entry["fields"]["image_size"] == "24x24"
        hashes.add(entry["hash"])
        assert measure_folders(root, tmp_path / "set.npz", None, "cpu", wanted).values["fid/pixels"] > 0
    assert len(hashes) == 2
    for wrong, says in (({"resize": "box"}, "without image_size; set"), ({"image_size": 8}, "null without resize")):
        with pytest.raises(EvaluationError, match=says):
            measure_folders(root, root, None, "cpu", Settings(**chosen, **wrong))
