"""Tests of histograms of several runs and of single reports: contents and errors."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from evaluation import EvaluationError, Report
from evaluation.reporting import histograms
from evaluation.reporting.histograms import NAMES, density, kinds_figure, num_bins, plot_histograms, shared_bins
from evaluation.reporting.plots import COLOURS
from evaluation.reporting.value import Value

SCALES = {"elhist/real_fake": 0.1, "elhist/real_real": 0.05, "jacobian/real": 4.0}


def made(factor: float, *, score: float | None = None, pairs: int = 500, title: str = "") -> Report:
    """Report with gamma-distributed values."""
    values = []
    for number, (kind, scale) in enumerate(SCALES.items()):
        array = np.random.default_rng(number).gamma(3, factor * scale, pairs).astype(np.float32)
        name = "ratio" if kind.startswith("elhist") else "norm"
        p95 = float(np.percentile(array, 95))
        arrays = {f"{kind}/{name}": array}
        values.append(Value(f"{kind}/p95", p95, None, pairs, "", {"pairs": pairs}, arrays=arrays))
    if score is not None:
        values.append(Value("is", score, 0.1, 100, "higher", {"splits": 10}))
    return Report.of(values, arrays={}, title=title, subject={}, machine={})


@pytest.fixture
def drawn_figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    figures: list[Figure] = []
    monkeypatch.setattr("evaluation.reporting.histograms.save_figure", lambda figure, path: figures.append(figure))
    return figures


def outlines(figure: Figure) -> list:
    return [patch for patch in figure.axes[0].patches if not patch.get_fill()]


def dashed(figure: Figure) -> list:
    return [line for line in figure.axes[0].lines if line.get_linestyle() == "--"]


def test_several_runs_share_bins_and_keep_their_colours(drawn_figures):
    runs = {"SN": made(1), "SRN": made(0.5), "WGAN-GP": made(0.3)}
    plot_histograms(runs, "elhist/real_fake", "x.png")
    (figure,) = drawn_figures
    edges = shared_bins([report.arrays["elhist/real_fake/ratio"] for report in runs.values()])
    for number, (outline, line, report) in enumerate(zip(outlines(figure), dashed(figure), runs.values(), strict=True)):
        heights, drawn_edges, _ = outline.get_data()
        assert np.array_equal(drawn_edges, edges)
        assert heights == pytest.approx(density(report.arrays["elhist/real_fake/ratio"], edges))
        assert line.get_xdata()[0] == report.values["elhist/real_fake/p95"]
        assert to_hex(outline.get_edgecolor()) == to_hex(line.get_color()) == COLOURS[number].lower()
    assert len(figure.axes) == 1  # no second axis without scores
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert [label.split(":")[0] for label in labels] == list(runs)
    assert all("95th percentile" in label for label in labels)


def test_scores_are_marked_on_a_second_axis_at_the_percentile(drawn_figures):
    runs = {"SN": made(1, score=8.2), "SRN": made(0.5, score=8.5), "unscored": made(2)}
    plot_histograms(runs, "elhist/real_fake", "x.png")
    left, right = drawn_figures[0].axes
    assert (left.get_ylabel(), right.get_ylabel()) == ("density", "Inception Score")
    markers = [line for line in right.lines if line.get_marker() in ("o", "X")]
    assert [(line.get_marker(), line.get_xdata()[0], line.get_ydata()[0]) for line in markers] == [
        ("o", runs["SN"].values["elhist/real_fake/p95"], 8.2),
        ("X", runs["SRN"].values["elhist/real_fake/p95"], 8.5),
    ]
    low, high = right.get_ylim()
    assert low < 8.1
    assert high > 8.6  # error bars inside


def test_a_density_integrates_to_the_share_inside_the_bins():
    values = np.random.default_rng(0).exponential(size=1000)
    edges = shared_bins([values, values / 10])
    assert len(edges) == num_bins([values]) + 1 == 32
    assert edges[-1] == pytest.approx(1.05 * np.percentile(values, 99.5))
    assert (density(values, edges) * np.diff(edges)).sum() == pytest.approx(np.mean(values <= edges[-1]))
    assert (density(values / 10, edges) * np.diff(edges)).sum() == pytest.approx(1)


def test_a_collapsed_histogram_does_not_flatten_the_others(drawn_figures):
    plot_histograms({"trained": made(1), "collapsed": made(0.001)}, "elhist/real_fake", "x.png")
    axes = drawn_figures[0].axes[0]
    heights = [outline.get_data().values.max() for outline in outlines(drawn_figures[0])]
    assert axes.get_ylim()[1] == pytest.approx(1.08 * 5 * heights[0])
    assert heights[1] > axes.get_ylim()[1]
    texts = [text.get_text() for text in drawn_figures[0].legends[0].get_texts()]
    assert ["peak" in text for text in texts] == [False, True]


def test_a_critic_that_is_constant_is_drawn(tmp_path: Path):
    report = made(1)
    report.arrays["elhist/real_fake/ratio"][:] = 0
    plot_histograms({"constant": report}, "elhist/real_fake", tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 0


def test_saved_reports_are_drawn(tmp_path: Path):
    runs = {}
    for label, factor in (("SN", 1), ("SRN", 0.5)):
        made(factor, score=8, title=f"CIFAR-10, {label}").save(tmp_path / label)
        runs[label] = Report.load(tmp_path / label)
        assert {"elhist.png", "jacobian.png"} < {file.name for file in (tmp_path / label).iterdir()}
    for kind in SCALES:
        plot_histograms(runs, kind, tmp_path / "out.png")
        with Image.open(tmp_path / "out.png") as image:
            assert image.size == (1280, 840)


def test_a_report_without_pairs_has_no_such_figure(tmp_path: Path):
    Report.of([], arrays={}, title="", subject={}, machine={}).save(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"arrays.npz", "report.json", "report.txt", "report.html"}


def test_kinds_of_one_run_are_drawn_but_never_ratios_with_norms():
    report = made(1, title="CIFAR-10, SN")
    elhist, jacobian = (kinds_figure(report, family) for family in ("elhist", "jacobian"))
    assert [len(outlines(figure)) for figure in (elhist, jacobian)] == [2, 1]
    assert elhist.axes[0].get_title() == "CIFAR-10, SN"
    assert elhist.axes[0].get_xlim()[1] < jacobian.axes[0].get_xlim()[1] / 5
    assert "f(x) − f(y)" in elhist.axes[0].get_xlabel()
    assert "∇" in jacobian.axes[0].get_xlabel()


def test_histograms_for_a_board_are_finite_and_by_kind():
    report = made(1)
    report.arrays["elhist/real_fake/ratio"][3] = np.nan
    report.arrays["elhist/real_real/ratio"][:] = np.nan
    found = histograms.histograms(report)
    assert {kind: len(values) for kind, values in found.items()} == {"elhist/real_fake": 499, "jacobian/real": 500}
    assert set(found) < set(NAMES)


def test_runs_of_different_protocols_are_not_drawn_together():
    with pytest.raises(
        EvaluationError, match=r"real_fake/p95: runs a and c differ in pairs \(500, 400\), expected one"
    ):
        plot_histograms({"a": made(1), "b": made(2), "c": made(1, pairs=400)}, "elhist/real_fake", "x.png")
    other = made(1, score=8)
    other.protocol["values"]["is"]["hash"] = "0"
    other.protocol["values"]["is"]["fields"] = {"splits": 1}
    with pytest.raises(EvaluationError, match=r"is: runs a and b differ in splits \(10, 1\)"):
        plot_histograms({"a": made(1, score=8), "b": other}, "elhist/real_fake", "x.png")


@pytest.mark.parametrize(
    ("runs", "kind", "message"),
    [
        ({}, "elhist/real_fake", "got no runs"),
        ({"a": made(1)}, "real_fake", "got kind 'real_fake', expected one of elhist/real_fake, "),
        ({"a": made(1)}, "elhist/fake_fake", "got no elhist/fake_fake in a"),
    ],
)
def test_what_cannot_be_drawn_is_refused(runs: dict, kind: str, message: str):
    with pytest.raises(EvaluationError, match=message):
        plot_histograms(runs, kind, "x.png")


def test_a_family_that_was_not_measured_is_refused():
    with pytest.raises(EvaluationError, match="got no jacobian in the report"):
        kinds_figure(Report.of([], arrays={}, title="", subject={}, machine={}), "jacobian")


def test_scores_are_named_by_their_extractor_without_its_hash() -> None:
    assert histograms.score_name("is") == "Inception Score"
    assert histograms.score_name("is/resnet-00259d2c") == "Inception Score (resnet)"
