"""Pictures of images and curves. Figures are drawn on their own canvas, without pyplot and its global state."""

import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor

from evaluation.errors import EvaluationError
from evaluation.images.reader import check_images
from evaluation.reporting.value import Measured
from evaluation.runtime.files import replacing

GAP = 2  # white pixels between images
CURVES = {  # one panel each: what a GAN's log has, or a classifier's, and over what
    ("d_loss", "g_loss"): "generator steps",
    ("real_logit", "fake_logit"): "generator steps",
    ("loss", "test_loss"): "steps",
    ("accuracy", "test_accuracy"): "steps",
}
# Okabe and Ito's palette, told apart by colour-blind people, without its yellow.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
MAX_COLUMNS = 2  # panels beside each other
LAYERS = {  # of a classifier: what is drawn over its layers, and the arrays of a report that have it
    "spectral norm": "spectra/spectral_norm",
    "stable rank": "spectra/stable_rank",
    "stable rank / min(rows, columns)": "spectra/normalized_stable_rank",
}
LARGEST = 1e300  # of a curve; matplotlib's axes have no room for larger ones

Curves = dict[str, tuple[np.ndarray, np.ndarray]]  # name -> steps and values, in order of the steps


def save_grid(images: Tensor, path: str | Path, *, labels: Tensor | None = None, columns: int = 8) -> None:
    """A PNG of uint8 images (N, 3, H, W), `columns` to a row; with labels, each class has rows of its own.

    Raises:
        EvaluationError: images of another form.
    """
    check_images(images, "grid")
    rows = _rows_of_grid(len(images), labels, columns)
    height, width = images.shape[2] + GAP, images.shape[3] + GAP
    used = max(len(row) for row in rows)
    canvas = np.full((len(rows) * height + GAP, used * width + GAP, 3), 255, dtype=np.uint8)
    pixels = images.cpu().permute(0, 2, 3, 1).numpy()
    for top, row in enumerate(rows):
        for left, index in enumerate(row):
            y, x = top * height + GAP, left * width + GAP
            canvas[y : y + height - GAP, x : x + width - GAP] = pixels[index]
    _write(Image.fromarray(canvas), Path(path))


def save_neighbours(samples: np.ndarray, neighbours: np.ndarray, path: str | Path) -> None:
    """A PNG with a row for each sample uint8 (N, 3, H, W): the sample, then its neighbours (N, k, 3, H, W).

    Raises:
        EvaluationError: images of another form.
    """
    rows = np.concatenate([samples[:, None], neighbours], axis=1)  # (N, 1 + k, 3, H, W)
    save_grid(torch.from_numpy(rows).flatten(0, 1), path, columns=rows.shape[1])


def _rows_of_grid(count: int, labels: Tensor | None, columns: int) -> list[list[int]]:
    if labels is None:
        groups = [list(range(count))]
    else:
        groups = [(labels == label).nonzero()[:, 0].tolist() for label in labels.unique()]
    return [group[start : start + columns] for group in groups for start in range(0, len(group), columns)]


def read_curves(metrics_jsonl: str | Path) -> Curves:
    """The curves in CURVES over the steps of a run's metrics.jsonl; those of the test images are among its "metrics".

    Lines without a step, with other keys, cut short (a run that was killed) or with values that are no numbers are
    passed over.

    Raises:
        EvaluationError: the file is missing or holds none of the known curves.
    """
    try:
        lines = Path(metrics_jsonl).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"{metrics_jsonl}: cannot be read ({error})") from error
    records = [record for record in map(_record, lines) if record is not None]
    known = [name for names in CURVES for name in names]
    points = {name: sorted((record["step"], record[name]) for record in records if name in record) for name in known}
    curves = {name: (np.array(pairs)[:, 0], np.array(pairs)[:, 1]) for name, pairs in points.items() if pairs}
    if not curves:
        raise EvaluationError(f"{metrics_jsonl}: got no curve, expected lines with step and one of {', '.join(known)}")
    return curves


def plot_curves(metrics_jsonl: str | Path, out_png: str | Path) -> None:
    """`curves_figure` of a run's metrics.jsonl, as a PNG.

    Raises:
        EvaluationError: the file is missing or holds none of the known curves.
    """
    save_figure(curves_figure(read_curves(metrics_jsonl)), out_png)


def curves_figure(curves: Curves) -> Figure:
    """Losses in one panel; logits, or accuracies, in another."""
    panels = [([name for name in names if name in curves], axis) for names, axis in CURVES.items()]
    panels = [(names, axis) for names, axis in panels if names]
    figure = _figure(len(panels))
    for axes, (names, axis) in zip(figure.axes, panels, strict=True):
        for name in names:
            axes.plot(*curves[name], label=name, linewidth=1)
        axes.set_xlabel(axis)
        axes.legend()
    return figure


def overlaid_figure(
    panels: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]],
    *,
    order: Sequence[str],
    marker: str = "",
    axis: str = "generator steps",
) -> Figure:
    """A panel for each name, in which every run has its curve: panel -> run -> steps, or what `axis` says, and values.

    Args:
        order: of all runs, drawn or not: a run's place in it decides its colour, in every figure.
    """
    figure = _figure(len(panels))
    for axes, (title, curves) in zip(figure.axes, panels.items(), strict=True):
        for run, (steps, values) in curves.items():
            colour = colour_of(order.index(run))
            axes.plot(steps, values, label=plain(run), color=colour, linewidth=1, marker=marker, markersize=4)
        axes.set_title(plain(title))
        axes.set_xlabel(axis)
        if any(curves):  # a run without a name has no legend
            axes.legend()
    return figure


def layer_curves(arrays: Mapping[str, np.ndarray]) -> Curves:
    """Of a report's arrays, by the names in LAYERS: layers, counted from 1, and values; empty where there are none."""
    found = {name: arrays[array] for name, array in LAYERS.items() if array in arrays}
    return {name: (np.arange(1, len(values) + 1), values) for name, values in found.items()}


def layers_figure(runs: Mapping[str, Curves]) -> Figure:
    """`layer_curves` of runs by name, a panel for each curve."""
    names = dict.fromkeys(name for curves in runs.values() for name in curves)
    panels = {name: {run: curves[name] for run, curves in runs.items() if name in curves} for name in names}
    return overlaid_figure(panels, order=list(runs), marker="o", axis="layer")


def _record(line: str) -> dict[str, float] | None:
    """The finite numbers of one line and of its "metrics", None where it is no object with a step."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    measured = record.get("metrics")
    items = {**measured, **record} if isinstance(measured, dict) else record
    numbers = {
        name: float(value)
        for name, value in items.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST
    }
    return numbers if "step" in numbers else None


def critics_figure(report: Measured, name: str) -> Figure:
    """Training losses (critics, points) of Neural Divergence, with the loss of a critic whose output is constant.

    Args:
        name: of the losses among the report's arrays, such as "nd_short/srn2020/losses".
    """
    losses, title = report.arrays[name], name.removesuffix("/losses")
    entry = next(entry for key, entry in report.protocol["values"].items() if key.startswith(f"{title}/"))
    chance = float(entry["record"].get("chance", 2 * math.log(2)))
    figure = _figure(1)
    axes = figure.axes[0]
    positions = np.linspace(0, int(entry["fields"]["steps"]), losses.shape[1], endpoint=False)
    for number, curve in enumerate(losses):
        axes.plot(positions, curve, linewidth=1, label=f"critic {number}")
    axes.axhline(chance, color="grey", linestyle="--", linewidth=1, label=f"chance, {chance:.3g}")
    axes.set_title(plain(title))
    axes.set_xlabel("critic steps")
    axes.set_ylabel("loss")
    axes.legend()
    return figure


def svg(figure: Figure) -> bytes:
    """A figure as a standalone SVG, equal for equal figures; text stays text, in whatever sans-serif font there is."""
    stream = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "figure"}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def png(images: Sequence[np.ndarray], *, gap: int = GAP) -> bytes:
    """Images (3, H, W) of one size, uint8, beside each other, as a PNG without a frame."""
    height, width = images[0].shape[1:]
    canvas = np.full((height, len(images) * (width + gap) - gap, 3), 255, dtype=np.uint8)
    for number, image in enumerate(images):
        canvas[:, number * (width + gap) :][:, :width] = image.transpose(1, 2, 0)
    stream = io.BytesIO()
    Image.fromarray(canvas).save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def colour_of(place: int) -> str:
    """The colour of what has this place among all runs; colours come again after seven."""
    return COLOURS[place % len(COLOURS)]


def plain(text: str) -> str:
    """Text that is drawn as it is: dollars would begin a formula, an underscore would hide it from a legend."""
    return (" " + text if text.startswith("_") else text).replace("$", "\\$")


def _figure(panels: int) -> Figure:
    columns = min(panels, MAX_COLUMNS)
    rows = -(-panels // columns)
    figure = Figure(figsize=(6 * columns, 4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(h_pad=0.1, w_pad=0.1)  # type: ignore[union-attr, call-arg]
    for number in range(panels):
        axes = figure.add_subplot(rows, columns, number + 1)
        axes.set_prop_cycle(color=COLOURS)
        axes.grid(color="0.92", linewidth=0.8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))  # steps and layers
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def save_figure(figure: Figure, path: str | Path) -> None:
    """A PNG of a figure.

    Raises:
        EvaluationError: it cannot be written.
    """
    figure.canvas.draw()
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    _write(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"), Path(path))


def _write(image: Image.Image, path: Path) -> None:
    try:
        with replacing(path) as beside:
            image.save(beside, format="PNG")
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be written ({error})") from error
