"""Lines of a table or figure with our values."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from reproducing.example import LinearExample
from reproducing.measured import MeasuredRun
from reproducing.paper.columns import COLUMNS
from reproducing.paper.content import Line, Model, PaperContent
from reproducing.results import Ours, Seeds, Spread, of_all, over_seeds


class Row(NamedTuple):
    """A line of the paper with our values.

    ours: values by column.
    conditions: conditions of the values, by name.
    minutes: minutes of training and of evaluation, means over seeds; NaN if they are not recorded.
    """

    line: Line
    ours: Mapping[str, Ours]
    conditions: Mapping[str, str]
    minutes: tuple[float, float]
    runs: Sequence[MeasuredRun] = ()

    @property
    def label(self) -> str:
        """Label of the model."""
        return self.line.model.label

    def text(self, column: str) -> str:
        """Our value of a column with its spread."""
        return self.ours[column].spread.text(self.line.model.reach) if column in self.ours else "–"


def rows_of(content: PaperContent, seeds: Mapping[Model | LinearExample, Seeds]) -> list[Row]:
    """Rows of the lines that have runs."""
    return [_row(content, line, seeds[line.model]) for line in content.lines if seeds[line.model].runs]


def _row(content: PaperContent, line: Line, seeds: Seeds) -> Row:
    found = {name: _value(name, seeds.runs) for name in content.measured(line)}
    ours = {name: value for name, value in found.items() if value is not None}
    conditions = line.model.conditions(seeds.config, seeds.runs, list(ours.values()))
    training = [run.training_seconds / 60 for run in seeds.runs if run.training_seconds]
    evaluation = [run.evaluation_seconds / 60 for run in seeds.runs if run.evaluation_seconds]
    return Row(line, ours, conditions, (Spread.of(training).mean, Spread.of(evaluation).mean), seeds.runs)


def _value(name: str, runs: Sequence[MeasuredRun]) -> Ours | None:
    column = COLUMNS[name]
    if column.measure is None:
        return over_seeds(runs, column.key)
    values = of_all(runs, column.measure)
    return Ours(Spread.of(values), tuple(values), column.key, {}, "") if values else None


def in_sections(content: PaperContent, rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows by section, without empty sections."""
    rows = list(rows)
    found = {title: [row for row in rows if row.line.section == title] for title in content.sections}
    return {title: members for title, members in found.items() if members}


def names_of(content: PaperContent, lines: Iterable[Line]) -> str:
    """Names of some lines, with whole sections in place of their lines."""
    chosen, names = list(lines), []
    several = len(content.sections) > 1
    for title, members in content.sections.items():
        here = [line.model.label for line in members if line in chosen]
        whole = several and len(here) == len(members)
        names += [title] if whole else [f"{label} ({title})" if several else label for label in here]
    return ", ".join(names)


def document(rows: Sequence[Row]) -> dict[str, Any]:
    """JSON document: values of all seeds and run folders by model, protocol fields once by hash."""
    models = [
        {
            "model": row.label,
            "section": row.line.section,
            "runs": [run.folder.name for run in row.runs],
            "ours": {
                name: {"key": ours.key, "protocol": ours.protocol, "values": ours.values}
                for name, ours in row.ours.items()
            },
        }
        for row in rows
    ]
    protocols = {ours.protocol: ours.fields for row in rows for ours in row.ours.values() if ours.fields}
    return {"models": models, "protocols": protocols}
