"""Tests of report.html: self-contained, with escaped text, and complete in a real browser."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from headless import HOSTILE, Browser, Parts

from evaluation import EvaluationError, Report
from evaluation.reporting import histograms, html, plots
from evaluation.reporting.compare_folders import compare_folders
from evaluation.reporting.html import report_page
from evaluation.reporting.value import Value
from evaluation.runtime import drawing

LOG = "\n".join(json.dumps({"step": step, "d_loss": 1 / (step + 1), "g_loss": 0.1 * step}) for step in range(9))


def a_report(title: str = "CIFAR-10 (JPEG)", name: str = "cat", side: int = 32) -> Report:
    """Report with content in every section of the page."""
    rng = np.random.default_rng(0)

    def pixels(*shape: int) -> np.ndarray:
        return rng.integers(0, 256, (*shape, 3, side, side), dtype=np.uint8)

    protocol = {"num_reference": 10_000, "generation": {"quantizer": title}}
    values = [
        Value("fid", 19.57, None, 5_000, "lower", protocol, interval=(19.1, 20.2), record={"interval": title}),
        Value("fid_floor", 8.9, None, 5_000, "lower", {"num_reference": 10_000}),
        Value("is", 8.6, 0.12, 50_000, "higher", protocol, record={"note": f"{title} is a note"}),
        Value("intra_fid", 30.0, None, 2, "lower", {}, arrays={"intra_fid/per_class": np.array([20.0, 40.0])}),
        Value("nd/srn2020/softplus_fake", 0.5, 0.01, 9, "higher", {"steps": 10}),
        Value("elhist/real_fake/p95", 0.4, None, 200, "", {}, arrays={"elhist/real_fake/ratio": rng.gamma(2, 1, 200)}),
        Value("jacobian/real/p95", 3.0, None, 200, "", {}, arrays={"jacobian/real/norm": rng.gamma(2, 1, 200)}),
    ]
    arrays = {
        "samples": pixels(6),
        "sample_labels": np.array([0, 0, 0, 1, 1, 1]),
        "reference_samples": pixels(4),
        "reference_sample_labels": np.array([0, 0, 1, 1]),
        "neighbour_samples": pixels(4),
        "neighbour_labels": np.array([0, 0, 1, 1]),
        "neighbours": pixels(4, 5),
        "neighbour_distances": np.arange(20.0).reshape(4, 5),
        "neighbour_ratios": np.array([1.0, 0.0, np.nan, 0.9]),
        "nd/srn2020/losses": np.ones((2, 5)),
    }
    return Report.of(
        values,
        arrays=arrays,
        title=title,
        subject={"experiment": title, "step": 4000},
        machine={"device": "cpu", "time": "2026-01-01T00:00:00Z"},
        class_names=[name, "dog"],
        neighbours={"features": "inception", "num_reference": 10_000, "reference": title, "median_ratio": 0.95},
    )


@pytest.mark.parametrize("template", ["report.html", "comparison.html"])
def test_no_template_turns_escaping_off(template: str):
    source = (Path(html.__file__).parent / "templates" / template).read_text()
    assert not re.search(r"\bsafe\b|autoescape|Markup", source)


def test_a_page_needs_nothing_from_outside(tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_text(LOG)
    text = report_page(a_report(), training_log=tmp_path / "metrics.jsonl")
    parts = Parts(text)
    assert not {"script", "iframe", "object", "embed", "base"} & set(parts.tags)
    assert all(address.startswith(("data:", "#protocol-")) for address in parts.addresses)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    assert "url(" not in style
    assert "@import" not in style
    assert len(text) < 2_000_000


def test_a_page_shows_what_the_report_holds(tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_text(LOG)
    report = a_report()
    parts = Parts(report_page(report, training_log=tmp_path / "metrics.jsonl"))
    values = ("19.57", "[19.1, 20.2]", "real images reach 8.9", "8.6 ± 0.12", "50,000", "↓ lower", "↑ higher", "4000")
    texts = ("CIFAR-10 (JPEG) is a note", "10,000 reference images", "Median ratio: 0.95", "class by class")
    for shown in values + texts:
        assert shown in parts.text
    for entry in report.protocol["values"].values():
        assert entry["hash"] in parts.text
    assert '"num_reference": 10000' in parts.text
    top, strips, cards, figures = 2 * 2, 2, 4 * 6, 4
    assert parts.tags.count("img") == top + strips + cards + figures
    folded = 7  # values, by class, samples, nearest images, critics, protocols, machine
    assert parts.tags.count("details") == len(report.values) + folded


def test_a_page_opens_with_samples_then_the_important_values(tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_text(LOG)
    text = report_page(a_report(), training_log=tmp_path / "metrics.jsonl")
    shown, _, folded = text[text.index("<body>") :].partition("<details")
    samples, values = ('alt="samples cat"', 'alt="real images cat"'), ("FID", "19.57", "Inception Score", "8.6")
    places = [shown.index(part) for part in (*samples, *values, "Training", "Empirical Lipschitz constants", "Details")]
    assert places == sorted(places)
    assert "Intra-FID" not in shown
    assert "hash" not in shown
    assert "Intra-FID" in folded


@pytest.mark.parametrize(
    ("subject", "heading"),
    [
        ({"experiment": "srn70", "step": 0}, "CIFAR-10, srn70, step 0"),
        ({"generated": "images/"}, "CIFAR-10"),
    ],
)
def test_the_heading_tells_runs_and_steps_apart(subject: dict, heading: str):
    text = report_page(Report.of([], arrays={}, title="CIFAR-10", subject=subject, machine={}))
    assert f"<title>{heading}</title>" in text
    assert f"<h1>{heading}</h1>" in text


@pytest.mark.parametrize("missing", ["samples", "sample_labels", "neighbours", "neighbour_labels", "neighbour_ratios"])
def test_a_page_does_without_what_is_missing(missing: str):
    report = a_report()
    del report.arrays[missing]
    assert "All values" in Parts(report_page(report)).text


def test_values_by_class_are_named_by_their_labels():
    report = a_report()
    report.arrays["intra_fid/classes"] = np.array([1, 7])
    text = Parts(report_page(report)).text.partition("class by class")[2]
    assert text.startswith("2 classes, from 20 to 40, mean 30.dog20class 740")


def test_values_by_class_stand_beside_their_counts():
    report = a_report()
    report.protocol["values"]["intra_fid"]["record"]["classes"] = [
        {"class": "cat", "generated": 500, "reference": 5_000, "value": 20.0},
        {"class": "dog", "generated": 3, "reference": 4, "value": 40.0},
    ]
    text = Parts(report_page(report)).text.partition("mean 30.")[2]
    assert text.startswith("cat500 generated, 5,000 reference20dog3 generated, 4 reference40")


def test_a_run_without_losses_says_so(tmp_path: Path):
    text = report_page(a_report(), training_log=tmp_path / "metrics.jsonl")
    assert "The training log holds no curves." in text


def test_large_images_are_reduced_and_many_rows_cut():
    report = a_report(side=128)
    assert len(report_page(report)) < 2_000_000
    report.arrays["samples"] = np.zeros((1000, 3, 64, 64), np.uint8)
    del report.arrays["sample_labels"]
    rows = 2**18 // (8 * 64 * 64)  # of samples; as many images beside real ones at the top, at most 10 rows
    assert Parts(report_page(report)).tags.count("img") == rows + min(rows, 10) + 24 + 3


QUESTION = """(() => {
  const shown = (selector) => [...document.querySelectorAll(selector)].map((one) => {
    const box = one.getBoundingClientRect();
    return [box.width, box.height, one.naturalWidth ?? 1, one.complete ?? true];
  });
  const folded = [...document.querySelectorAll('details')];
  location.hash = document.querySelector('td a')?.getAttribute('href') ?? '';
  return new Promise((done) => setTimeout(() => {
    const opened = folded.filter((one) => one.open).length;
    folded.forEach((one) => { one.open = true; });
    done({
      images: shown('img'), tables: shown('table'), rows: shown('tbody tr'), figures: shown('figure img'),
      strips: shown('.strips img'), cards: shown('.card img'), bars: shown('.bar'), pairs: shown('.pairs img'),
      overflow: document.body.scrollWidth, opened,
    });
  }, 100));
})()"""


@pytest.mark.parametrize("title", ["CIFAR-10 (JPEG)", HOSTILE], ids=["plain", "hostile"])
def test_a_browser_shows_it_whole_and_asks_for_nothing(browser: Browser, title: str, tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_text(LOG)
    folder = a_report(title, title).save(tmp_path / "report", training_log=tmp_path / "metrics.jsonl")
    address = (folder / "report.html").as_uri()
    visit = browser.visit(address, QUESTION)
    assert not visit.messages
    assert [request for request in visit.requests if not request.startswith("data:")] == [address]
    shown = visit.answer
    assert all(width > 0 and height > 0 and pixels > 0 and done for width, height, pixels, done in shown["images"])
    assert len(shown["tables"]) == 2
    assert len(shown["rows"]) == 7 + 3  # values; classes and their mean
    assert [len(shown[name]) for name in ("pairs", "figures", "strips", "cards", "bars")] == [4, 4, 2, 24, 2]
    assert all(width > 300 and height > 200 for width, height, *_ in shown["figures"])
    assert all(width > 0 and height > 0 for width, height, *_ in shown["tables"] + shown["rows"] + shown["bars"])
    assert shown["overflow"] <= 1200
    assert shown["opened"] == 2  # a link to a protocol opens it, and the list of protocols


def test_without_matplotlib_all_but_the_plots_is_written(tmp_path: Path, monkeypatch, capsys):
    """As on a read-only file system; explicit plots are refused in one sentence."""
    (tmp_path / "metrics.jsonl").write_text(LOG)
    report = a_report()
    report.arrays["spectra/spectral_norm"] = np.ones(3)

    def missing() -> None:
        raise EvaluationError("no plots: no folder")

    for module in (drawing, plots, histograms):
        monkeypatch.setattr(module, "load_matplotlib", missing)
    drawing.can_draw.cache_clear()
    try:
        report.save(tmp_path / "report", training_log=tmp_path / "metrics.jsonl")
        for folder in ("one", "two"):
            report.save(tmp_path / folder)
        compare_folders([tmp_path / "one", tmp_path / "two"], tmp_path / "compared")
    finally:
        drawing.can_draw.cache_clear()
    assert capsys.readouterr().err == "no plots: no folder\n"
    names = {file.name for file in (tmp_path / "report").iterdir()}
    assert names >= {"report.html", "report.json", "report.txt", "arrays.npz", "classes.csv"}
    assert {name for name in names if name.endswith(".png")} == {"samples.png", "neighbours.png"}
    text = (tmp_path / "report" / "report.html").read_text()
    assert "image/svg" not in text
    assert "holds no curves" not in text
    assert (tmp_path / "compared" / "compare.html").is_file()
    with pytest.raises(EvaluationError, match="no plots: no folder"):
        plots.plot_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
