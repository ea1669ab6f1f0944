"""Page of a table or figure: summary, pictures, conditions, values and orders."""

from collections.abc import Sequence
from typing import NamedTuple

from evaluation.reporting.tables import markdown_table
from reproducing.pages.conditions import conditions_markdown
from reproducing.pages.orders import orders_markdown, orders_of, summary_of
from reproducing.pages.rows import Row, in_sections, names_of
from reproducing.paper.columns import COLUMNS
from reproducing.paper.content import PaperContent

ARROWS = {"higher": " ↑", "lower": " ↓", "": ""}
ORDERS = (
    "Orders of the means: beyond the spread if they differ by more than what follows both ± together, otherwise "
    "undecided; one seed decides nothing."
)


JUDGED = (
    "A claim is *seen* if all its orders are as in the paper, *not seen* if one of them is reversed, otherwise *not "
    "decidable at this scale*, also if a model was not run. Two values of one model are compared run by run."
)


class Page(NamedTuple):
    """A page and its summary, one sentence."""

    markdown: str
    summary: str


def page(title: str, content: PaperContent, rows: Sequence[Row], pictures: Sequence[str]) -> Page:
    """Page of some rows; `title` is its heading, `pictures` are paragraphs above the numbers."""
    orders = orders_of(content, rows)
    summary = (
        summary_of(orders, judged=content.judged)
        or f"{len(rows)} model{'s' * (len(rows) > 1)} shown; no order to compare."
    )
    missing = names_of(content, [line for line in content.lines if line not in [row.line for row in rows]])
    notes = [rows[0].line.model.note if content.columns else "", f"Not run: {missing}." if missing else ""]
    values = value_table(content, rows) if content.columns else ""
    parts = [f"# {title}", summary, *pictures, conditions_markdown(content, rows), values, *notes, content.note]
    rule = f"{JUDGED} {ORDERS}" if content.judged else ORDERS
    parts += [f"{rule}\n\n{orders_markdown(orders, judged=content.judged)}" if orders else ""]
    return Page("\n\n".join(filter(None, parts)) + "\n", summary)


def value_table(content: PaperContent, rows: Sequence[Row]) -> str:
    """Values by model, the paper's and ours side by side; columns without a value are left out."""
    sides = [
        (name, side)
        for name in content.columns
        for side, here in (("paper", [row.line.printed for row in rows]), ("ours", [row.ours for row in rows]))
        if any(name in values for values in here)
    ]
    printed = any(side == "paper" for _, side in sides)
    heads = [f"{name}{ARROWS[COLUMNS[name].better]}{f', {side}' if printed else ''}" for name, side in sides]
    cells = [["model", *heads]]
    sections = in_sections(content, rows)
    for section, members in sections.items():
        if len(content.sections) > 1:
            cells.append([f"**{section}**", *[""] * len(sides)])
        for row in members:
            texts = (row.line.printed.get(name, "–") if side == "paper" else row.text(name) for name, side in sides)
            cells.append([row.label, *texts])
    return markdown_table(cells)
