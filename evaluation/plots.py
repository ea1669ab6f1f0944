"""Pictures of images and curves. Figures are drawn on their own canvas, without pyplot and its global state."""

import json
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from evaluation.errors import EvaluationError
from evaluation.files import replacing
from evaluation.images import check_images

GAP = 2  # white pixels between images
CURVES = (("d_loss", "g_loss"), ("real_logit", "fake_logit"))  # one panel each


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


def _rows_of_grid(count: int, labels: Tensor | None, columns: int) -> list[list[int]]:
    if labels is None:
        groups = [list(range(count))]
    else:
        groups = [(labels == label).nonzero()[:, 0].tolist() for label in labels.unique()]
    return [group[start : start + columns] for group in groups for start in range(0, len(group), columns)]


def plot_curves(metrics_jsonl: str | Path, out_png: str | Path) -> None:
    """Losses and logits over the steps of a run's metrics.jsonl, as a PNG.

    Lines without a step, with other keys, cut short (a run that was killed) or with values that are no numbers are
    passed over; what is left is drawn.

    Raises:
        EvaluationError: the file is missing or holds none of the known curves.
    """
    try:
        lines = Path(metrics_jsonl).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"{metrics_jsonl}: cannot be read ({error})") from error
    records = [record for record in map(_record, lines) if record is not None]
    panels = [[name for name in names if any(name in record for record in records)] for names in CURVES]
    panels = [names for names in panels if names]
    if not panels:
        known = ", ".join(name for names in CURVES for name in names)
        raise EvaluationError(f"{metrics_jsonl}: got no curve, expected lines with step and one of {known}")
    figure = _figure(len(panels))
    for axes, names in zip(figure.axes, panels, strict=True):
        for name in names:
            points = sorted((record["step"], record[name]) for record in records if name in record)
            axes.plot(*zip(*points, strict=True), label=name, linewidth=1)
        axes.set_xlabel("generator steps")
        axes.legend()
    _save_figure(figure, Path(out_png))


def _record(line: str) -> dict[str, float] | None:
    """The finite numbers of one line, None where it is no object with a step."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict):
        return None
    numbers = {
        name: float(value)
        for name, value in record.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)
    }
    return numbers if "step" in numbers else None


def plot_critics(losses: np.ndarray, steps: int, title: str, out_png: str | Path, *, chance: float) -> None:
    """Training losses (critics, points) of Neural Divergence over `steps`, with that of a critic that says nothing."""
    figure = _figure(1)
    axes = figure.axes[0]
    positions = np.linspace(0, steps, losses.shape[1], endpoint=False)
    for number, curve in enumerate(losses):
        axes.plot(positions, curve, linewidth=1, label=f"critic {number}")
    axes.axhline(chance, color="grey", linestyle="--", linewidth=1, label=f"chance, {chance:.3g}")
    axes.set_title(title)
    axes.set_xlabel("critic steps")
    axes.set_ylabel("loss")
    axes.legend()
    _save_figure(figure, Path(out_png))


def _figure(panels: int) -> Figure:
    figure = Figure(figsize=(6 * panels, 4), layout="constrained")
    FigureCanvasAgg(figure)
    for number in range(panels):
        figure.add_subplot(1, panels, number + 1)
    return figure


def _save_figure(figure: Figure, path: Path) -> None:
    figure.canvas.draw()
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    _write(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"), path)


def _write(image: Image.Image, path: Path) -> None:
    try:
        with replacing(path) as beside:
            image.save(beside, format="PNG")
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be written ({error})") from error
