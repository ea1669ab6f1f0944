"""Tests of hostile checkpoints, statistics, caches, records and reports: no code is run, damage is a one-line error."""

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from evaluation.errors import EvaluationError
from evaluation.extractors.classifier import _read as read_classifier
from evaluation.extractors.inception import _check_weights
from evaluation.images.cache import Cache
from evaluation.images.reader import read_images
from evaluation.metrics.neural_divergence.unfinished import Unfinished
from evaluation.reporting.compare_folders import compare_folders
from evaluation.reporting.plots import read_curves
from evaluation.reporting.report import Report
from evaluation.reporting.value import Value
from evaluation.statistics.moments_file import read_statistics
from gan import build
from gan.config import load_config
from gan.data.packed import load_packed
from gan.errors import CheckpointError, DataError, UserError
from gan.normalization import LayerSpectrum
from gan.runs.best import read_best
from gan.runs.checkpoint import read_checkpoint, save_checkpoint
from gan.runs.finding import identity_of
from gan.runs.logger import Logger
from gan.sample import main as gan_sample


class Touch:
    """Object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, int]]:
        return os.mkdir, (str(self.path), 0o755)


def torch_file(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def array_file(content: object, path: Path) -> Path:
    np.savez(path, mu=np.array([content], dtype=object), images=np.array([content], dtype=object))
    return path


def packed_folder(content: object, path: Path) -> Path:
    path.mkdir()
    split = {"count": 1, "images": "train-images.npy", "labels": "train-labels.npy", "fingerprint": "x"}
    manifest = {"format": 1, "name": "shapes", "classes": ["a"], "image_size": 32, "crop": 0, "resize": "none"}
    (path / "dataset.json").write_text(json.dumps({**manifest, "splits": {"train": split}}))
    for name in ("images", "labels"):
        np.save(path / f"train-{name}.npy", np.array([content], dtype=object), allow_pickle=True)
    return path


def cache_file(content: object, path: Path) -> Path:
    Cache(path).write({}, {"x": np.zeros(3)})
    array_file(content, next(path.iterdir()))
    return path


def report_folder(content: object, path: Path) -> Path:
    some_report().save(path)
    array_file(content, path / "arrays.npz")
    return path


def read_unfinished(path: Path) -> object:
    unfinished = Unfinished(path.parent, {})
    assert unfinished.file is not None
    path.rename(unfinished.file)
    return unfinished.read()


def read_packed(path: Path) -> object:
    return load_packed(path, name="shapes", split="train", image_size=32, crop=0, resize="none")


Write = Callable[[object, Path], Path]
READERS: dict[str, tuple[Write, str, Callable[[Path], object], str]] = {
    "a checkpoint": (torch_file, "step-00000001.pt", read_checkpoint, "checkpoint"),
    "a classifier": (torch_file, "c.pt", lambda path: read_classifier(path, "key", 2), ""),
    "unfinished critics": (torch_file, "u.pt", read_unfinished, ""),
    "Inception's weights": (torch_file, "i.pth", _check_weights, "Inception weights"),
    "a cache": (cache_file, "cache", lambda path: Cache(path).read({}), ""),
    "statistics": (array_file, "s.npz", read_statistics, "statistics"),
    "images": (array_file, "i.npz", read_images, "images"),
    "packed images": (packed_folder, "packed", read_packed, "pack the data again"),
    "arrays of a report": (report_folder, "report", Report.load, "damaged"),
}


@pytest.mark.parametrize("kind", READERS)
def test_no_reader_runs_code(kind: str, tmp_path: Path) -> None:
    write, name, read, says = READERS[kind]
    touched = tmp_path / "touched"
    file = write({"format": 1, "config": {}, "state": Touch(touched), "key": "key"}, tmp_path / name)
    if says:
        with pytest.raises((UserError, EvaluationError), match=says) as error:
            read(file)
        assert "\n" not in str(error.value)
    else:
        assert read(file) is None
    assert not touched.exists()
    pickle.loads(pickle.dumps(Touch(touched)))  # the payload would have worked
    assert touched.exists()


@pytest.mark.parametrize("kind", [kind for kind, (write, *_) in READERS.items() if write is torch_file])
@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"\x80\x02cos\nsystem\n", b"\x80\x04\x95\xff\xff\xff\xff.", b"(" * 9999]
)
def test_bytes_that_are_no_tensors_are_refused(kind: str, content: bytes, tmp_path: Path) -> None:
    _, name, read, says = READERS[kind]
    (tmp_path / name).write_bytes(content)
    if says:
        with pytest.raises((UserError, EvaluationError), match=says):
            read(tmp_path / name)
    else:
        assert read(tmp_path / name) is None


@pytest.fixture(scope="module")
def state() -> dict[str, Any]:
    config = load_config("smoke", ["data.name=shapes", "conditional=true"])
    made = build.build_state(config)
    made.class_names = tuple("abcdefghijklmnopqrstuvwxyz"[: made.num_classes])
    return {"config": config.model_dump(), "state": made.state_dict()}


ODD = [None, -1, "x", [[]], {"state": 3}, torch.zeros(3)]


def test_entries_of_another_kind_are_refused(state: dict[str, Any], tmp_path: Path) -> None:
    """Replaces every entry of a checkpoint's state by every odd value: it loads unchanged or with a one-line error."""
    for name in state["state"]:
        for value in ODD:
            file = save_checkpoint(tmp_path, state["config"], {**state["state"], "step": 1}, keep_last=1)
            stored = torch.load(file)
            stored["state"][name] = value
            torch.save(stored, file)
            try:
                network = build.load_generator(file)
            except CheckpointError as error:
                assert "\n" not in str(error)  # noqa: PT017  either outcome is right
            else:
                assert sum(parameter.numel() for parameter in network.parameters())


def changed(state: dict[str, Any], part: str, change: Callable[[Any], Any]) -> dict[str, Any]:
    content = dict(state["state"])
    content[part] = change(content[part])
    return content


CHANGES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "another dtype": ("generator", lambda weights: {name: weight.double() for name, weight in weights.items()}),
    "another shape": ("discriminator", lambda weights: {name: weight[None] for name, weight in weights.items()}),
    "names of folders above": ("class_names", lambda names: ["../../../evil", *names[1:]]),
    "absolute names": ("class_names", lambda names: ["/", *names[1:]]),
    "too few names": ("class_names", lambda names: names[1:]),
    "a step before the first": ("step", lambda step: -1),
    "totals of another kind": ("totals", lambda totals: totals.float()),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_checkpoint_that_would_be_converted_is_refused(case: str, state: dict[str, Any], tmp_path: Path) -> None:
    part, change = CHANGES[case]
    (tmp_path / "run").mkdir()
    file = save_checkpoint(tmp_path / "run", state["config"], {**state["state"], "step": 1}, keep_last=1)
    stored = torch.load(file)
    stored["state"] = changed(stored, part, change)
    torch.save(stored, file)
    with pytest.raises(CheckpointError, match=rf"does not fit its configuration: (state\.)?{part}"):
        build.load_generator(file)
    result = CliRunner().invoke(gan_sample, ["--checkpoint", str(file), "--out", str(tmp_path / "out"), "--num", "1"])
    assert result.exit_code == 2, result.output
    assert not (tmp_path / "out").exists()


def test_moments_of_another_shape_are_refused(state: dict[str, Any], tmp_path: Path) -> None:
    """torch loads them, and fails or broadcasts them in the first step."""
    config = load_config("smoke", ["data.name=shapes"])
    made = build.build_state(config)
    for parameter in made.generator.parameters():
        parameter.grad = torch.zeros_like(parameter)
    made.g_optimizer.step()
    content = made.state_dict()
    content["g_optimizer"]["state"][0]["exp_avg"] = torch.zeros(1)
    file = save_checkpoint(tmp_path, config.model_dump(), content, keep_last=1)
    with pytest.raises(CheckpointError, match=r"g_optimizer\.0\.exp_avg: got torch\.float32 \(1,\)"):
        build.load_generator(file)


def test_a_compressed_checkpoint_is_refused_unread(state: dict[str, Any], tmp_path: Path) -> None:
    """torch stores without compression; checking the checksum of a terabyte of zeros would unpack it."""
    file = save_checkpoint(tmp_path, state["config"], state["state"], keep_last=1)
    with zipfile.ZipFile(file) as stored:
        members = {name: stored.read(name) for name in stored.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    with pytest.raises(CheckpointError, match="compressed"):
        read_checkpoint(file)


NONSENSE = [
    "",
    "[" * 100_000,
    "[]",
    "3",
    '"x"',
    "{}",
    '{"schema": ' + "9" * 5000 + "}",
    '{"format": 1, "step": [], "identity": []}',
]


@pytest.mark.parametrize("text", NONSENSE, ids=range(len(NONSENSE)))
def test_json_that_says_something_else(text: str, tmp_path: Path) -> None:
    for name in ("best.json", "run.json", "metrics.jsonl", "dataset.json", "report.json"):
        (tmp_path / name).write_text(text)
    assert read_best(tmp_path) is None
    assert identity_of(tmp_path) in ("", "[]")
    for read, error in ((read_packed, DataError), (Report.load, EvaluationError)):
        with pytest.raises(error) as caught:
            read(tmp_path)
        assert len(str(caught.value)) < 1000
    with pytest.raises(EvaluationError, match="curve"):
        read_curves(tmp_path / "metrics.jsonl")
    Logger(tmp_path, steps=1, images_per_step=1, first_step=1).close()


def test_numbers_beyond_floats_are_no_curve(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text(
        '{"step": 1, "d_loss": 1' + "0" * 400 + '}\n{"step": 2, "d_loss": 1e999}\n{"step": 3, "d_loss": 0.5}\n'
    )
    assert read_curves(file)["d_loss"][1].tolist() == [0.5]


def some_report(title: str = "x", names: tuple[str, ...] = ("a", "b"), label: str = "x") -> Report:
    value = Value("fid", 1.0, None, 2, "lower", {"seed": 0})
    arrays = {"samples": np.zeros((2, 3, 8, 8), np.uint8), "sample_labels": np.array([0, 1])}
    subject = {"generated": label}
    return Report.of([value], arrays=arrays, title=title, subject=subject, machine={}, class_names=names)


KEYS = ["title", "subject", "machine", "class_names", "neighbours", "values", "schema"]
ENTRY = ["value", "std", "interval", "count", "better", "hash", "fields", "record"]
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.just(10**400), st.floats(), st.text(max_size=5)),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*ENTRY, "step", "time"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.sampled_from(KEYS), st.sampled_from(["", *ENTRY]), JSON)
def test_changed_reports_are_compared_or_refused(
    tmp_path_factory: pytest.TempPathFactory, key: str, entry: str, value: Any
) -> None:
    folder = tmp_path_factory.getbasetemp() / "compared"
    if not folder.exists():
        for name in ("one", "two"):
            some_report().save(folder / name)
    file = folder / "two" / "report.json"
    document = json.loads((folder / "one" / "report.json").read_text())
    if key == "values" and entry:
        document["values"]["fid"][entry] = value
    else:
        document[key] = value
    file.write_text(json.dumps(document))
    try:
        comparison = compare_folders([folder / "one", folder / "two"])
    except EvaluationError as error:
        assert "\n" not in str(error)  # noqa: PT017  either outcome is right
    else:
        assert comparison.table()
        assert comparison.markdown()


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("samples", np.zeros(3)),
        ("samples", np.zeros((0, 3, 4, 4), np.uint8)),
        ("samples", np.array("x")),
        ("sample_labels", np.array([-5, 2])),
        ("sample_labels", np.array([0, 2**62])),
        ("sample_labels", np.array([0.5, 1])),
        ("elhist/real_fake/ratio", np.array(["x"])),
    ],
)
def test_arrays_of_another_kind_are_refused(name: str, array: np.ndarray, tmp_path: Path) -> None:
    report = some_report()
    report.save(tmp_path)
    np.savez(tmp_path / "arrays.npz", **{**report.arrays, name.replace("/", "|"): array})  # type: ignore[arg-type]
    with pytest.raises(EvaluationError, match="damaged"):
        Report.load(tmp_path)


class Tags(HTMLParser):
    """Names and attributes of all elements of a page, and whether each is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in ("img", "link", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def tags_of(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    tags.close()
    assert not tags.open
    return tags


NAMES = [
    "<script>alert(1)</script>",
    "\"' onload=x <img src=x>",
    "$\\frac$",
    "../../x",
    "日本",
    "_x",
    "a|b",
    "x" * 300,
    "\udcff",
    "&amp;",
]


@pytest.mark.filterwarnings("ignore:Glyph")  # matplotlib's font has no Japanese letters
@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_break_no_page_and_leave_no_folder(name: str, tmp_path: Path) -> None:
    """A hostile title, class or subject adds no element to the page and no file elsewhere."""
    plain, odd = tmp_path / "plain", tmp_path / "inside" / "odd"
    some_report().save(plain)
    some_report(name, (name, "b"), name).save(odd)
    expected, found = (tags_of((folder / "report.html").read_text()) for folder in (plain, odd))
    assert found.found == expected.found
    assert found.attributes == expected.attributes
    assert {path.name for path in odd.iterdir()} == {path.name for path in plain.iterdir()}
    assert {path.name for path in tmp_path.iterdir()} == {"plain", "inside"}
    again = Report.load(odd)
    assert again.protocol["class_names"][0] == name
    compare_folders([plain, odd], tmp_path / "inside" / "compared")
    assert {path.name for path in tmp_path.iterdir()} == {"plain", "inside"}


@pytest.mark.parametrize("name", ["../../x", "a/b", "日本", "a b\n<b>", "x" * 3000, "."])
def test_tags_of_tensorboard_leave_no_folder(name: str, tmp_path: Path) -> None:
    spectrum = LayerSpectrum(name, 1.0, 1.0, None, False, 1.0, 1.0)
    (tmp_path / "run").mkdir()
    logger = Logger(tmp_path / "run", steps=1, images_per_step=1, first_step=0)
    logger.layers(0, [spectrum])
    logger.metrics(1, {name: 1.0}, {name: np.ones(3)})
    logger.close()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert {path.name.split(".")[0] for path in (tmp_path / "run").iterdir()} == {"metrics", "events"}


@pytest.mark.parametrize("entry", [{"step": "x"}, {"value": "x"}, {"value": None}, {"key": 3}, {"checkpoint": []}])
def test_a_record_of_another_kind_is_no_best(entry: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best-00000001.pt").touch()
    record = {"checkpoint": "best-00000001.pt", "step": 1, "key": "fid", "value": 1.5, "better": "lower"}
    record |= {"hash": "x", "fields": {}, "std": None}
    (tmp_path / "best.json").write_text(json.dumps(record))
    assert read_best(tmp_path) == record
    (tmp_path / "best.json").write_text(json.dumps({**record, **entry}))
    assert read_best(tmp_path) is None
