"""Histograms of sample complexities, as in Figure 4 of Sanyal et al. 2020."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from evaluation.errors import EvaluationError
from evaluation.generalization.measures import Complexity
from evaluation.reporting.histograms import FAMILIES, NAMES, Curve, Panel, panels_figure
from evaluation.reporting.plots import save_figure

ORDER = ("jac_norm", "spec_l1", "spec_fro")  # the paper's


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
    save_figure(panels_figure([_panel(measure, runs) for measure in ORDER]), out_png)


def _panel(measure: str, runs: Mapping[str, Complexity]) -> Panel:
    title = NAMES[f"complexity/{measure}"]
    curves = []
    for place, (label, run) in enumerate(runs.items()):
        values = getattr(run, measure).numpy()
        if not np.isfinite(values).any():
            raise EvaluationError(
                f"histograms: got no finite {title} of {label}, expected some; is an image classified rightly?"
            )
        curves.append(Curve(label, place, values[np.isfinite(values)], run.percentile(90)[measure]))
    return Panel(FAMILIES["complexity"], title, curves)
