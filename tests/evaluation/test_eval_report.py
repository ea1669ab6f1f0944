"""Tests of report.json, older and newer schemas, and of the terminal table."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from evaluation import EvaluationError, Report
from evaluation.reporting.document import SCHEMA
from evaluation.reporting.names import plain_names
from evaluation.reporting.tables import class_table, interval_text, markdown_table, text_table, with_spread
from evaluation.reporting.value import Value

DOCS = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
PUBLISHED = sorted(file.parent for file in (DOCS.parent / "results").glob("*/report.json"))


def a_report(*values: Value) -> Report:
    made = values or (
        Value("fid/classifier-1a2b3c4d", 19.57, None, 5_000, "lower", {"n": 1}, interval=(19.1, float("inf"))),
        Value("nd_short/gulrajani2019/softplus_fake", 0.0008366, 0.0007272, 1_000_000, "higher", {}, {"note": "short"}),
        Value("elhist/real_fake/p95", 0.36, None, 2_000, "", {}, {"note": "short"}),
    )
    return Report.of(
        made,
        arrays={"samples": np.zeros((2, 3, 4, 4), np.uint8)},
        title="drawn",
        subject={"step": 3},
        machine={"extractors": [], "time": "2026-01-01T00:00:00Z"},
        class_names=("cat", "dog"),
        neighbours={"features": "inception", "num_reference": 7, "reference": "", "median_ratio": None},
    )


def test_everything_survives_saving(tmp_path: Path):
    report = a_report()
    again = Report.load(report.save(tmp_path))
    assert again.values == report.values
    assert again.protocol == json.loads(json.dumps(report.protocol))
    assert again.protocol["values"]["fid/classifier-1a2b3c4d"]["interval"] == [19.1, float("inf")]
    assert again.table() == report.table()


def test_a_file_names_its_schema_and_is_as_documented(tmp_path: Path):
    document = json.loads((a_report().save(tmp_path) / "report.json").read_text())
    assert document["schema"] == SCHEMA == 2
    documented = DOCS.read_text().partition("### report.json")[2].partition("\n#")[0]
    names = re.findall(r"^\| `([\w.]+)` \|", documented, re.MULTILINE)
    entry = next(iter(document["values"].values()))
    assert set(names) == set(document) | {f"values.{name}" for name in entry}


def test_schema_1_is_read(tmp_path: Path):
    folder = a_report().save(tmp_path)
    document = json.loads((folder / "report.json").read_text())
    document["schema"] = 1
    document["machine"]["extractor"] = {"name": "inception"}
    for part in ("class_names", "neighbours"):
        del document[part]
    del document["machine"]["extractors"]
    for entry in document["values"].values():
        del entry["interval"]
    (folder / "report.json").write_text(json.dumps(document))
    report = Report.load(folder)
    assert report.protocol["machine"]["extractors"] == [{"name": "inception"}]
    assert report.protocol["class_names"] == []
    assert all(entry["interval"] is None for entry in report.protocol["values"].values())
    assert Report.load(report.save(tmp_path / "again")).protocol == report.protocol


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_published_reports_are_read(folder: Path):
    report = Report.load(folder)
    assert report.values
    assert report.table()


@pytest.mark.parametrize("schema", [0, 3, "2", None])
def test_other_schemas_are_refused(schema: object, tmp_path: Path):
    folder = a_report().save(tmp_path)
    document = json.loads((folder / "report.json").read_text())
    (folder / "report.json").write_text(json.dumps({**document, "schema": schema}))
    with pytest.raises(EvaluationError, match=f"got schema {schema}, expected at most 2"):
        Report.load(folder)


def test_without_arrays_there_are_values(tmp_path: Path):
    folder = a_report().save(tmp_path)
    (folder / "arrays.npz").unlink()
    assert Report.load(folder).values == a_report().values
    assert Report.load(folder).arrays == {}


def test_the_table_shows_intervals_and_fits_a_terminal():
    lines = a_report().table().splitlines()
    assert lines[:3] == ["drawn, step 3", "extractor: classifier-1a2b3c4d", ""]
    assert "95 % interval" in lines[3]
    assert lines[5].startswith("FID (classifier)  ")
    assert "[19.1, inf]" in lines[5]
    assert lines[-1] == "note: short"
    assert sum(line.startswith("note") for line in lines) == 1
    assert max(map(len, lines)) <= 120


def test_the_important_values_come_first_beside_those_of_real_images():
    keys = ("kid", "gan_test_real", "gan_test", "fid_floor", "nd/srn2020/accuracy", "fid")
    lines = a_report(*(Value(key, 1 / len(key), None, 9, "", {}) for key in keys)).table().splitlines()[3:]
    assert [line.split("  ")[0] for line in lines[2:]] == [
        *("FID", "GAN-test accuracy", "", "KID", "ND, srn2020, accuracy")
    ]
    assert lines[0].split()[2:4] == ["real", "images"]
    assert lines[2].split()[1:3] == [f"{1 / 3:.6g}", f"{1 / 9:.6g}"]


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        (["fid", "elhist/real_fake/p95"], ["FID", "Lipschitz constant, real-generated, p95"]),
        (["fid/pixels", "is/pixels"], ["FID (pixels)", "Inception Score (pixels)"]),
        (["fid/resnet20-1a2b", "recall/resnet20-1a2b"], ["FID (resnet20)", "Recall (resnet20)"]),
        (["fid", "fid/pixels", "mine/of_all"], ["FID, inception", "FID, pixels", "Mine, of all"]),
    ],
)
def test_names_hold_the_extractor_unless_it_is_inception(keys: list[str], names: list[str]):
    assert list(plain_names(keys).values()) == names


def by_class(key: str, values: list[float], classes: list[int]) -> Value:
    arrays = {f"{key}/per_class": np.array(values), f"{key}/classes": np.array(classes)}
    return Value(key, float(np.mean(values)), None, 9, "lower", {}, arrays=arrays)


def test_values_by_class_are_a_table_with_their_mean(tmp_path: Path):
    report = a_report(by_class("intra_fid", [20, 41], [0, 1]), by_class("intra_kid", [0.25, 0.5], [1, 7]))
    assert class_table(report) == [
        ["class", "intra_fid", "intra_kid"],
        ["cat", "20", ""],
        ["dog", "41", "0.25"],
        ["class 7", "", "0.5"],
        ["mean", "30.5", "0.375"],
    ]
    assert [line.split() for line in report.table().splitlines()[-4:]] == [
        ["cat", "20"],
        ["dog", "41", "0.25"],
        ["class", "7", "0.5"],
        ["mean", "30.5", "0.375"],
    ]
    folder = report.save(tmp_path)
    assert (folder / "classes.csv").read_text() == (
        "class,intra_fid,intra_kid\ncat,20,\ndog,41,0.25\nclass 7,,0.5\nmean,30.5,0.375\n"
    )
    assert class_table(Report.load(folder)) == class_table(report)


def test_without_values_by_class_there_is_no_such_table(tmp_path: Path):
    assert class_table(a_report()) == []
    assert not (a_report().save(tmp_path) / "classes.csv").exists()


@pytest.mark.parametrize(
    "arrays",
    [
        {"intra_fid/per_class": np.ones(2), "intra_fid/classes": np.array([0])},
        {"intra_fid/per_class": np.ones((2, 2))},
    ],
)
def test_values_by_class_that_do_not_fit_their_classes_are_refused(arrays: dict, tmp_path: Path):
    folder = a_report().save(tmp_path)
    np.savez(folder / "arrays.npz", **{key.replace("/", "|"): array for key, array in arrays.items()})
    with pytest.raises(EvaluationError, match=r"damaged file .* expected a number for each class"):
        Report.load(folder)


def test_a_column_without_content_is_left_out():
    assert "interval" not in a_report(Value("is", 8.6, 0.1, 5, "higher", {})).table()


def test_numbers_and_tables_as_text():
    assert (with_spread(1 / 3, None), with_spread(2.0, 0.25)) == ("0.333333", "2 ± 0.25")
    assert (interval_text(None), interval_text([0.5, 1])) == ("", "[0.5, 1]")
    assert text_table([("a", "b", "c"), ("long", "", "x")]) == ["a     c", "----  -", "long  x"]
    assert markdown_table([["a", "b|c"], ["1", "2"]]) == "| a | b\\|c |\n|---|---|\n| 1 | 2 |"


def test_a_training_log_puts_curves_into_the_page(tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "d_loss": 2}\n{"step": 2, "d_loss": 1}\n')
    with_curves = (a_report().save(tmp_path / "a", training_log=tmp_path / "metrics.jsonl") / "report.html").read_text()
    without = (a_report().save(tmp_path / "b") / "report.html").read_text()
    assert with_curves.count("image/svg+xml") == without.count("image/svg+xml") + 1
