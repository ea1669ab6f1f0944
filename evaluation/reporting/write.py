"""Writes a report's files: values, arrays, tables, plots and the page."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from evaluation.errors import EvaluationError
from evaluation.reporting import histograms, plots
from evaluation.reporting.document import document_text
from evaluation.reporting.html import report_page
from evaluation.reporting.tables import class_table, value_table
from evaluation.reporting.value import ReportData
from evaluation.runtime.files import replacing


def write(report: ReportData, folder: Path, *, training_log: str | Path | None) -> Path:
    """Writes all files of `Report.save`.

    Raises:
        EvaluationError: the folder cannot be written.
    """
    try:
        with replacing(folder / "arrays.npz") as partial:
            # A slash would make folders inside the archive.
            arrays = {name.replace("/", "|"): array for name, array in report.arrays.items()}
            np.savez_compressed(partial, **arrays)  # type: ignore[arg-type]
        _write_images(report, folder)
        for name, figure in _figures(report):
            plots.save_figure(figure, folder / f"{name}.png")
        _write_text(folder / "report.json", document_text(report))
        _write_text(folder / "report.txt", value_table(report) + "\n")
        if classes := class_table(report):
            _write_text(folder / "classes.csv", _csv(classes))
        _write_text(folder / "report.html", report_page(report, training_log=training_log))
    except OSError as error:
        raise EvaluationError(f"report: cannot be written into {folder} ({error})") from error
    return folder


def _write_text(file: Path, text: str) -> None:
    with replacing(file) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


def _write_images(report: ReportData, folder: Path) -> None:
    arrays = report.arrays
    if "samples" in arrays:
        labels = torch.from_numpy(arrays["sample_labels"]) if "sample_labels" in arrays else None
        plots.save_grid(torch.from_numpy(arrays["samples"]), folder / "samples.png", labels=labels)
    if "neighbours" in arrays:
        plots.save_neighbours(arrays["neighbour_samples"], arrays["neighbours"], folder / "neighbours.png")


def _figures(report: ReportData) -> Iterator[tuple[str, Figure]]:
    """File names without extension, and figures."""
    for name in report.arrays:
        if name.endswith("/losses"):
            yield name.removesuffix("/losses").replace("/", "-"), plots.critics_figure(report, name)
    for family in histograms.families(report):
        yield family, histograms.kinds_figure(report, family)
    if layers := plots.layer_curves(report.arrays):
        yield "layers", plots.layers_figure({report.protocol["title"]: layers})


def _csv(rows: list[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
