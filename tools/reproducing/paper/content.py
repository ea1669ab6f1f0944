"""Types of tables, figures and their parts; gans.py and classifiers.py have the paper's."""

from collections.abc import Mapping
from typing import NamedTuple

from reproducing.classifiers import ClassifierModel
from reproducing.gans import GanModel
from reproducing.measured import Measure

Model = GanModel | ClassifierModel


class Line(NamedTuple):
    """One line of a table.

    printed: printed values by column.
    protocol: conditions that differ from the table's, by name.
    """

    model: Model
    printed: Mapping[str, str]
    section: str = ""
    protocol: Mapping[str, str] = {}


class Claim(NamedTuple):
    """Statement of the paper that one model's measure is smaller than another's.

    smaller, larger: labels of models.
    panels: titles of the panels that the claim is about; empty: all.
    of: column, if there are several.
    """

    text: str
    measure: Measure
    smaller: str
    larger: str
    panels: tuple[str, ...] = ()
    of: str = ""


class PaperTable(NamedTuple):
    """A table; `protocol` has the stated conditions of the paper's numbers, by name."""

    title: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    protocol: Mapping[str, str]
    note: str = ""
    claims: tuple[Claim, ...] = ()


class HistogramFigure(NamedTuple):
    """Histograms.

    kinds: keys of evaluation.reporting.histograms.NAMES.
    panels: models by panel title.
    metrics: metrics to evaluate.
    omitted: labels that the paper does not draw, by panel and kind.
    """

    title: str
    kinds: tuple[str, ...]
    panels: Mapping[str, tuple[Model, ...]]
    protocol: Mapping[str, str]
    claims: tuple[Claim, ...] = ()
    metrics: tuple[str, ...] = ("elhist",)
    omitted: Mapping[tuple[str, str], tuple[str, ...]] = {}
    note: str = ""


class CurveFigure(NamedTuple):
    """A loss over the steps, from training logs; `key` is its name there."""

    title: str
    key: str
    panels: Mapping[str, tuple[Model, ...]]
    protocol: Mapping[str, str]
    claims: tuple[Claim, ...] = ()


class SampleFigure(NamedTuple):
    """Grids of unselected generated images; `paper` says how the paper selected its images."""

    title: str
    panels: Mapping[str, tuple[Model, ...]]
    paper: str


class BarFigure(NamedTuple):
    """Bar chart with one bar per line and one panel per section and column."""

    title: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    protocol: Mapping[str, str]
    note: str = ""
    claims: tuple[Claim, ...] = ()

    @property
    def panels(self) -> dict[str, tuple[Model, ...]]:
        """Models by section."""
        sections = dict.fromkeys(line.section for line in self.lines)
        return {name: tuple(line.model for line in self.lines if line.section == name) for name in sections}


PaperFigure = HistogramFigure | CurveFigure | SampleFigure | BarFigure
