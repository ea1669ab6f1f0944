"""Orders of models that the paper prints or claims, compared with ours."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import NamedTuple

from evaluation.reporting.tables import markdown_table
from reproducing.pages.rows import Row, in_sections
from reproducing.paper.content import Claim, PaperContent
from reproducing.results import VERDICTS, verdict


class Order(NamedTuple):
    """An order in our runs: what the paper says, the models, one of VERDICTS."""

    text: str
    pair: str
    verdict: str


def orders_of(content: PaperContent, rows: Iterable[Row]) -> list[Order]:
    """Claims and, of a table, printed orders, in each section on its own models."""
    found = []
    for section, members in in_sections(content, rows).items():
        by_label = {row.label: row for row in members}
        shown = f" ({section})" if len(content.sections) > 1 else ""
        for claim in (*_printed(content, members), *content.claims):
            pair = [by_label.get(label) for label in (claim.smaller, claim.larger)]
            if section in (claim.panels or (section,)) and all(row and claim.column in row.ours for row in pair):
                smaller, larger = (row.ours[claim.column].spread for row in pair if row)
                answer = verdict(smaller, larger, members[0].line.model.reach)
                text = f"{_text(content, claim)}{shown}"
                found.append(Order(text, f"{claim.smaller} < {claim.larger}", answer))
    return found


def _text(content: PaperContent, claim: Claim) -> str:
    """Text of a claim, with its column if other claims have the same text."""
    columns = {other.column for other in content.claims if other.text == claim.text}
    return f"{claim.text}: {claim.column}" if len(columns) > 1 else claim.text


def _printed(content: PaperContent, rows: Sequence[Row]) -> list[Claim]:
    """Orders of a table's printed values, smaller first."""
    found = []
    for name in content.columns if not content.drawn else ():
        values = {row.label: number(row.line.printed[name]) for row in rows if name in row.line.printed}
        for pair in combinations(values, 2):
            smaller, larger = sorted(pair, key=values.__getitem__)
            if values[smaller] < values[larger]:
                found.append(Claim(name, name, smaller, larger))
    return found


def number(printed: str) -> float:
    """Printed value without its spread."""
    return math.inf if printed == "∞" else float(printed.split()[0])


def orders_markdown(orders: Sequence[Order]) -> str:
    """Table of the orders: a row for each text, a column for each verdict; empty without orders."""
    if not orders:
        return ""
    rows = [["the paper's order", *VERDICTS]]
    for text in dict.fromkeys(order.text for order in orders):
        same = [order for order in orders if order.text == text]
        rows.append([text, *("<br>".join(one.pair for one in same if one.verdict == name) for name in VERDICTS)])
    return markdown_table(rows)


def summary_of(orders: Sequence[Order]) -> str:
    """One sentence with the numbers of orders as in the paper, reversed and undecided; empty without orders."""
    if not orders:
        return ""
    counts = Counter(order.verdict for order in orders)
    same, reverse, leaning, other = (counts[name] for name in VERDICTS)
    parts = [f"{same} as in the paper" if same else "", f"{reverse} reversed" if reverse else ""]
    if leaning or other:
        parts.append(f"{leaning + other} undecided within the spread over seeds ({leaning} in the paper's direction)")
    return f"{len(orders)} comparison{'s' * (len(orders) > 1)} in the paper: {', '.join(filter(None, parts))}."
