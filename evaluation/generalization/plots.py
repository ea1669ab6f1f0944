"""Histograms of sample complexities, as in Figure 4 of Sanyal et al. 2020."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from evaluation.errors import EvaluationError
from evaluation.generalization.measures import Complexity
from evaluation.histograms import BINS, density
from evaluation.plots import colour_of, plain, save_figure

MEASURES = {"jac_norm": "log Jac-Norm", "spec_l1": "log Spec-L1", "spec_fro": "log Spec-Fro"}


def plot_complexity(runs: Mapping[str, Complexity], out_png: str | Path) -> None:
    """One panel for each measure: densities on shared bins, dashed 90th percentiles. The more to the left, the better.

    Args:
        runs: by the names to print. Leave out those far from the others, such as deep networks without normalization in
            the spectral measures, as the paper does: all runs share an axis.

    Raises:
        EvaluationError: no runs, or one without a finite value of a measure.
    """
    if not runs:
        raise EvaluationError("histograms: got no runs, expected at least one")
    figure = Figure(figsize=(12, 4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, measure in zip(figure.subplots(1, len(MEASURES)), MEASURES, strict=True):
        _draw(axes, measure, runs)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(runs), frameon=False)
    save_figure(figure, out_png)


def _draw(axes: Axes, measure: str, runs: Mapping[str, Complexity]) -> None:
    samples = {label: _finite(label, measure, run) for label, run in runs.items()}
    edges = shared_bins(list(samples.values()))
    for place, (label, values) in enumerate(samples.items()):
        heights, colour = density(values, edges), colour_of(place)
        axes.stairs(heights, edges, color=colour, fill=True, alpha=0.12)
        axes.stairs(heights, edges, color=colour, linewidth=1.5, label=plain(label))
        axes.axvline(runs[label].percentile(90)[measure], color=colour, linestyle="--", linewidth=1.2)
    axes.set(xlabel=MEASURES[measure], ylabel="density")
    axes.spines[["top", "right"]].set_visible(False)


def _finite(label: str, measure: str, run: Complexity) -> np.ndarray:
    values = getattr(run, measure).numpy()
    values = values[np.isfinite(values)]
    if not len(values):
        raise EvaluationError(
            f"histograms: got no finite {MEASURES[measure]} of {label}, expected some; is an image classified rightly?"
        )
    return values


def shared_bins(samples: Sequence[np.ndarray]) -> np.ndarray:
    """Edges (BINS + 1,) from the least of the samples' 0.5th percentiles to the largest of their 99.5th, and a margin.

    A few margins near zero would otherwise leave all the rest in the first bins.
    """
    low = min(float(np.percentile(values, 0.5)) for values in samples)
    high = max(float(np.percentile(values, 99.5)) for values in samples)
    margin = 0.05 * (high - low) or 0.5
    return np.linspace(low - margin, high + margin, BINS + 1)
