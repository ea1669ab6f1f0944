"""Tables of the paper with our values beside the paper's, as Markdown and JSON."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from evaluation.reporting.tables import markdown_table
from reproducing.pages.claims import claims_markdown
from reproducing.pages.conditions import OURS, PAPER, Conditions
from reproducing.paper.columns import COLUMNS
from reproducing.paper.content import Line, Model, PaperTable
from reproducing.results import Ours, Reach, Seeds, over_seeds, verdict

ARROWS = {"higher": "↑", "lower": "↓"}
MISSING = "–"
VARYING = "conditions of the row"


class ModelRow(NamedTuple):
    """A line of a table with our values by column."""

    line: Line
    seeds: Seeds
    ours: Mapping[str, Ours]

    @property
    def conditions(self) -> Mapping[str, str]:
        """Conditions of our values; empty without runs."""
        return conditions_of(self.line.model, self.seeds, list(self.ours.values()))

    def text(self, column: str) -> str:
        """Our value in a column with its spread."""
        return self.ours[column].spread.text(self.line.model.reach) if column in self.ours else MISSING


def rows_of(lines: Sequence[tuple[Line, Seeds]], columns: Sequence[str]) -> list[ModelRow]:
    """Table lines with our values in some columns."""
    found = ({name: over_seeds(seeds.runs, COLUMNS[name].key) for name in columns} for _, seeds in lines)
    return [
        ModelRow(line, seeds, {name: value for name, value in ours.items() if value})
        for (line, seeds), ours in zip(lines, found, strict=True)
    ]


def conditions_of(model: Model, seeds: Seeds, values: Sequence[Ours]) -> Mapping[str, str]:
    """Conditions of some values by name; empty without runs."""
    return model.conditions(seeds.config, seeds.runs, values) if seeds.runs else {}


def head(column: str) -> str:
    """Name of a column with an arrow in the direction of better values."""
    return f"{column} {ARROWS[COLUMNS[column].better]}"


def table_markdown(table: PaperTable, lines: Sequence[tuple[Line, Seeds]]) -> str:
    """Conditions, a table with the paper's row and ours for each line, comparison of their orders, and claims."""
    rows = rows_of(lines, table.columns)
    printed = [{**table.protocol, **row.line.protocol} for row in rows]
    conditions = Conditions({PAPER: printed, OURS: [row.conditions for row in rows if row.seeds.runs]})
    cells = [["model", "", *map(head, table.columns), VARYING]]
    section = ""
    for row, protocol in zip(rows, printed, strict=True):
        if row.line.section != section:
            section = row.line.section
            cells.append([f"**{section}**", *[""] * (len(cells[0]) - 1)])
        values = [row.line.printed.get(name, MISSING) for name in table.columns]
        cells.append([row.line.model.label, PAPER, *values, conditions.cell(PAPER, protocol)])
        cells.append(["", *_our_cells(table, row), conditions.cell(OURS, row.conditions)])
    reach, note = lines[0][0].model.reach, lines[0][0].model.note
    sections: dict[str, dict[Model, Seeds]] = {}
    for line, seeds in lines:
        sections.setdefault(line.section, {})[line.model] = seeds
    orders = "\n".join(f"- {order}" for order in _orders(rows, reach))
    parts = [conditions.markdown(), markdown_table(cells), note, table.note, orders]
    return "\n\n".join(filter(None, [*parts, *claims_markdown(table.claims, sections)]))


def _our_cells(table: PaperTable, row: ModelRow) -> list[str]:
    if not row.seeds.runs:
        return [f"not run: {row.seeds.reason}", *[""] * len(table.columns)]
    return [OURS, *(row.text(name) for name in table.columns)]


def _orders(rows: Sequence[ModelRow], reach: Reach) -> list[str]:
    """Sentences with the number of pairs of lines in the paper's order, one per section and column."""
    sentences = []
    for section in dict.fromkeys(row.line.section for row in rows):
        members = [row for row in rows if row.line.section == section]
        for name in dict.fromkeys(name for row in members for name in row.line.printed):
            sentence = _order(name, [row for row in members if name in row.ours and name in row.line.printed], reach)
            if sentence:
                sentences.append(f"{section}, {sentence}" if section else sentence)
    return sentences


def _order(name: str, members: Sequence[ModelRow], reach: Reach) -> str:
    pairs = []
    for pair in combinations(members, 2):
        smaller, larger = sorted(pair, key=lambda row: _number(row.line.printed[name]))
        if _number(smaller.line.printed[name]) < _number(larger.line.printed[name]):
            found = verdict(smaller.ours[name].values, larger.ours[name].values, reach)
            pairs.append(f"{smaller.line.model.label} < {larger.line.model.label} {found}")
    same = sum("as in the paper" in pair for pair in pairs)
    return f"{name}: {same} of {len(pairs)} pairs in the paper's order ({'; '.join(pairs)})." if pairs else ""


def _number(printed: str) -> float:
    return math.inf if printed == "∞" else float(printed.split()[0])


def table_document(columns: Sequence[str], lines: Sequence[tuple[Line, Seeds]]) -> list[dict[str, Any]]:
    """JSON document of a table or bar chart: values of all seeds, keys, protocol fields and run folders."""
    return [
        {
            "model": row.line.model.label,
            "section": row.line.section,
            "config": row.seeds.config.name,
            "paper": dict(row.line.printed),
            "runs": [run.folder.name for run in row.seeds.runs],
            "ours": {name: found._asdict() | {"spread": found.spread._asdict()} for name, found in row.ours.items()},
        }
        for row in rows_of(lines, columns)
    ]
