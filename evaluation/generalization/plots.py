"""Histograms of sample complexities, as in Figure 4 of Sanyal et al. 2020."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from evaluation.errors import EvaluationError
from evaluation.generalization.measures import Complexity
from evaluation.reporting.histograms import FAMILIES, NAMES, Curve, Panel, panels_figure
from evaluation.reporting.plots import save_figure

ORDER = ("jac_norm", "spec_l1", "spec_fro")  # as in the paper


def plot_complexity(runs: Mapping[str, Complexity], out_png: str | Path) -> None:
    """Plots one panel per measure: densities on shared bins, with dashed 90th percentiles; smaller is better.

    Args:
        runs: complexities by displayed name. All runs share an axis, so leave out runs that are far from the others,
            such as deep networks without normalization in the spectral measures; the paper does so too.

    Raises:
        EvaluationError: no runs, or one without a finite value of a measure.
    """
    if not runs:
        raise EvaluationError("histograms: got no runs, expected at least one")
    save_figure(panels_figure([_panel(measure, runs) for measure in ORDER]), out_png)


def _panel(measure: str, runs: Mapping[str, Complexity]) -> Panel:
    title = NAMES[f"complexity/{measure}"]
    curves = []
    for place, (label, run) in enumerate(runs.items()):
        values = getattr(run, measure).numpy()
        if not np.isfinite(values).any():
            raise EvaluationError(
                f"histograms: got no finite {title} of {label}, expected some; is any image classified correctly?"
            )
        curves.append(Curve(label, place, values[np.isfinite(values)], run.percentile(90)[measure]))
    return Panel(FAMILIES["complexity"], title, curves)
