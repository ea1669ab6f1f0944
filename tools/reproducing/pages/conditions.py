"""Conditions of numbers, such as data, settings, seeds and machine, in one table above the values."""

import math
from collections.abc import Sequence

from evaluation.reporting.tables import markdown_table
from reproducing.pages.rows import Row, names_of
from reproducing.paper.content import PaperContent


def conditions_markdown(content: PaperContent, rows: Sequence[Row]) -> str:
    """Table of conditions, the paper's and ours; where models differ, the usual one first, then the others'."""
    printed = [{**content.protocol, **row.line.protocol} for row in rows]
    ours = [row.conditions for row in rows]
    cells = [["conditions", "the paper's", "ours"]]
    for name in dict.fromkeys(name for each in (*printed, *ours) for name in each):
        sides = [_merged(content, rows, [each.get(name, "") for each in side]) for side in (printed, ours)]
        cells += [[name, *sides]] if any(sides) else []
    cells += [["time per run", "", time]] if (time := _times(rows)) else []
    return markdown_table(cells)


def _merged(content: PaperContent, rows: Sequence[Row], texts: Sequence[str]) -> str:
    groups: dict[str, list[Row]] = {}
    for row, text in zip(rows, texts, strict=True):
        if text:
            groups.setdefault(text, []).append(row)
    usual = max(groups, key=lambda text: len(groups[text]), default="")
    others = [(text, members) for text, members in groups.items() if text != usual]
    return "<br>".join([usual, *(f"{names_of(content, [row.line for row in them])}: {text}" for text, them in others)])


def _times(rows: Sequence[Row]) -> str:
    """Range of the models' minutes."""
    found = []
    for place, noun in enumerate(("training", "evaluation")):
        minutes = [row.minutes[place] for row in rows if not math.isnan(row.minutes[place])]
        if minutes:
            low, high = (f"{value:.1f}" for value in (min(minutes), max(minutes)))
            found.append(f"{noun} {low if low == high else f'{low} to {high}'} min")
    return ", ".join(found)
