"""Every table and figure, and their columns, by the paper's numbers."""

from collections.abc import Mapping
from typing import TypeVar

from reproducing import paper, paper_classifiers
from reproducing.content import Column, Figure, Table

Entry = TypeVar("Entry")


def _in_order(*parts: Mapping[str, Entry]) -> dict[str, Entry]:
    joined = {number: entry for part in parts for number, entry in part.items()}
    assert len(joined) == sum(map(len, parts))
    return {number: joined[number] for number in sorted(joined, key=int)}


COLUMNS: dict[str, Column] = {**paper.COLUMNS, **paper_classifiers.COLUMNS}
TABLES: dict[str, Table] = _in_order(paper.TABLES, paper_classifiers.TABLES)
FIGURES: dict[str, Figure] = _in_order(paper.FIGURES, paper_classifiers.FIGURES)
