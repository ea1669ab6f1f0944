"""Image grids and figures of curves, drawn without pyplot and its global state."""

import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from evaluation.errors import EvaluationError
from evaluation.images.checks import check_images
from evaluation.reporting.value import ReportData
from evaluation.runtime.drawing import load_matplotlib
from evaluation.runtime.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

GAP = 2  # white pixels between images
CURVES = {  # panels of curves in the training logs of GANs and classifiers -> label of the x axis
    ("d_loss", "g_loss"): "generator steps",
    ("real_logit", "fake_logit"): "generator steps",
    ("loss", "test_loss"): "steps",
    ("accuracy", "test_accuracy"): "steps",
}
CURVE_NAMES = {
    "d_loss": "loss of the discriminator",
    "g_loss": "loss of the generator",
    "real_logit": "mean logit of real images",
    "fake_logit": "mean logit of generated images",
    "loss": "training loss",
    "test_loss": "test loss",
    "accuracy": "training accuracy",
    "test_accuracy": "test accuracy",
}
# Okabe and Ito's palette for colour-blind readers, without its yellow.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
MAX_COLUMNS = 2  # panels side by side
LAYERS = {  # curves over the layers of a classifier -> the report's arrays that hold them
    "spectral norm": "spectra/spectral_norm",
    "stable rank": "spectra/stable_rank",
    "stable rank / min(rows, columns)": "spectra/normalized_stable_rank",
}
LINES = ("-", "--", ":")  # of the first, second and third seven runs
WATCHED = {  # curves of a discriminator's gradients -> titles of their panels
    "gradients/whole": "gradient of the loss, all weights",
    "slopes/real_mean": "gradient of D(x) in x, real images",
    "slopes/fake_mean": "gradient of D(x) in x, generated images",
    "saturated/real": "share of real images without gradient",
    "saturated/fake": "share of generated images without gradient",
    "gradients/": "gradient of the loss, ",  # followed by the layer
    "sigma/": "spectral norm, ",
}
LARGEST = 1e300  # larger values of a curve overflow matplotlib's axes

Curves = dict[str, tuple[np.ndarray, np.ndarray]]  # name -> steps and values, by ascending step


def save_grid(images: Tensor, path: str | Path, *, labels: Tensor | None = None, columns: int = 8) -> None:
    """Writes a PNG of uint8 images (N, C, H, W), `columns` per row; with labels, each class begins a new row.

    Raises:
        EvaluationError: images of a wrong type or shape.
    """
    check_images(images, "grid")
    groups = [images] if labels is None else [images[labels == label] for label in labels.unique()]
    rows = [row.cpu().numpy() for group in groups for row in group.split(columns)]
    _write(Image.fromarray(_tiled(rows)), Path(path))


def save_neighbours(samples: np.ndarray, neighbours: np.ndarray, path: str | Path) -> None:
    """Writes a PNG with one row per sample, uint8 (N, C, H, W), followed by its neighbours, (N, k, C, H, W).

    Raises:
        EvaluationError: images of a wrong type or shape.
    """
    rows = np.concatenate([samples[:, None], neighbours], axis=1)  # (N, 1 + k, C, H, W)
    save_grid(torch.from_numpy(rows).flatten(0, 1), path, columns=rows.shape[1])


def _tiled(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Tiles rows of equally large uint8 images (C, H, W) on a white canvas (height, width, 3), with gaps."""
    height, width = rows[0][0].shape[1:]
    size = len(rows) * (height + GAP) + GAP, max(map(len, rows)) * (width + GAP) + GAP
    canvas = np.full((*size, 3), 255, dtype=np.uint8)
    for top, row in enumerate(rows):
        for left, image in enumerate(row):
            y, x = top * (height + GAP) + GAP, left * (width + GAP) + GAP
            canvas[y : y + height, x : x + width] = image.transpose(1, 2, 0)
    return canvas


def read_curves(metrics_jsonl: str | Path) -> Curves:
    """Reads the curves named in CURVES from a run's metrics.jsonl, those of test images from its "metrics".

    Skips lines without a step, incomplete lines of a killed run, and values that are not finite numbers.

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
    """Writes `curves_figure` of a run's metrics.jsonl as a PNG.

    Raises:
        EvaluationError: the file is missing or holds none of the known curves.
    """
    save_figure(curves_figure(read_curves(metrics_jsonl)), out_png)


def curves_figure(curves: Curves) -> "Figure":
    """Draws training curves: losses in one panel, logits or accuracies in another."""
    panels = [([name for name in names if name in curves], axis) for names, axis in CURVES.items()]
    panels = [(names, axis) for names, axis in panels if names]
    figure = _figure(len(panels))
    for axes, (names, axis) in zip(figure.axes, panels, strict=True):
        for name in names:
            axes.plot(*curves[name], label=CURVE_NAMES[name], linewidth=1.2)
        axes.set_xlabel(axis)
        axes.legend()
    return figure


def overlaid_figure(
    panels: Mapping[str, Curves], *, order: Sequence[str], marker: str = "", axis: str = "generator steps"
) -> "Figure":
    """Draws a panel for each name and a curve for each run.

    Args:
        panels: panel -> run -> positions and values.
        order: labels of all runs, drawn or not; a run's position decides its colour in every figure.
    """
    figure = _figure(len(panels))
    for axes, (title, curves) in zip(figure.axes, panels.items(), strict=True):
        for run, (steps, values) in curves.items():
            colour = colour_of(order.index(run))
            axes.plot(steps, values, label=plain(run), color=colour, linewidth=1, marker=marker, markersize=4)
        axes.set_title(plain(title))
        axes.set_xlabel(axis)
        if len(order) > 1:
            axes.legend()
    return figure


def panels_of(runs: Mapping[str, Curves]) -> dict[str, Curves]:
    """Swaps the keys: run -> name -> curve becomes name -> run -> curve."""
    names = dict.fromkeys(name for curves in runs.values() for name in curves)
    return {name: {run: curves[name] for run, curves in runs.items() if name in curves} for name in names}


def layer_curves(arrays: Mapping[str, np.ndarray]) -> Curves:
    """Returns curves over layers, numbered from 1, by the names in LAYERS, from a report's arrays."""
    found = {name: arrays[array] for name, array in LAYERS.items() if array in arrays}
    return {name: (np.arange(1, len(values) + 1), values) for name, values in found.items()}


def layers_figure(runs: Mapping[str, Curves]) -> "Figure":
    """Draws `layer_curves` of each run, with a panel for each name."""
    return overlaid_figure(panels_of(runs), order=list(runs), marker="o", axis="layer")


def _record(line: str) -> dict[str, float] | None:
    """Returns the finite numbers of a line and of its "metrics"; None unless it is an object with a step."""
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


def critics_figure(report: ReportData, name: str) -> "Figure":
    """Draws training losses (critics, points) of Neural Divergence, and the loss of a critic with constant output.

    Args:
        name: name of the losses in the report's arrays, such as "nd_short/srn2020/losses".
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


def svg(figure: "Figure") -> bytes:
    """Renders a figure as a standalone SVG; equal figures give equal bytes. Texts use the viewer's sans-serif font."""
    import matplotlib

    stream = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "figure"}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def png(images: Sequence[np.ndarray]) -> bytes:
    """Encodes one row of equally large uint8 images (C, H, W) as a PNG, without a frame."""
    stream = io.BytesIO()
    Image.fromarray(_tiled([images])[GAP:-GAP, GAP:-GAP]).save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def colour_of(place: int) -> str:
    """Returns the colour of the run at a position; colours repeat after seven."""
    return COLOURS[place % len(COLOURS)]


def plain(text: str) -> str:
    """Escapes text for matplotlib: a dollar begins a formula, a leading underscore hides a legend entry."""
    return (" " + text if text.startswith("_") else text).replace("$", "\\$")


def gradients_figure(runs: Mapping[str, Sequence[Curves]], titles: Mapping[str, str] | None = None) -> "Figure":
    """Draws gradients of discriminators over generator steps: a panel for each quantity and layer, a curve per label.

    Several runs of a label, such as seeds, are drawn as their median in a band from minimum to maximum, at the steps
    that all of them have. Panels of a kind share their vertical axis, logarithmic if values differ by a factor of ten.

    Args:
        runs: label -> the runs' curves by tags such as "slopes/real_mean" and "gradients/LAYER".
        titles: titles of the panels by tag, by "gradients/" that of all layers, which the layer's name follows; None:
            WATCHED. Tags without a title or a curve are left out.

    Raises:
        EvaluationError: the runs of a label have no step in common.
    """
    tags = dict.fromkeys(tag for several in runs.values() for curves in several for tag in curves)
    titles = _titles(tags, WATCHED if titles is None else titles)
    figure = _figure(len(titles), columns=4)
    first: dict[str, Axes] = {}
    drawn: dict[str, Line2D] = {}
    for axes, (tag, title) in zip(figure.axes, titles.items(), strict=True):
        axes.sharey(first.setdefault(_kind(tag), axes))
        for place, (label, several) in enumerate(runs.items()):
            found = [curves[tag] for curves in several if tag in curves]
            if found:
                drawn[label] = _draw_several(axes, found, label, place)
        axes.set_title(plain(title))
        axes.set_xlabel("generator steps")
    for kind, axes in first.items():
        drawn_tags = [tag for tag in titles if _kind(tag) == kind]
        parts = [
            curves[tag][1] for several in runs.values() for curves in several for tag in drawn_tags if tag in curves
        ]
        values = np.concatenate(parts)
        if kind != "saturated" and values.max() >= 10 * values[values > 0].min(initial=np.inf):
            axes.set_yscale("log", nonpositive="mask")
    figure.legend(list(drawn.values()), [plain(label) for label in drawn], loc="outside upper center", ncols=4)
    return figure


def _titles(tags: Iterable[str], wanted: Mapping[str, str]) -> dict[str, str]:
    """Titles of the tags that have one, in the order of the wanted titles."""
    found = {}
    for wanted_tag, title in wanted.items():
        for tag in tags:
            if tag == wanted_tag or (tag not in wanted and wanted_tag.endswith("/") and tag.startswith(wanted_tag)):
                found[tag] = title + tag.removeprefix(wanted_tag)
    return found


def _kind(tag: str) -> str:
    return tag.partition("/")[0]


def _draw_several(axes: "Axes", several: Sequence[tuple[np.ndarray, np.ndarray]], label: str, place: int) -> "Line2D":
    """Draws the median of several curves, at their common steps, in a band from minimum to maximum."""
    steps = several[0][0]
    for further, _ in several[1:]:
        steps = np.intersect1d(steps, further)
    if not len(steps):
        raise EvaluationError(
            f"{label}: its runs have no step in common, expected the same train.gradients_every and train.log_every; "
            "draw them apart"
        )
    values = np.stack([values[np.isin(own, steps)] for own, values in several])  # (runs, steps)
    colour, line = colour_of(place), LINES[place // len(COLOURS) % len(LINES)]
    (drawn,) = axes.plot(steps, np.median(values, 0), color=colour, linestyle=line, linewidth=1.2)
    if len(several) > 1:
        axes.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0)
    return drawn


def _figure(panels: int, columns: int = MAX_COLUMNS) -> "Figure":
    load_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    columns = min(panels, columns)
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


def save_figure(figure: "Figure", path: str | Path) -> None:
    """Writes a figure as a PNG.

    Raises:
        EvaluationError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.canvas.draw()
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    _write(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"), Path(path))


def _write(image: Image.Image, path: Path) -> None:
    try:
        with replacing(path) as partial:
            image.save(partial, format="PNG")
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be written ({error})") from error
