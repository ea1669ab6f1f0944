"""Orders of models that the paper prints or claims, compared with ours."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from evaluation.reporting.tables import markdown_table
from reproducing.pages.rows import Row, in_sections
from reproducing.paper.content import Claim, PaperContent
from reproducing.results import VERDICTS, Spread, verdict

SEEN = ("seen", "not seen", "not decidable at this scale")
"""Judgements of a claim: all its orders are as in the paper, one is reversed, neither."""
NOT_RUN = "not run"


class Order(NamedTuple):
    """An order in our runs: what the paper says, the models, one of VERDICTS, or NOT_RUN where claims are judged."""

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
            if section not in (claim.panels or (section,)):
                continue
            answer = _verdict(claim, by_label)
            if content.judged:
                found.append(Order(claim.text, f"{_pair(claim)}{shown}", answer))
            elif answer != NOT_RUN:
                found.append(Order(f"{_text(content, claim)}{shown}", f"{claim.smaller} < {claim.larger}", answer))
    return found


def _verdict(claim: Claim, rows: Mapping[str, Row]) -> str:
    """One of VERDICTS, by the rows of a section; NOT_RUN without both values.

    Two values of one model are compared run by run: the spread is that of their difference.
    """
    sides = ((claim.smaller, claim.column), (claim.larger, claim.than or claim.column))
    if not all(label in rows and column in rows[label].ours for label, column in sides):
        return NOT_RUN
    if claim.than and claim.smaller == claim.larger:
        ours = [rows[label].ours[column].values for label, column in sides]
        differences = [one - other for one, other in zip(*ours, strict=True)]
        return verdict(Spread.of(differences), Spread(0, 0, len(differences)), rows[claim.smaller].line.model.reach)
    smaller, larger = (rows[label].ours[column].spread for label, column in sides)
    return verdict(smaller, larger, rows[claim.smaller].line.model.reach)


def _pair(claim: Claim) -> str:
    """Both sides of a claim with their columns."""
    if claim.than:
        return f"{claim.smaller}, {claim.column} < {claim.larger}, {claim.than}"
    return f"{claim.column}: {claim.smaller} < {claim.larger}"


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


def judgement(orders: Iterable[Order]) -> str:
    """One of SEEN, by all orders of one claim."""
    verdicts = {order.verdict for order in orders}
    return SEEN[0] if verdicts == {VERDICTS[0]} else SEEN[1] if VERDICTS[1] in verdicts else SEEN[2]


def by_text(orders: Iterable[Order]) -> dict[str, list[Order]]:
    """Orders by what the paper says."""
    found: dict[str, list[Order]] = {}
    for order in orders:
        found.setdefault(order.text, []).append(order)
    return found


def orders_markdown(orders: Sequence[Order], *, judged: bool = False) -> str:
    """Table of the orders: a row for each text, a column for each verdict; empty without orders.

    Args:
        judged: whether a second column has the judgement of each text.
    """
    if not orders:
        return ""
    rows = [["the paper's claim", "here", *VERDICTS] if judged else ["the paper's order", *VERDICTS]]
    for text, same in by_text(orders).items():
        cells = ["<br>".join(one.pair for one in same if one.verdict == name) for name in VERDICTS]
        rows.append([text, *([f"**{judgement(same)}**"] if judged else []), *cells])
    return markdown_table(rows)


def summary_of(orders: Sequence[Order], *, judged: bool = False) -> str:
    """One sentence with the numbers of orders as in the paper, reversed and undecided; empty without orders.

    Args:
        judged: whether to count the judgements of all texts instead.
    """
    if not orders:
        return ""
    if judged:
        found = [judgement(same) for same in by_text(orders).values()]
        counted = [f"{found.count(name)} {name}" for name in SEEN if name in found]
        return f"{len(found)} claim{'s' * (len(found) > 1)} of the paper: {', '.join(counted)}."
    counts = Counter(order.verdict for order in orders)
    same, reverse, leaning, other = (counts[name] for name in VERDICTS)
    parts = [f"{same} as in the paper" if same else "", f"{reverse} reversed" if reverse else ""]
    if leaning or other:
        parts.append(f"{leaning + other} undecided within the spread over seeds ({leaning} in the paper's direction)")
    return f"{len(orders)} comparison{'s' * (len(orders) > 1)} in the paper: {', '.join(filter(None, parts))}."
