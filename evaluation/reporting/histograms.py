"""Histograms of values by image or pair, as in Figures 4, 5 and 12 to 16 of Sanyal et al. 2020.

They show empirical Lipschitz constants and Jacobian norms of discriminators; complexities, margins, noise sensitivities
and Lipschitz constants of classifiers. All values come from reports.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evaluation.errors import EvaluationError
from evaluation.reporting.comparison import difference
from evaluation.reporting.plots import colour_of, plain, save_figure
from evaluation.reporting.value import ReportData
from evaluation.runtime.drawing import load_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_BINS = 40
FEWEST_BINS = 15
MARKERS = ("o", "X")  # circles and crosses, as in the paper
STEEPEST = 5  # largest height of the axis, in peaks of the lowest histogram; a narrow one would flatten the others


def num_bins(samples: Sequence[np.ndarray]) -> int:
    """Returns the number of bins: the square root of the size of the largest sample, from FEWEST_BINS to MOST_BINS."""
    return int(np.clip(max(map(len, samples)) ** 0.5, FEWEST_BINS, MOST_BINS))


def shared_bins(samples: Sequence[np.ndarray]) -> np.ndarray:
    """Returns edges from 0 to just above the largest of the samples' 99.5th percentiles.

    With the maximum instead, a few outliers would put all other values in the first bin.
    """
    largest = max(float(np.percentile(values, 99.5)) for values in samples)
    return np.linspace(0, 1.05 * largest if largest > 0 else 1.0, num_bins(samples) + 1)


def signed_bins(samples: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the edges of `shared_bins`, but from just below the least of the samples' 0.5th percentiles."""
    low = min(float(np.percentile(values, 0.5)) for values in samples)
    high = max(float(np.percentile(values, 99.5)) for values in samples)
    margin = 0.05 * (high - low) or 0.5
    return np.linspace(low - margin, high + margin, num_bins(samples) + 1)


class Family(NamedTuple):
    """A group of kinds of values that share a figure.

    array: the report's array "kind/array" holds the values of a kind.
    line: the value "kind/line" is drawn as a dashed line.
    panels: whether each kind has its own axes.
    """

    title: str
    axis: str
    array: str
    metric: str  # metric of gan-eval, or measure of gan-eval-classifier
    line: str = "p95"
    bins: Callable[[Sequence[np.ndarray]], np.ndarray] = shared_bins
    panels: bool = False

    @property
    def line_name(self) -> str:
        """Name of the dashed line in legends."""
        return "median" if self.line == "p50" else f"{self.line[1:]}th percentile"


FAMILIES: dict[str, Family] = {
    "elhist": Family(
        "Empirical Lipschitz constants", "empirical Lipschitz constant  |f(x) − f(y)| / ‖x − y‖", "ratio", "elhist"
    ),
    "jacobian": Family("Jacobian norms", "Jacobian norm  ‖∇f(x)‖", "norm", "elhist"),
    "complexity": Family(
        "Sample complexities", "natural logarithm", "log", "complexity", "p90", bins=signed_bins, panels=True
    ),
    "margin": Family("Margins", "margin  f(x)[y] − max f(x)[j]", "value", "margin", "p50", bins=signed_bins),
    "noise": Family(
        "Noise sensitivity", "noise sensitivity  E ‖f(x + η‖x‖) − f(x)‖² / ‖f(x)‖²", "sensitivity", "noise", "p90"
    ),
    "local": Family("Local Lipschitz constants", "norm of the logits' Jacobian", "norm", "local"),
    "global": Family("Global Lipschitz constants", "‖f(x) − f(y)‖ / ‖x − y‖", "ratio", "global"),
}
NAMES = {
    "elhist/real_fake": "real and generated",
    "elhist/real_real": "real and real",
    "elhist/fake_fake": "generated and generated",
    "elhist/test_fake": "test and generated",
    "jacobian/real": "at real images",
    "jacobian/real_near": "near real images",
    "jacobian/fake": "at generated images",
    "jacobian/fake_near": "near generated images",
    "jacobian/test": "at test images",
    "jacobian/test_near": "near test images",
    "complexity/jac_norm": "log Jac-Norm",
    "complexity/spec_l1": "log Spec-L1",
    "complexity/spec_fro": "log Spec-Fro",
    "margin": "margins",
    "noise": "noise sensitivity",
    "local/spectral": "spectral norm",
    "local/frobenius": "Frobenius norm",
    "global": "pairs of images",
}


class Curve(NamedTuple):
    """One histogram, with its dashed line and its marker."""

    label: str
    place: int  # index of its colour and marker
    values: np.ndarray  # (N,), finite
    line: float
    score: float | None = None
    score_std: float | None = None


class Panel(NamedTuple):
    """Histograms on the same axes."""

    family: Family
    title: str
    curves: Sequence[Curve]


def histograms(report: ReportData) -> dict[str, np.ndarray]:
    """Returns the finite values (N,) of all kinds in a report, by names such as "elhist/real_fake"."""
    found = {}
    for kind in NAMES:
        array = report.arrays.get(f"{kind}/{_family(kind).array}")
        if array is not None and line_of(kind) in report.values and np.isfinite(array).any():
            found[kind] = array[np.isfinite(array)]
    return found


def families(report: ReportData) -> list[str]:
    """Returns the names of the families in a report."""
    return list(dict.fromkeys(_family_name(kind) for kind in histograms(report)))


def heading_of(title: str) -> str:
    """Returns a heading for a kind of values, or a family, written with a space: "elhist real_fake" or "complexity"."""
    kind, family = title.replace(" ", "/"), FAMILIES.get(title)
    if family:
        return family.title
    return f"{_family(kind).title}, {NAMES[kind]}" if kind in NAMES else title


def line_of(kind: str) -> str:
    """Returns the key of the value that is drawn as a dashed line, such as "elhist/real_fake/p95"."""
    return f"{kind}/{_family(kind).line}"


def plot_histograms(runs: Mapping[str, ReportData], kind: str, out_png: str | Path) -> None:
    """Plots one kind of several runs: densities, dashed percentiles, Inception Scores on a second axis.

    Args:
        runs: reports by displayed name.
        kind: one of NAMES, such as "elhist/real_fake". Ratios and Jacobian norms have different scales and never share
            a figure.

    Raises:
        EvaluationError: no runs, an unknown kind, a run without it, or different protocols.
    """
    if not runs:
        raise EvaluationError("histograms: got no runs, expected at least one report")
    if kind not in NAMES:
        raise EvaluationError(f"histograms: got kind {kind!r}, expected one of {', '.join(NAMES)}")
    for label, report in runs.items():
        if kind not in histograms(report):
            raise EvaluationError(
                f"histograms: got no {kind} in {label}, expected some; evaluate it with {_family(kind).metric}"
            )
    score = _score_key(runs)
    if score is not None:
        _check_protocols(runs, score)
    save_figure(runs_figure(runs, [kind], order=list(runs)), out_png)


def runs_figure(runs: Mapping[str, ReportData], kinds: Sequence[str], *, order: Sequence[str]) -> "Figure":
    """Draws a panel for each kind, with the runs that measured it; leaves out scores if their protocols differ.

    Args:
        order: labels of all runs, drawn or not; a run's position decides its colour and marker in every figure.

    Raises:
        EvaluationError: runs measured by different protocols.
    """
    score = _score_key(runs)
    if score is not None and difference(score, runs):
        score = None
    panels = []
    for kind in kinds:
        measured = {label: report for label, report in runs.items() if kind in histograms(report)}
        _check_protocols(measured, line_of(kind))
        curves = [_curve(label, order.index(label), report, kind, score) for label, report in measured.items()]
        panels.append(Panel(_family(kind), NAMES[kind], curves))
    return panels_figure(panels, "" if score is None else score_name(score))


def kinds_figure(report: ReportData, family: str) -> "Figure":
    """Draws all histograms of one family in a report.

    Raises:
        EvaluationError: the report has none of them.
    """
    kinds = [kind for kind in histograms(report) if _family_name(kind) == family]
    if not kinds:
        raise EvaluationError(
            f"histograms: got no {family} in the report, expected some; evaluate it with {FAMILIES[family].metric}"
        )
    curves = [_curve(NAMES[kind], place, report, kind, None) for place, kind in enumerate(kinds)]
    alone = [[curve] for curve in curves] if FAMILIES[family].panels else [curves]
    titles = [NAMES[kind] for kind in kinds] if FAMILIES[family].panels else [report.protocol["title"]]
    return panels_figure([Panel(FAMILIES[family], *one) for one in zip(titles, alone, strict=True)])


def _family_name(kind: str) -> str:
    return kind.split("/")[0]


def _family(kind: str) -> Family:
    return FAMILIES[_family_name(kind)]


def _curve(label: str, place: int, report: ReportData, kind: str, score: str | None) -> Curve:
    values, line = histograms(report)[kind], report.values[line_of(kind)]
    if score is None or score not in report.values:
        return Curve(label, place, values, line)
    return Curve(label, place, values, line, report.values[score], report.protocol["values"][score]["std"])


def _score_key(runs: Mapping[str, ReportData]) -> str | None:
    """Returns the key of the Inception Score that most runs have; the official one if several are as frequent."""
    keys = [key for report in runs.values() for key in report.values if key.split("/")[0] == "is"]
    return max(sorted(set(keys)), key=keys.count) if keys else None


def score_name(key: str) -> str:
    """Name of an Inception Score on an axis: with its extractor unless it is Inception, without hash of the weights."""
    extractor = key.partition("/")[2].rpartition("-")[0]
    return f"Inception Score ({extractor})" if extractor else "Inception Score"


def _check_protocols(runs: Mapping[str, ReportData], key: str) -> None:
    if mixed := difference(key, runs):
        raise EvaluationError(f"histograms: {mixed}, expected one protocol; evaluate both with the same settings")


def panels_figure(panels: Sequence[Panel], score_axis: str = "") -> "Figure":
    """Draws panels side by side: densities on shared bins and dashed lines; scores on a second axis if it is named."""
    load_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4 if len(panels) == 1 else 4.2 * len(panels), 4.2), dpi=200, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw(axes, panel)
        if score_axis:
            _mark_scores(axes.twinx(), panel.curves, score_axis)
        if len(panels) > 1:
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), frameon=False, fontsize=9)
    if len(panels) == 1:
        curves = panels[0].curves
        columns = 2 if len(curves) > 3 and max(len(curve.label) for curve in curves) <= 30 else 1
        figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    return figure


def _draw(axes: "Axes", panel: Panel) -> None:
    edges = panel.family.bins([curve.values for curve in panel.curves])
    densities = [density(curve.values, edges) for curve in panel.curves]
    top = min(max(map(np.max, densities)), STEEPEST * min(map(np.max, densities)))
    for curve, heights in zip(panel.curves, densities, strict=True):
        colour, label = colour_of(curve.place), _legend(curve, panel.family, heights.max(), top)
        axes.stairs(heights, edges, color=colour, fill=True, alpha=0.12)
        axes.stairs(heights, edges, color=colour, linewidth=1.5, label=label)
        axes.axvline(curve.line, color=colour, linestyle="--", linewidth=1.2)
    limits = {"xlim": (edges[0], edges[-1]), "ylim": (0, 1.08 * top)}
    axes.set(xlabel=panel.family.axis, ylabel="density", title=plain(panel.title), **limits)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(curve: Curve, family: Family, peak: float, top: float) -> str:
    score = "" if curve.score is None else f", IS {curve.score:.2f}"
    peak_note = f", peak {peak:.3g}" if peak > top else ""
    return f"{plain(curve.label)}: {family.line_name} {curve.line:.3g}{score}{peak_note}"


def _mark_scores(axes: "Axes", curves: Sequence[Curve], name: str) -> None:
    for curve in curves:
        if curve.score is not None:
            axes.errorbar(
                curve.line,
                curve.score,
                yerr=curve.score_std,
                fmt=MARKERS[curve.place % len(MARKERS)],
                color=colour_of(curve.place),
                markeredgecolor="white",
                markersize=11,
                capsize=3,
            )
    axes.margins(y=0.25)
    axes.set_ylabel(name)
    axes.spines["top"].set_visible(False)


def density(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Computes the density in each bin; it integrates to the fraction of values inside the bins."""
    counts, _ = np.histogram(values, edges)
    return counts / (len(values) * np.diff(edges))
