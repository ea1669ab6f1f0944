"""Tests of run comparison: the best by direction, and an error if protocols differ."""

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from headless import HOSTILE, Browser, Parts
from matplotlib.colors import to_hex

from evaluation import EvaluationError, Report
from evaluation.reporting.compare_folders import (
    StoredReport,
    compare_folders,
    comparison_figures,
    labels_of,
    values_over_steps,
)
from evaluation.reporting.comparison import best, compare
from evaluation.reporting.plots import COLOURS
from evaluation.reporting.ranking import is_better
from evaluation.reporting.value import Value

UNDIRECTED = "elhist/real_fake/p95"
FIELDS = {"num_reference": 10_000, "reference_fingerprint": "a" * 64, "generation": {"seed": 0, "weights": "raw"}}


def a_report(fid: float = 20.0, score: float = 8.0, *, fields: dict[str, Any] = FIELDS, **others: Any) -> Report:
    values = [
        Value("fid", fid, None, 5_000, "lower", fields, interval=(fid - 1, fid + 1)),
        Value("is", score, 0.1, 50_000, "higher", {"splits": 10}),
        Value(UNDIRECTED, fid, None, 9, "", {}),
        *others.pop("values", ()),
    ]
    arrays = {"samples": np.zeros((8, 3, 8, 8), np.uint8), "elhist/real_fake/ratio": np.arange(20.0)}
    machine = {"time": others.pop("time", "2026-01-01T00:00:00Z")}
    return Report.of(values, arrays=arrays, title="drawn", subject={"step": 7, **others}, machine=machine)


def test_the_best_of_each_row_is_by_direction():
    comparison = compare({"a": a_report(20, 8.0), "b": a_report(19, 8.5), "c": a_report(19, float("nan"))})
    rows = {row.key: row for row in comparison.rows}
    assert rows["fid"].best == {1, 2}
    assert rows["is"].best == {1}
    assert rows[UNDIRECTED].best == set()
    lines = comparison.table().splitlines()
    assert re.split(r"\s{2,}", lines[2]) == ["FID", "lower", "20", "19 *", "19 *", rows["fid"].hash[:8]]
    assert "8.5 ± 0.1 *" in lines[3]
    assert "| FID | lower | 20 | **19** | **19** |" in comparison.markdown()


@pytest.mark.parametrize(
    ("value", "other", "better", "expected"),
    [(math.inf, math.nan, "lower", True), (math.nan, 1.0, "higher", False), (math.nan, math.nan, "lower", False)],
)
def test_any_number_is_better_than_nan(value: float, other: float, better: str, expected: bool):
    assert is_better(value, other, better) is expected


def test_equal_values_have_no_best():
    assert all(not row.best for row in compare({"a": a_report(), "b": a_report()}).rows)


def test_what_one_run_has_is_missing_in_the_other():
    extra = Value("kid", 0.1, None, 9, "lower", {})
    comparison = compare({"a": a_report(), "b": a_report(values=[extra])})
    row = next(row for row in comparison.rows if row.key == "kid")
    assert row.cells[0] is None
    assert row.best == set()
    assert "–" in comparison.table().splitlines()[-2]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"num_reference": 5_000}, "fid: runs A and B differ in num_reference (10000, 5000)"),
        ({"generation": {"seed": 0, "weights": "ema"}}, "fid: runs A and B differ in generation.weights (raw, ema)"),
        ({"generation": {"weights": "raw"}}, "fid: runs A and B differ in generation.seed (0, absent)"),
        ({"reference_fingerprint": "b" * 64}, "differ in reference_fingerprint (aaaaaaaa, bbbbbbbb)"),
        ({"extra": None}, "differ in extra (absent, null)"),
        ({"num_reference": 1, "x": 2}, "differ in num_reference (10000, 1) and x (absent, 2)"),
        ({"num_reference": 1, "x": 2, "y": 3, "z": 4, "w": 5}, "y (absent, 3) and 2 more"),
    ],
)
def test_mixed_protocols_are_refused_with_the_field_that_differs(change: dict, sentence: str):
    other = a_report(fields={**FIELDS, **change})
    with pytest.raises(EvaluationError) as refused:
        compare({"A": a_report(), "B": other})
    assert sentence in str(refused.value)
    assert "measure all by one protocol" in str(refused.value)
    left = compare({"A": a_report(), "B": other}, skip_mixed=True)
    assert [row.key for row in left.rows] == ["is", UNDIRECTED]
    assert sentence in left.left_out[0]
    assert sentence in left.table()
    assert sentence in left.markdown()


def test_the_third_run_is_compared_too_and_lists_may_come_from_a_file(tmp_path: Path):
    fields = {**FIELDS, "sizes": (1, 2)}
    saved = Report.load(a_report(fields=fields).save(tmp_path))
    assert compare({"A": a_report(fields=fields), "B": saved}).rows
    with pytest.raises(EvaluationError, match=r"runs A and C differ in sizes \(\[1, 2\], \[1, 3\]\)"):
        compare({"A": saved, "B": saved, "C": a_report(fields={**FIELDS, "sizes": (1, 3)})})
    with pytest.raises(EvaluationError, match=r"differ in num_reference \(10000, 1\); measure"):
        compare({"A": saved, "B": a_report(fields={**fields, "num_reference": 1})})


def test_the_subject_and_the_record_may_differ():
    other = a_report(step=9, checkpoint="b.pt")
    other.protocol["values"]["fid"]["record"]["method"] = "gram"
    assert len(compare({"a": a_report(), "b": other}).rows) == 3


def test_a_hash_alone_that_differs_is_refused():
    other = a_report()
    other.protocol["values"]["fid"]["hash"] = "0" * 64
    with pytest.raises(EvaluationError, match="differ in nothing but the hash"):
        compare({"a": a_report(), "b": other})


def test_one_report_is_no_comparison():
    with pytest.raises(EvaluationError, match="got 1 report, expected at least two"):
        compare({"a": a_report()})


def test_best_is_by_direction_and_the_first_of_equals():
    reports = [a_report(20, 7), a_report(18, 9), a_report(18, 9), a_report(math.nan, math.nan)]
    assert (best(reports, "fid"), best(reports, "is")) == (1, 1)
    assert best(reports[::-1], "fid") == 1


@pytest.mark.parametrize(
    ("reports", "key", "message"),
    [
        ([a_report(), a_report(fields={"num_reference": 1})], "fid", "best: fid: runs 0 and 1 differ in num_reference"),
        ([a_report()], "kid", "got no value called kid, expected one of fid, is, elhist"),
        ([a_report(math.nan)], "fid", "got no value called fid"),
        ([a_report()], UNDIRECTED, "neither higher nor lower is better"),
        ([], "fid", "got no value called fid"),
    ],
)
def test_best_refuses_what_cannot_be_ranked(reports: list[Report], key: str, message: str):
    with pytest.raises(EvaluationError, match=re.escape(message)):
        best(reports, key)


@pytest.fixture(scope="module")
def saved_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two run folders with reports at three steps; the newest is the one written last, not that of the last step."""
    parent = tmp_path_factory.mktemp("runs")
    for number, folder in enumerate([parent / "sn", parent / "srn70"]):
        for step, fid, time in ((1, 30.0, "01"), (2, 20.0 - number, "03"), (3, 25.0, "02")):
            report = a_report(fid, step=step, time=f"2026-01-{time}T00:00:00Z")
            report.save(folder / "reports" / f"{step:08d}")
        lines = [json.dumps({"step": step, "d_loss": 1.0 + number, "fake_logit": 0.0}) for step in range(5)]
        (folder / "metrics.jsonl").write_text("\n".join(lines))
    return parent


@pytest.fixture
def runs(saved_runs: Path, tmp_path: Path) -> list[Path]:
    shutil.copytree(saved_runs, tmp_path / "runs")
    return [tmp_path / "runs" / "sn", tmp_path / "runs" / "srn70"]


def test_run_folders_give_their_newest_report_tables_and_plots(runs: list[Path], tmp_path: Path):
    comparison = compare_folders(runs, tmp_path / "out")
    assert comparison.labels == ("sn", "srn70")
    assert [cell.value for cell in comparison.rows[0].cells if cell] == [20.0, 19.0]
    names = {file.name for file in (tmp_path / "out").iterdir()}
    figures = {"training.png", "values-over-steps.png", "elhist-real_fake.png"}
    assert names == {"compare.json", "compare.txt", "compare.md", "compare.html"} | figures
    document = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert document["values"]["fid"]["runs"]["srn70"]["value"] == 19.0
    assert document["values"]["fid"]["fields"]["num_reference"] == 10_000
    assert document["subjects"]["sn"]["step"] == 2
    assert (tmp_path / "out" / "compare.txt").read_text() == comparison.table() + "\n"


def test_a_run_keeps_its_colour_in_all_figures(runs: list[Path], tmp_path: Path):
    """The first run has no training log and the second no histogram; the other runs' colours must not shift."""
    third = tmp_path / "runs" / "wgan"
    a_report(30.0, step=1).save(third / "reports" / "1")
    a_report(30.0, step=2).save(third / "reports" / "2")
    (third / "metrics.jsonl").write_text((runs[0] / "metrics.jsonl").read_text())
    (runs[0] / "metrics.jsonl").unlink()
    for file in (runs[1] / "reports").glob("*/arrays.npz"):
        file.unlink()
    read = {folder.name: StoredReport.read(folder) for folder in (*runs, third)}
    figures = comparison_figures(compare({label: run.report for label, run in read.items()}), read)
    drawn = {}
    for title, figure in figures.items():
        outlines = [(patch.get_label(), patch.get_edgecolor()) for patch in figure.axes[0].patches]
        lines = [(line.get_label(), line.get_color()) for axes in figure.axes for line in axes.lines]
        named = {(str(label).split(":")[0], to_hex(colour)) for label, colour in outlines + lines}
        drawn[title] = {(label, colour) for label, colour in named if label in read}
    sn, srn, wgan = zip(read, COLOURS, strict=False)
    assert drawn == {
        "Training": {srn, wgan},
        "Values over steps": {sn, srn, wgan},
        "elhist real_fake": {sn, wgan},
    }


def test_values_over_steps_leave_out_other_protocols(runs: list[Path]):
    a_report(99.0, fields={"num_reference": 1}, step=1).save(runs[0] / "reports" / "00000001")
    comparison = compare_folders(runs)
    steps, values = values_over_steps(comparison, StoredReport.read(runs[1]))["fid"]
    assert (steps.tolist(), values.tolist()) == ([1, 2, 3], [30, 19, 25])
    curves = values_over_steps(comparison, StoredReport.read(runs[0]))
    assert curves["fid"][0].tolist() == [2, 3]
    assert set(curves) == {"fid", "is"}


@pytest.mark.parametrize(("fields", "first"), [(FIELDS, 99.0), ({"num_reference": 1}, 30.0)], ids=["same", "other"])
def test_a_later_report_of_a_step_replaces_only_what_it_measured_alike(runs: list[Path], fields: dict, first: float):
    later = Value("fid", 99.0, None, 9, "lower", fields)
    machine = {"time": "2026-01-02T00:00:00Z"}
    Report.of([later], arrays={}, title="", subject={"step": 1}, machine=machine).save(runs[0] / "reports" / "again")
    curves = values_over_steps(compare_folders(runs), StoredReport.read(runs[0]))
    assert curves["fid"][1].tolist() == [first, 20, 25]
    assert curves["is"][0].tolist() == [1, 2, 3]


def test_different_steps_are_noted_on_every_page(runs: list[Path], tmp_path: Path):
    compare_folders(runs, tmp_path / "same")
    compare_folders([runs[0], runs[1] / "reports" / "00000003"], tmp_path / "other")
    for name in ("compare.txt", "compare.md", "compare.html"):
        assert "are compared at steps" not in (tmp_path / "same" / name).read_text()
        assert "runs sn and 00000003 are compared at steps 2 and 3" in (tmp_path / "other" / name).read_text()


def test_all_steps_are_named_and_what_has_none_is_passed_over():
    reports = {"a": a_report(step=1), "b": a_report(step=5), "images": a_report(step=None), "c": a_report(step=1)}
    assert compare(reports).notes == ["runs a, b and c are compared at steps 1, 5 and 1"]
    assert not compare({"a": a_report(step=1), "images": a_report(step=None)}).notes


def test_labels_are_the_shortest_ends_that_differ():
    assert labels_of(["a/x/report", "a/y/report"]) == ["x/report", "y/report"]
    with pytest.raises(EvaluationError, match="got a twice"):
        labels_of(["a", "a"])


def test_folders_without_a_report_are_refused(tmp_path: Path):
    with pytest.raises(EvaluationError, match="got no report"):
        compare_folders([tmp_path, tmp_path / "b"])


def test_names_cannot_bring_markup_into_a_comparison(tmp_path: Path):
    folders, out = [tmp_path / HOSTILE.replace("/", ""), tmp_path / "_$x^$"], tmp_path / "out"
    for number, folder in enumerate(folders):
        a_report(20 - number, experiment=HOSTILE).save(folder / "reports" / "1")
    compare_folders(folders, out)
    parts = Parts((out / "compare.html").read_text())
    assert "script" not in parts.tags
    assert not parts.handlers
    assert all(address.startswith("data:") for address in parts.addresses)


def test_a_browser_shows_a_comparison(browser: Browser, runs: list[Path], tmp_path: Path):
    compare_folders(runs, tmp_path / "out")
    address = (tmp_path / "out" / "compare.html").as_uri()
    question = """(document.querySelectorAll('details').forEach((one) => { one.open = true; }), {
      sizes: [...document.querySelectorAll('figure img, .strips img, table')]
        .map((one) => one.clientWidth * one.clientHeight),
      best: [...document.querySelectorAll('td.best')].map((one) => one.innerText.split('\\n')[0]),
    })"""
    visit = browser.visit(address, question)
    assert not visit.messages
    assert [request for request in visit.requests if not request.startswith("data:")] == [address]
    assert len(visit.answer["sizes"]) == 3 + 2 + 3
    assert all(size > 0 for size in visit.answer["sizes"])
    assert visit.answer["best"] == ["19"]
