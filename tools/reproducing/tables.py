"""A table of the paper with ours beside it, as Markdown."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from evaluation.reporting.tables import markdown_table
from reproducing.catalogue import COLUMNS
from reproducing.claims import claims_markdown
from reproducing.content import AnyModel, Line, Table
from reproducing.kinds import kind_of
from reproducing.results import Ours, Reach, Seeds, over_seeds, verdict

ARROWS = {"higher": "↑", "lower": "↓"}
MISSING = "–"


def table_markdown(table: Table, lines: Sequence[tuple[Line, Seeds]]) -> str:
    """Two rows for each line, the paper's and ours, each with its protocol; then the order of the lines in both."""
    ours = [{name: over_seeds(seeds.runs, COLUMNS[name].key) for name in line.printed} for line, seeds in lines]
    kind = kind_of(lines[0][0].model)
    rows = [["model", "", *map(head, table.columns), *kind.CONDITIONS]]
    section = ""
    for (line, seeds), found in zip(lines, ours, strict=True):
        if line.section != section:
            section = line.section
            rows.append([f"**{section}**", *[""] * (len(rows[0]) - 1)])
        printed = [line.printed.get(name, MISSING) for name in table.columns]
        paper = [line.protocol.get(name, table.protocol.get(name, "")) for name in kind.CONDITIONS]
        rows.append([line.model.label, "paper", *printed, *paper])
        rows.append(["", *_our_cells(table, line.model, seeds, found)])
    orders = "\n".join(f"- {order}" for order in _orders(lines, ours, kind.REACH))
    sections: dict[str, dict[AnyModel, Seeds]] = {}
    for line, seeds in lines:
        sections.setdefault(line.section, {})[line.model] = seeds
    parts = [markdown_table(rows), kind.NOTE, table.note, orders, *claims_markdown(table.claims, sections)]
    return "\n\n".join(filter(None, parts))


def head(column: str) -> str:
    """Of a column: its name, and an arrow to where it is better."""
    return f"{column} {ARROWS[COLUMNS[column].better]}"


def _our_cells(table: Table, model: AnyModel, seeds: Seeds, found: Mapping[str, Ours | None]) -> list[str]:
    kind = kind_of(model)
    if not seeds.runs:
        return [f"not run: {seeds.reason}", *[""] * (len(table.columns) + len(kind.CONDITIONS))]
    values = {name: value for name, value in found.items() if value}
    shown = [values[name].spread.text(kind.REACH) if name in values else MISSING for name in table.columns]
    return ["ours", *shown, *conditions(model, seeds, list(values.values()))]


def conditions(model: AnyModel, seeds: Seeds, values: Sequence[Ours]) -> list[str]:
    """How some values were obtained, in the order of the kind's CONDITIONS."""
    kind = kind_of(model)
    found = kind.conditions(seeds.config, seeds.runs, values)
    assert tuple(found) == kind.CONDITIONS
    return list(found.values())


def _orders(lines: Sequence[tuple[Line, Seeds]], ours: Sequence[Mapping[str, Ours | None]], reach: Reach) -> list[str]:
    """For each section and column a sentence on how many pairs of lines are in the paper's order."""
    sentences = []
    sections = dict.fromkeys(line.section for line, _ in lines)
    for section in sections:
        members = [(line, found) for (line, _), found in zip(lines, ours, strict=True) if line.section == section]
        for name in dict.fromkeys(name for line, _ in members for name in line.printed):
            sentence = _order(name, [(line, found[name]) for line, found in members if found.get(name)], reach)
            if sentence:
                sentences.append(f"{section}, {sentence}" if section else sentence)
    return sentences


def _order(name: str, members: Sequence[tuple[Line, Any]], reach: Reach) -> str:
    pairs = []
    for one, other in combinations(members, 2):
        smaller, larger = sorted((one, other), key=lambda member: _number(member[0].printed[name]))
        if _number(smaller[0].printed[name]) < _number(larger[0].printed[name]):
            found = verdict(smaller[1].values, larger[1].values, reach)
            pairs.append(f"{smaller[0].model.label} < {larger[0].model.label} {found}")
    same = sum("as in the paper" in pair for pair in pairs)
    return f"{name}: {same} of {len(pairs)} pairs in the paper's order ({'; '.join(pairs)})." if pairs else ""


def _number(printed: str) -> float:
    return math.inf if printed == "∞" else float(printed.split()[0])


def table_document(columns: Sequence[str], lines: Sequence[tuple[Line, Seeds]]) -> list[dict[str, Any]]:
    """The same for machines: every seed's values, keys, protocols' fields, folders."""
    return [
        {
            "model": line.model.label,
            "section": line.section,
            "config": seeds.config.name,
            "paper": dict(line.printed),
            "runs": [run.folder.name for run in seeds.runs],
            "ours": {
                name: found._asdict() | {"spread": found.spread._asdict()}
                for name, found in ((name, over_seeds(seeds.runs, COLUMNS[name].key)) for name in columns)
                if found
            },
        }
        for line, seeds in lines
    ]
