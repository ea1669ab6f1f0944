"""Comparison of runs on disk: tables, overlaid curves and histograms, samples."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evaluation.errors import EvaluationError
from evaluation.reporting import histograms, plots
from evaluation.reporting.comparison import Comparison, compare
from evaluation.reporting.document import encoded, read_values
from evaluation.reporting.html import comparison_page
from evaluation.reporting.report import Report
from evaluation.runtime.drawing import can_draw
from evaluation.runtime.files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class StoredReport:
    """A report on disk, with the run folder that holds it, if any."""

    report: Report
    home: Path | None

    @classmethod
    def read(cls, folder: str | Path) -> "StoredReport":
        """Reads the report in a folder, or the newest report of a run folder.

        Raises:
            EvaluationError: the folder has no report, or a damaged one.
        """
        folder = Path(folder)
        if (folder / "report.json").is_file():
            home = folder.resolve().parent.parent
            return cls(Report.load(folder), home if folder.resolve().parent.name == "reports" else None)
        found = [file.parent for file in folder.glob("reports/*/report.json")]
        if not found:
            raise EvaluationError(
                f"{folder}: got no report, expected report.json or reports/*/report.json; "
                f"measure it with gan-eval --run {shlex.quote(str(folder))}"
            )
        return cls(Report.load(max(found, key=_written)), folder)

    def curves(self) -> plots.Curves:
        """Reads the curves of the run's training log; empty without a log."""
        try:
            return plots.read_curves(self.home / "metrics.jsonl") if self.home else {}
        except EvaluationError:
            return {}

    def history(self) -> dict[float, dict[tuple[str, str], float]]:
        """Reads the values of all reports of the run, by step, then by key and hash; later reports win."""
        folders = [] if self.home is None else [file.parent for file in self.home.glob("reports/*/report.json")]
        found: dict[float, dict[tuple[str, str], float]] = {}
        for values, protocol in map(read_values, sorted(folders, key=_written)):
            step = protocol["subject"].get("step")
            if step is not None:
                hashes = {key: entry["hash"] for key, entry in protocol["values"].items()}
                found.setdefault(step, {}).update({(key, hashes[key]): value for key, value in values.items()})
        return dict(sorted(found.items()))


def _written(folder: Path) -> tuple[str, str]:
    return str(read_values(folder)[1]["machine"].get("time", "")), folder.name


def compare_folders(
    folders: Sequence[str | Path], out: str | Path | None = None, *, skip_mixed: bool = False
) -> Comparison:
    """Compares report folders, or run folders by their newest reports, labelled by their names.

    With `out`, writes compare.json, compare.txt, compare.md, compare.html and figures to it.

    Raises:
        EvaluationError: no report, a repeated folder, mixed protocols, or `out` cannot be written.
    """
    runs = {label: StoredReport.read(folder) for label, folder in zip(labels_of(folders), folders, strict=True)}
    comparison = compare({label: run.report for label, run in runs.items()}, skip_mixed=skip_mixed)
    if out is not None:
        save_comparison(comparison, runs, Path(out))
    return comparison


def labels_of(folders: Sequence[str | Path]) -> list[str]:
    """Returns the shortest ends of the paths that are all different.

    Raises:
        EvaluationError: a repeated folder.
    """
    parts = [Path(folder).resolve().parts for folder in folders]
    twice = [str(folder) for number, folder in enumerate(folders) if parts[number] in parts[:number]]
    if twice:
        raise EvaluationError(f"compare: got {twice[0]} twice, expected different folders")
    depths = range(1, max(map(len, parts), default=1) + 1)
    ends = ([Path(*part[-depth:]).as_posix() for part in parts] for depth in depths)
    return next((labels for labels in ends if len(set(labels)) == len(labels)), [])


def save_comparison(comparison: Comparison, runs: Mapping[str, StoredReport], folder: Path) -> None:
    """Writes a comparison and its figures; each file is replaced atomically.

    Raises:
        EvaluationError: the folder cannot be written.
    """
    figures = comparison_figures(comparison, runs)
    files = {
        "compare.json": json.dumps(encoded(comparison.document()), indent=2, ensure_ascii=False, allow_nan=False),
        "compare.txt": comparison.table(),
        "compare.md": comparison.markdown(),
        "compare.html": comparison_page(comparison, figures, {label: run.report for label, run in runs.items()}),
    }
    try:
        for name, text in files.items():
            write_text(folder / name, text.rstrip("\n") + "\n")
    except OSError as error:
        raise EvaluationError(f"compare: cannot be written into {folder} ({error})") from error
    for title, drawn in figures.items():
        plots.save_figure(drawn, folder / f"{title.lower().replace(' ', '-')}.png")


def comparison_figures(comparison: Comparison, runs: Mapping[str, StoredReport]) -> "dict[str, Figure]":
    """Draws figures by title: training curves, values over steps, histograms and layers of all runs."""
    if not can_draw():
        return {}
    figures, order = {}, list(runs)
    curves = {
        label: {plots.CURVE_NAMES[name]: curve for name, curve in run.curves().items()} for label, run in runs.items()
    }
    if training := plots.panels_of(curves):
        figures["Training"] = plots.overlaid_figure(training, order=order, axis="steps")
    if values := plots.panels_of({label: values_over_steps(comparison, run) for label, run in runs.items()}):
        named = {comparison.names[key]: curves_of_key for key, curves_of_key in values.items()}
        figures["Values over steps"] = plots.overlaid_figure(named, order=order, marker="o", axis="steps")
    reports = {label: run.report for label, run in runs.items()}
    compared = {row.key for row in comparison.rows}
    for title, kinds in _histograms(reports).items():
        drawn = [kind for kind in kinds if histograms.line_of(kind) in compared]
        if drawn:
            figures[title] = histograms.runs_figure(reports, drawn, order=order)
    layers = {label: plots.layer_curves(report.arrays) for label, report in reports.items()}
    if any(layers.values()):
        figures["Layers"] = plots.layers_figure(layers)
    return figures


def _histograms(reports: Mapping[str, Report]) -> dict[str, list[str]]:
    """Returns the kinds of histograms that any report holds, by the title of their figure."""
    titles: dict[str, list[str]] = {}
    for kind in histograms.NAMES:
        if any(kind in histograms.histograms(report) for report in reports.values()):
            family = kind.split("/")[0]
            title = family if histograms.FAMILIES[family].panels else kind.replace("/", " ")
            titles.setdefault(title, []).append(kind)
    return titles


def values_over_steps(comparison: Comparison, run: StoredReport) -> plots.Curves:
    """Returns curves over steps of the compared values that have a direction, from reports with the same protocol."""
    history = run.history()
    curves = {}
    for row in comparison.rows:
        points = [
            (step, values[row.key, row.hash])
            for step, values in history.items()
            if row.better and (row.key, row.hash) in values
        ]
        if len(points) > 1:
            curves[row.key] = np.array(points)[:, 0], np.array(points)[:, 1]
    return curves
