"""Parts of tables and figures. paper.py holds those of the paper's GANs, paper_classifiers.py of its classifiers."""

from collections.abc import Mapping
from typing import NamedTuple

from reproducing.classifiers import ClassifierModel
from reproducing.gans import GanModel
from reproducing.measured import Measure

Model = GanModel | ClassifierModel


class Line(NamedTuple):
    """One line of a table. printed: by column. protocol: conditions that differ from the table's, by name."""

    model: Model
    printed: Mapping[str, str]
    section: str = ""
    protocol: Mapping[str, str] = {}


class Claim(NamedTuple):
    """Statement of the paper that one model's measure is smaller than another's.

    smaller, larger: labels of models. panels: titles it applies to; none: all. of: the column, where there are several.
    """

    text: str
    measure: Measure
    smaller: str
    larger: str
    panels: tuple[str, ...] = ()
    of: str = ""


class PaperTable(NamedTuple):
    """A table. protocol: conditions of the paper's numbers, by name, as far as they are stated."""

    title: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    protocol: Mapping[str, str]
    note: str = ""
    claims: tuple[Claim, ...] = ()


class HistogramFigure(NamedTuple):
    """Histograms.

    kinds: keys of evaluation.reporting.histograms.NAMES. panels: models by panel title. metrics: evaluated for it.
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
    """A loss over the steps, from training logs. key: name of the loss there."""

    title: str
    key: str
    panels: Mapping[str, tuple[Model, ...]]
    protocol: Mapping[str, str]
    claims: tuple[Claim, ...] = ()


class SampleFigure(NamedTuple):
    """Grids of generated images, unselected. paper: how the paper selected its images."""

    title: str
    panels: Mapping[str, tuple[Model, ...]]
    paper: str


class BarFigure(NamedTuple):
    """Bar chart: a bar for each line, a panel for each section and column."""

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
