"""Types of tables, figures and their parts; gans.py and classifiers.py have the paper's."""

from collections.abc import Mapping
from typing import NamedTuple

from reproducing.classifiers import ClassifierModel
from reproducing.example import LinearExample
from reproducing.gans import GanModel

Model = GanModel | ClassifierModel
"""A model that is trained."""


class Line(NamedTuple):
    """One model of a table or figure.

    printed: printed values by column.
    section: section of the table or panel of the figure.
    protocol: conditions that differ from the others', by name.
    """

    model: Model | LinearExample
    printed: Mapping[str, str] = {}
    section: str = ""
    protocol: Mapping[str, str] = {}


def in_panels(panels: Mapping[str, tuple[Model | LinearExample, ...]]) -> tuple[Line, ...]:
    """Lines without printed values, from models by panel."""
    return tuple(Line(model, section=title) for title, models in panels.items() for model in models)


class Claim(NamedTuple):
    """Statement of a paper that one model's value is smaller than another's.

    smaller, larger: labels of models.
    panels: titles of the panels that the claim is about; empty: all.
    than: column of the larger value; empty: the same column.
    """

    text: str
    column: str
    smaller: str
    larger: str
    panels: tuple[str, ...] = ()
    than: str = ""


class PaperContent(NamedTuple):
    """A table or figure.

    columns: values to measure, names in `COLUMNS`.
    protocol: stated conditions of the paper's numbers, by name.
    drawn: "bars", "histograms", "curves", "training" or "samples"; "" for a table.
    kinds: names in evaluation.reporting.histograms.NAMES or in reproducing.training.PANELS, or the logged loss that is
        drawn.
    omitted: labels that the paper does not draw, by panel and kind.
    judged: whether each text of a claim is called seen, not seen or not decidable.
    """

    title: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    protocol: Mapping[str, str]
    note: str = ""
    claims: tuple[Claim, ...] = ()
    drawn: str = ""
    kinds: tuple[str, ...] = ()
    omitted: Mapping[tuple[str, str], tuple[str, ...]] = {}
    judged: bool = False

    @property
    def sections(self) -> dict[str, list[Line]]:
        """Lines by section."""
        found: dict[str, list[Line]] = {}
        for line in self.lines:
            found.setdefault(line.section, []).append(line)
        return found

    def measured(self, line: Line) -> tuple[str, ...]:
        """Columns that a line needs: in a table those that are printed, all if none is."""
        printed = tuple(name for name in self.columns if name in line.printed)
        return self.columns if self.drawn or not printed else printed
