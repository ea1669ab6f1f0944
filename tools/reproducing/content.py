"""What tables and figures consist of. The paper's own are in paper.py, of GANs, and in paper_classifiers.py."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from reproducing.measured import Measured

Measure = Callable[[Measured], float]


class Model(NamedTuple):
    """A GAN. config: the name of the configuration of the paper's setting. untrained: as initialized."""

    label: str
    config: str
    untrained: bool = False


class Classifier(NamedTuple):
    """config: as of a GAN. changes: of its settings. epochs: as many times those of the configuration."""

    label: str
    config: str
    changes: tuple[str, ...] = ()
    epochs: float = 1


AnyModel = Model | Classifier


class Line(NamedTuple):
    """One line of a table. printed: by column. protocol: where the line's is not the table's, by name."""

    model: AnyModel
    printed: Mapping[str, str]
    section: str = ""
    protocol: Mapping[str, str] = {}


class Column(NamedTuple):
    """A value of a model. metric: of the evaluation; empty: it is in the log. key: a regular expression of its key."""

    metric: str
    key: str
    better: str


class Claim(NamedTuple):
    """A model's measure is smaller than another's, the paper says.

    panels: where it says so; none: everywhere. of: what is measured, where a figure or table shows several things.
    """

    text: str
    measure: Measure
    smaller: str
    larger: str
    panels: tuple[str, ...] = ()
    of: str = ""


class Table(NamedTuple):
    """protocol: what the paper says of how its numbers were obtained, by name."""

    title: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    protocol: Mapping[str, str]
    note: str = ""
    claims: tuple[Claim, ...] = ()


class Histograms(NamedTuple):
    """Histograms of a figure.

    kinds: keys of evaluation.reporting.histograms.NAMES. metrics: of the evaluation. panels: models by the title of
    their panel. omitted: labels that the paper does not draw, by panel and kind.
    """

    title: str
    kinds: tuple[str, ...]
    panels: Mapping[str, tuple[AnyModel, ...]]
    protocol: Mapping[str, str]
    claims: tuple[Claim, ...] = ()
    metrics: tuple[str, ...] = ("elhist",)
    omitted: Mapping[tuple[str, str], tuple[str, ...]] = {}
    note: str = ""


class Curves(NamedTuple):
    """A loss over the steps, from the runs' logs."""

    title: str
    key: str
    panels: Mapping[str, tuple[AnyModel, ...]]
    protocol: Mapping[str, str]
    claims: tuple[Claim, ...] = ()


class Samples(NamedTuple):
    """Grids of generated images, unselected. paper: how the paper's were made."""

    title: str
    panels: Mapping[str, tuple[AnyModel, ...]]
    paper: str


class Bars(NamedTuple):
    """A bar for each line, a panel for each section and column."""

    title: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    protocol: Mapping[str, str]
    note: str = ""
    claims: tuple[Claim, ...] = ()

    @property
    def panels(self) -> dict[str, tuple[AnyModel, ...]]:
        """Models by section."""
        sections = dict.fromkeys(line.section for line in self.lines)
        return {name: tuple(line.model for line in self.lines if line.section == name) for name in sections}


Figure = Histograms | Curves | Samples | Bars
