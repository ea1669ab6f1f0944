"""Bar charts of means with their intervals, as in Figures 2, 3 and 6 to 11 of the paper."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from evaluation.reporting.plots import colour_of, plain

MARGIN = 0.15  # share of the range of all intervals, added below and above


class Bar(NamedTuple):
    """A mean over seeds, half of its interval, and the values of all seeds."""

    label: str
    mean: float
    reach: float
    values: Sequence[float]


def bars_figure(panels: Mapping[str, Sequence[Bar]], *, axis: str) -> Figure:
    """Bar chart with one panel per name.

    The part of a label before its comma determines the colour, in all panels. Bars are solid if the part after it
    equals the first label's, otherwise hatched.
    """
    labels = dict.fromkeys(bar.label for bars in panels.values() for bar in bars)
    order = list(dict.fromkeys(label.partition(",")[0] for label in labels))
    solid = next(iter(labels)).partition(",")[2]
    figure = Figure(figsize=(1.2 + sum(0.9 + 0.6 * len(bars) for bars in panels.values()), 4), dpi=150)
    figure.set_layout_engine("constrained")
    FigureCanvasAgg(figure)
    widths = [1 + len(bars) for bars in panels.values()]
    grid = figure.subplots(1, len(panels), squeeze=False, width_ratios=widths)[0]
    for axes, (title, bars) in zip(grid, panels.items(), strict=True):
        places = range(len(bars))
        names = [bar.label.partition(",") for bar in bars]
        colours = [colour_of(order.index(name)) for name, _, _ in names]
        hatches = ["" if rest == solid else "//" for _, _, rest in names]
        means = [bar.mean for bar in bars]
        axes.bar(places, means, color=colours, hatch=hatches, edgecolor="white", alpha=0.6, width=0.7)
        axes.errorbar(
            places,
            means,
            yerr=[bar.reach for bar in bars],
            fmt="none",
            ecolor="black",
            capsize=4,
            linewidth=1,
        )
        for place, bar in zip(places, bars, strict=True):
            axes.plot([place] * len(bar.values), bar.values, "o", color="black", markersize=3, alpha=0.6)
        axes.set_xticks(places, [plain(bar.label) for bar in bars], rotation=45, ha="right", fontsize=9)
        axes.set_ylim(*_limits(bars))
        axes.set_title(plain(title), fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    grid[0].set_ylabel(plain(axis))
    return figure


def _limits(bars: Sequence[Bar]) -> tuple[float, float]:
    """Axis limits around all intervals and seeds; not below 0 unless one of them is."""
    lows = [min(bar.mean - bar.reach, *bar.values) for bar in bars]
    highs = [max(bar.mean + bar.reach, *bar.values) for bar in bars]
    low, high = min(lows), max(highs)
    margin = MARGIN * (high - low) or 0.05 * abs(high) or 1.0
    return (max(0.0, low - margin) if low >= 0 else low - margin), high + margin
