"""Self-contained HTML pages from Jinja templates: no scripts, fonts or other files; images as data: URLs."""

import base64
import json
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import count, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from torch.nn import functional

from evaluation.errors import EvaluationError
from evaluation.reporting import histograms, plots
from evaluation.reporting.comparison import FOOTNOTE, MISSING, Comparison
from evaluation.reporting.names import extractors_of, ordered, plain_names, real_key
from evaluation.reporting.ranking import DIGITS, shown
from evaluation.reporting.tables import (
    class_name,
    class_table,
    count_text,
    heading,
    interval_text,
    notes,
    values_by_class,
    with_spread,
)
from evaluation.reporting.value import ReportData
from evaluation.runtime.drawing import can_draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLE_PIXELS = 2**18  # limit of a page's sample grid: 256 images of 32x32
SAMPLE_COLUMNS = 8
SIDE = 64  # larger images are reduced to this size, in pixels
TOP_ROWS = 10  # rows of samples at the top of a page


def report_page(report: ReportData, *, training_log: str | Path | None = None) -> str:
    """Renders a report as one page: samples, the most important values, figures, and details that are folded.

    Args:
        training_log: metrics.jsonl of the run; if it has no curves, the page says so.
    """
    drawing = can_draw()
    losses = [name for name in report.arrays if name.endswith("/losses") and drawing]
    first, others = ordered(report.values)
    return rendered(
        "report.html",
        title=heading(report),
        report=report,
        protocol=report.protocol,
        entries=report.protocol["values"],
        names=plain_names(report.values),
        extractors=extractors_of(report.values),
        first=first,
        has_spread=any(report.protocol["values"][key]["std"] is not None for key in first),
        keys=first + others,
        of_real={key: report.values.get(real_key(key)) for key in report.values},
        notes=notes(report),
        top=_top(report),
        samples=_samples(report),
        neighbours=_neighbours(report),
        classes=class_table(report),
        by_class=[_by_class(report, key, values) for key, values in values_by_class(report).items()],
        histograms=[
            (histograms.FAMILIES[family], histograms.kinds_figure(report, family))
            for family in histograms.families(report)
            if drawing
        ],
        layers=_layers(report),
        has_log=training_log is not None and drawing,
        curves=None if training_log is None or not drawing else _curves(training_log),
        critics={name.removesuffix("/losses"): plots.critics_figure(report, name) for name in losses},
        arrays=[f"{name}  {array.dtype} {array.shape}" for name, array in report.arrays.items()],
    )


def comparison_page(comparison: Comparison, figures: "Mapping[str, Figure]", reports: Mapping[str, ReportData]) -> str:
    """Renders a comparison as one page: samples, the most important values, figures, and details that are folded."""
    names = dict.fromkeys(name for subject in comparison.subjects for name in subject)
    shown_first = comparison.first or comparison.rows
    return rendered(
        "comparison.html",
        title=" and ".join(dict.fromkeys(report.protocol["title"] for report in reports.values())) or "Comparison",
        comparison=comparison,
        first=shown_first,
        others=[row for row in comparison.rows if row not in shown_first],
        labels=list(comparison.labels),
        footnote=FOOTNOTE,
        missing=MISSING,
        subjects={name: [shown(subject.get(name, ...)) for subject in comparison.subjects] for name in names},
        figures=[(histograms.heading_of(name), figure) for name, figure in figures.items()],
        samples={label: rows for label, report in reports.items() if (rows := _samples(report)[:TOP_ROWS])},
    )


def rendered(template: str, **context: Any) -> str:
    """Renders a template; escapes all texts."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {
        "arrows": {"lower": "↓ lower", "higher": "↑ higher", "": ""},
        "digits": DIGITS,
        "count_text": count_text,
        "enlarged_width": _enlarged_width,
        "indented": partial(json.dumps, indent=2, ensure_ascii=False),
        "interval_text": interval_text,
        "plain": lambda item: item if isinstance(item, str) else json.dumps(item, ensure_ascii=False),
        "png": lambda images: address("image/png", plots.png(images)),
        # Embedded as an image, a figure cannot inject anything into the page.
        "svg": lambda figure: address("image/svg+xml", plots.svg(figure)),
        "with_spread": with_spread,
    }
    return environment.get_template(template).render(context)


def address(kind: str, content: bytes) -> str:
    """Returns an address that holds the content itself; kind: its media type, such as "image/png"."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _top(report: ReportData) -> list[tuple[str, np.ndarray, np.ndarray | None]]:
    """Returns the first rows of samples: name, generated images and, if there are some, real images beside them."""
    generated, real = _samples(report)[:TOP_ROWS], _samples(report, "reference_sample")
    if any(name for name, _ in real):
        by_class = dict(real)
        beside = [by_class.get(name) for name, _ in generated]
    else:
        beside = [images for _, images in real[: len(generated)]]
    columns = SAMPLE_COLUMNS // 2 if any(images is not None for images in beside) else SAMPLE_COLUMNS
    return [
        (name, images[:columns], None if known is None else known[:columns])
        for (name, images), known in zip_longest(generated, beside)
    ]


def _samples(report: ReportData, kind: str = "sample") -> list[tuple[str, np.ndarray]]:
    """Returns named rows of images, one per class if labels are known, up to SAMPLE_PIXELS in total.

    Args:
        kind: "sample" or "reference_sample".
    """
    if f"{kind}s" not in report.arrays:
        return []
    images, labels = _small(report.arrays[f"{kind}s"]), report.arrays.get(f"{kind}_labels")
    if labels is None:
        rows = [("", images[start : start + SAMPLE_COLUMNS]) for start in range(0, len(images), SAMPLE_COLUMNS)]
    else:
        names = report.protocol["class_names"]
        rows = [(class_name(int(label), names), images[labels == label]) for label in np.unique(labels)]
    return rows[: max(SAMPLE_PIXELS // (SAMPLE_COLUMNS * images.shape[2] * images.shape[3]), 1)]


def _neighbours(report: ReportData) -> list[dict[str, Any]]:
    """Returns samples with their names, copy ratios and nearest reference images with distances."""
    arrays = report.arrays
    if "neighbours" not in arrays:
        return []
    labels, ratios = arrays.get("neighbour_labels"), arrays.get("neighbour_ratios")
    samples, found = _small(arrays["neighbour_samples"]), arrays["neighbours"]
    return [
        {
            "sample": samples[row],
            "name": "" if labels is None else class_name(int(labels[row]), report.protocol["class_names"]),
            "ratio": "" if ratios is None or not np.isfinite(ratios[row]) else f"ratio {ratios[row]:.3g}",
            "nearest": list(zip(_small(found[row]), arrays["neighbour_distances"][row], strict=True)),
        }
        for row in range(len(found))
    ]


def _by_class(report: ReportData, key: str, by_label: dict[int, float]) -> dict[str, Any]:
    """Returns the values of one metric by class, with bars from 0 to the largest."""
    values = np.array(list(by_label.values()))
    finite = values[np.isfinite(values)]
    lead = f"{len(values)} classes"
    if len(finite):
        lead += f", from {finite.min():.4g} to {finite.max():.4g}, mean {finite.mean():.4g}"
    widths = 100 * np.where(np.isfinite(values), values, 0).clip(min=0) / max(float(finite.max(initial=0)), 1e-12)
    names = [class_name(label, report.protocol["class_names"]) for label in by_label]
    columns = names, _class_counts(report, key, len(values)), (f"{width:.1f}" for width in widths), by_label.values()
    rows = [dict(zip(("name", "count", "width", "value"), row, strict=True)) for row in zip(*columns, strict=True)]
    return {"name": plain_names(report.values).get(key, key), "lead": f"{lead}.", "rows": rows}


def _class_counts(report: ReportData, key: str, num_classes: int) -> list[str]:
    """Formats the counts of each class, such as "500 generated, 5,000 reference" or "100 images"; "" if unknown."""
    classes = report.protocol["values"].get(key, {}).get("record", {}).get("classes", [])
    kinds = ("generated", "reference", "images")
    counts = [", ".join(f"{entry[kind]:,} {kind}" for kind in kinds if kind in entry) for entry in classes]
    return counts or [""] * num_classes


def _layers(report: ReportData) -> dict[str, Any]:
    """Returns figure and table of the layers' spectra; empty if the report has none."""
    curves = plots.layer_curves(report.arrays)
    if not curves:
        return {}
    records = (entry["record"] for entry in report.protocol["values"].values())
    names: list[str] = next((record["layers"] for record in records if "layers" in record), [])
    return {
        "figure": plots.layers_figure({report.protocol["title"]: curves}) if can_draw() else None,
        "header": ["layer", "name", *curves],
        "rows": zip(count(1), names, *(values for _, values in curves.values()), strict=False),
    }


def _curves(training_log: str | Path) -> "Figure | None":
    try:
        return plots.curves_figure(plots.read_curves(training_log))
    except EvaluationError:
        return None


def _small(images: np.ndarray) -> np.ndarray:
    """Reduces images (N, C, H, W) larger than SIDE by a whole factor, averaging pixels."""
    factor = -(-max(images.shape[2:]) // SIDE)
    if factor == 1:
        return images
    pooled = functional.avg_pool2d(torch.from_numpy(images).float(), factor)
    return pooled.round().byte().numpy()


def _enlarged_width(images: Sequence[np.ndarray]) -> int:
    """Returns the width of a row of images on a page; small images are enlarged by a whole factor."""
    width = sum(image.shape[2] + plots.GAP for image in images) - plots.GAP
    return width * max(SIDE // images[0].shape[2], 1)
