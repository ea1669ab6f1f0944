"""Comparison of the orders that the paper claims with our runs."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from evaluation.reporting.tables import markdown_table
from reproducing.paper.content import Claim, Model
from reproducing.results import Reach, Seeds, Spread, of_all, verdict

Panels = Mapping[str, Mapping[Model, Seeds]]
"""Models with our runs, by panel of a figure or section of a table."""
HEADS = ("panel", "the paper says", "smaller there", "ours", "larger there", "ours", "here")


class Checked(NamedTuple):
    """A claim checked in one panel; `smaller` and `larger` are our values of its two models."""

    panel: str
    claim: Claim
    smaller: str
    larger: str
    verdict: str


def claims_markdown(claims: Sequence[Claim], panels: Panels) -> list[str]:
    """Table of claims, and for repeated claims how often they hold; empty without runs."""
    found = check(claims, panels)
    if not found:
        return []
    rows = [
        [
            *(one.panel, f"{one.claim.text}: {one.claim.of}" if one.claim.of else one.claim.text),
            *(one.claim.smaller, one.smaller, one.claim.larger, one.larger, one.verdict),
        ]
        for one in found
    ]
    return [markdown_table([HEADS, *rows]), *filter(None, ["\n".join(_tally(found))])]


def check(claims: Sequence[Claim], panels: Panels) -> list[Checked]:
    """Checks each claim in every panel that has both of its models.

    Labels are unique within a panel only. Panels without runs are left out.
    """
    found = []
    for title, members in panels.items():
        seeds = {model.label: of_model for model, of_model in members.items()}
        if any(of_model.runs for of_model in seeds.values()):
            reach = next(iter(members)).reach
            found += [
                _checked(title, claim, seeds, reach)
                for claim in claims
                if {claim.smaller, claim.larger} <= seeds.keys() and title in (claim.panels or (title,))
            ]
    return found


def _checked(panel: str, claim: Claim, seeds: Mapping[str, Seeds], reach: Reach) -> Checked:
    smaller, larger = (of_all(seeds[label].runs, claim.measure) for label in (claim.smaller, claim.larger))
    one, other = (Spread.of(values).text(reach) for values in (smaller, larger))
    return Checked(panel, claim, one, other, verdict(smaller, larger, reach))


def _tally(found: Sequence[Checked]) -> list[str]:
    """Sentences with the number of agreements with the paper, for each claim measured more than once."""
    sentences = []
    for text in dict.fromkeys(one.claim.text for one in found):
        verdicts = [one.verdict for one in found if one.claim.text == text and one.verdict != "not measured"]
        same = [verdict for verdict in verdicts if verdict.startswith("as in the paper")]
        beyond = sum("within the spread" not in verdict for verdict in same)
        if len(verdicts) > 1:
            sentences.append(f"- {text}: {len(same)} of {len(verdicts)} as in the paper, {beyond} beyond the spread.")
    return sentences
