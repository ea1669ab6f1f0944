"""Histograms of empirical Lipschitz constants and Jacobian norms, as in Figures 5 and 12 to 16 of Sanyal et al. 2020.

Both are read from reports, so runs can be compared long after they were measured.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from evaluation.errors import EvaluationError
from evaluation.plots import colour_of, plain, save_figure
from evaluation.ranking import differences

if TYPE_CHECKING:
    from evaluation.report import Report

BINS = 60
MARKERS = ("o", "X")  # the paper's circles and crosses
STEEPEST = 5  # how many times higher than the lowest histogram the axis goes; a collapsed one would flatten the others

ARRAYS = {"elhist": "ratio", "jacobian": "norm"}
AXES = {
    "elhist": "empirical Lipschitz constant  |f(x) − f(y)| / ‖x − y‖",
    "jacobian": "Jacobian norm  ‖∇f(x)‖",
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
}


class Curve(NamedTuple):
    """One histogram, its dashed line and its marker."""

    label: str
    place: int  # decides colour and marker
    values: np.ndarray  # (N,), finite
    p95: float
    score: float | None = None
    score_std: float | None = None


def histograms(report: "Report") -> dict[str, np.ndarray]:
    """The finite values (N,) of every kind that a report holds, by names such as "elhist/real_fake"."""
    found = {}
    for kind in NAMES:
        array = report.arrays.get(f"{kind}/{ARRAYS[_family(kind)]}")
        if array is not None and f"{kind}/p95" in report.values and np.isfinite(array).any():
            found[kind] = array[np.isfinite(array)]
    return found


def families(report: "Report") -> list[str]:
    """Which of "elhist" and "jacobian" a report holds."""
    return list(dict.fromkeys(_family(kind) for kind in histograms(report)))


def plot_histograms(runs: Mapping[str, "Report"], kind: str, out_png: str | Path) -> None:
    """One kind of several runs: densities on shared bins, dashed 95th percentiles, Inception Scores on a second axis.

    Args:
        runs: reports by the names to print.
        kind: one of NAMES, such as "elhist/real_fake". Ratios and Jacobian norms are never drawn into one figure: they
            live on different scales.

    Raises:
        EvaluationError: no runs, no such kind, a run that has not measured it, or runs measured by different protocols.
    """
    if not runs:
        raise EvaluationError("histograms: got no runs, expected at least one report")
    if kind not in NAMES:
        raise EvaluationError(f"histograms: got kind {kind!r}, expected one of {', '.join(NAMES)}")
    for label, report in runs.items():
        if kind not in histograms(report):
            raise EvaluationError(
                f"histograms: got no {kind} in {label}, expected some; evaluate it with metric elhist"
            )
    score = _score_key(runs)
    if score is not None:
        _check_protocols(_with(runs, score), score)
    save_figure(runs_figure(runs, kind, order=list(runs)), out_png)


def runs_figure(runs: Mapping[str, "Report"], kind: str, *, order: Sequence[str]) -> Figure:
    """What `plot_histograms` draws, of runs that have measured the kind; without scores where their protocols differ.

    Args:
        order: of all runs, drawn or not: a run's place in it decides its colour and marker, in every figure.

    Raises:
        EvaluationError: runs measured by different protocols.
    """
    _check_protocols(runs, f"{kind}/p95")
    score = _score_key(runs)
    if (
        score is not None
        and len({report.protocol["values"][score]["hash"] for report in _with(runs, score).values()}) > 1
    ):
        score = None
    curves = [_curve(label, order.index(label), report, kind, score) for label, report in runs.items()]
    score_axis = "" if score is None else "Inception Score" if score == "is" else f"Inception Score ({score})"
    return _draw(curves, NAMES[kind], AXES[_family(kind)], score_axis)


def plot_kinds(report: "Report", family: str, out_png: str | Path) -> None:
    """All kinds of one run's "elhist" or "jacobian" in one figure.

    Raises:
        EvaluationError: the report has none of them.
    """
    if family not in families(report):
        raise EvaluationError(f"histograms: got no {family} in the report, expected some; evaluate it with elhist")
    save_figure(kinds_figure(report, family), out_png)


def kinds_figure(report: "Report", family: str) -> Figure:
    """What `plot_kinds` draws, of a report that has some of the family."""
    kinds = [kind for kind in histograms(report) if _family(kind) == family]
    curves = [_curve(NAMES[kind], place, report, kind, None) for place, kind in enumerate(kinds)]
    return _draw(curves, report.protocol["title"], AXES[family], "")


def _family(kind: str) -> str:
    return kind.split("/")[0]


def _curve(label: str, place: int, report: "Report", kind: str, score: str | None) -> Curve:
    values = histograms(report)[kind]
    if score is None or score not in report.values:
        return Curve(label, place, values, report.values[f"{kind}/p95"])
    std = report.protocol["values"][score]["std"]
    return Curve(label, place, values, report.values[f"{kind}/p95"], report.values[score], std)


def _score_key(runs: Mapping[str, "Report"]) -> str | None:
    """The Inception Score that most runs have, the official one first."""
    keys = [key for report in runs.values() for key in report.values if key.split("/")[0] == "is"]
    return max(sorted(set(keys)), key=keys.count) if keys else None


def _with(runs: Mapping[str, "Report"], key: str) -> dict[str, "Report"]:
    return {label: report for label, report in runs.items() if key in report.values}


def _check_protocols(runs: Mapping[str, "Report"], key: str) -> None:
    first, *others = runs
    for other in others:
        one, another = (runs[label].protocol["values"][key] for label in (first, other))
        if one["hash"] != another["hash"]:
            raise EvaluationError(
                f"histograms: {key} of {first} and of {other} differ in {differences(one, another)}, "
                "expected one protocol; evaluate both alike"
            )


def _draw(curves: Sequence[Curve], title: str, x_axis: str, score_axis: str) -> Figure:
    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    edges = shared_bins([curve.values for curve in curves])
    densities = [density(curve.values, edges) for curve in curves]
    top = min(max(map(np.max, densities)), STEEPEST * min(map(np.max, densities)))
    for curve, heights in zip(curves, densities, strict=True):
        colour = colour_of(curve.place)
        axes.stairs(heights, edges, color=colour, fill=True, alpha=0.12)
        axes.stairs(heights, edges, color=colour, linewidth=1.5, label=_legend(curve, heights.max(), top))
        axes.axvline(curve.p95, color=colour, linestyle="--", linewidth=1.2)
    axes.set(xlabel=x_axis, ylabel="density", title=plain(title), xlim=(0, edges[-1]), ylim=(0, 1.08 * top))
    axes.spines[["top", "right"]].set_visible(False)
    if score_axis:
        _mark_scores(axes.twinx(), curves, score_axis)
    short = max(len(curve.label) for curve in curves) <= 30
    figure.legend(loc="outside lower center", ncols=2 if len(curves) > 3 and short else 1, frameon=False, fontsize=9)
    return figure


def _legend(curve: Curve, peak: float, top: float) -> str:
    score = "" if curve.score is None else f", IS {curve.score:.2f}"
    peak_note = f", peak {peak:.3g}" if peak > top else ""
    return f"{plain(curve.label)}: 95th percentile {curve.p95:.3g}{score}{peak_note}"


def _mark_scores(axes: Axes, curves: Sequence[Curve], name: str) -> None:
    for curve in curves:
        if curve.score is not None:
            axes.errorbar(
                curve.p95,
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


def shared_bins(samples: Sequence[np.ndarray]) -> np.ndarray:
    """Edges (BINS + 1,) from 0 to just above the largest of the samples' 99.5th percentiles.

    A few outliers of one run would otherwise leave all others in the first bin.
    """
    largest = max(float(np.percentile(values, 99.5)) for values in samples)
    return np.linspace(0, 1.05 * largest if largest > 0 else 1.0, BINS + 1)


def density(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Share of all values per bin and unit of the axis: integrates to the share of values inside the bins."""
    counts, _ = np.histogram(values, edges)
    return counts / (len(values) * np.diff(edges))
