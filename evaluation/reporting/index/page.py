"""Renders the page of many runs. Grids and curves are small, because a folder may hold hundreds of runs."""

import io
import os
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from evaluation.errors import EvaluationError
from evaluation.reporting.document import read_values
from evaluation.reporting.html import address, rendered
from evaluation.reporting.index.table import ListedReport, ListedRun, columns_of, differing, text_of
from evaluation.reporting.names import extractors_of, ordered, plain_names
from evaluation.reporting.plots import COLOURS, CURVE_NAMES, CURVES, Curves, read_curves

GRID_SIDE = 320  # larger sample grids of runs are reduced to this size, in pixels
VALUES_OF_A_RUN = 4  # most values of a run
MOST_DIFFERENCES = 24  # most settings in the section of a run
WIDTH, HEIGHT = 360, 110  # of curves
PARTS = 90  # most parts of a curve, each drawn by its smallest and largest value


def index_page(title: str, runs: Sequence[ListedRun], place: Path) -> str:
    """Renders a table of runs, and for each its newest sample grid, values of the newest report, curves and reports.

    Reports, grids and logs that cannot be read are named. Links are relative to `place`; grids and curves are in the
    page.

    Args:
        place: folder of the page.
    """
    sections = [_section(run, place) for run in runs]
    differences = differing(runs)
    for run, section in zip(runs, sections, strict=True):
        section["settings"] = [
            f"{setting} {text_of(run.settings[setting])}"
            for setting in differences.get(run.kind, ())
            if setting in run.settings
        ][:MOST_DIFFERENCES]
    measured = [ListedReport(section["values"], section["protocol"], section["results"]) for section in sections]
    return rendered(
        "index.html",
        title=title,
        written=f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
        runs=sections,
        columns=columns_of(runs, measured, differences),
        width=WIDTH,
        height=HEIGHT,
    )


def _section(run: ListedRun, place: Path) -> dict[str, Any]:
    """Returns what the page shows of a run."""
    found, damaged = [], []
    for file in run.folder.glob("reports/*/report.json"):
        try:
            found.append((*read_values(file.parent), file.parent))
        except EvaluationError as error:
            damaged.append(str(error))
    found.sort(key=lambda report: (str(report[1]["machine"].get("time", "")), report[2].name), reverse=True)
    values, protocol = found[0][:2] if found else ({}, {})
    grid, damaged_grids = _grid(run.folder, place)
    first, others = ordered(values)
    own = [key for key in others if "code" in protocol["values"][key]["fields"]]
    return {
        "name": run.name,
        "link": _link(run.folder, place) + "/",
        "progress": run.progress,
        "notes": [*run.notes, *damaged, *damaged_grids],
        "alarms": run.alarms,
        "reports": [{"name": report.name, "link": _link(_page_of(report), place)} for *_, report in found],
        "grid": grid,
        "values": values,
        "protocol": protocol,
        "results": ([*own, *first] if first else others)[:VALUES_OF_A_RUN],
        "names": plain_names(values),
        "extractors": extractors_of(values),
        "curves": _panels(run.folder / "metrics.jsonl"),
    }


def _page_of(report: Path) -> Path:
    page = report / "report.html"
    return page if page.is_file() else report / "report.json"


def _grid(folder: Path, place: Path) -> tuple[dict[str, str] | None, list[str]]:
    """Returns the newest readable sample grid of a run, reduced to GRID_SIDE, and a note on each newer one."""
    notes = []
    for file in sorted(folder.glob("samples/step-*.png"), reverse=True):
        stream = io.BytesIO()
        try:
            with Image.open(file) as image:
                grid = image.convert("RGB")
            grid.thumbnail((GRID_SIDE, GRID_SIDE))
            grid.save(stream, format="JPEG", quality=85)
        except Exception as error:  # a damaged image can raise almost any error
            notes.append(f"samples/{file.name}: cannot be read ({error})")
            continue
        shown = address("image/jpeg", stream.getvalue())
        return {"name": f"samples, {file.stem}", "link": _link(file, place), "address": shown}, notes
    return None, notes


def _link(path: Path, place: Path) -> str:
    """Returns the address of a path relative to the folder of a page."""
    return quote(os.fsencode(Path(os.path.relpath(path.absolute(), place.absolute())).as_posix()))


def _panels(training_log: Path) -> list[dict[str, Any]]:
    """Returns the panels of curves of a training log: their ranges, and the points of each curve."""
    try:
        curves = read_curves(training_log)
    except EvaluationError:
        return []
    shown = [([name for name in names if name in curves], axis) for names, axis in CURVES.items()]
    return [_panel({name: curves[name] for name in names}, axis) for names, axis in shown if names]


def _panel(curves: Curves, axis: str) -> dict[str, Any]:
    steps, values = (np.concatenate(part) for part in zip(*curves.values(), strict=True))
    first, last, low, high = steps.min(), steps.max(), values.min(), values.max()
    lines = []
    for colour, (name, curve) in zip(COLOURS, curves.items(), strict=False):
        x, y = (part for part in _thinned(*curve))
        across = WIDTH * (x - first) / max(last - first, 1)
        down = HEIGHT * (1 - (y - low) / (high - low)) if high > low else np.full(len(y), HEIGHT / 2)
        points = " ".join(f"{left:.1f},{top:.1f}" for left, top in zip(across, down, strict=True))
        lines.append({"name": CURVE_NAMES[name], "colour": colour, "points": points, "last": f"{curve[1][-1]:.4g}"})
    return {"axis": axis, "first": f"{first:g}", "last": f"{last:g}", "low": low, "high": high, "lines": lines}


def _thinned(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the smallest and the largest value of each of at most PARTS parts of a curve, by step."""
    if len(values) <= 2 * PARTS:
        return steps, values
    parts = np.array_split(np.arange(len(values)), PARTS)
    kept = np.unique([part[pick(values[part])] for part in parts for pick in (np.argmin, np.argmax)])
    return steps[kept], values[kept]


__all__ = ["index_page"]
