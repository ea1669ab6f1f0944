"""Claims of Sanyal et al. 2020 outside of tables and figures: appendices B.1, B.2, C, and "30 %" in section 3.

The networks are those of --bssn gradients: a chain of layers, whose product of norms is a bound, with a run for each.
"""

import itertools

from reproducing.example import LinearExample
from reproducing.gans import GanModel
from reproducing.paper.bssn import CONFIG, NONE, SN, SN_CONV, SRN, SRN_INITIAL
from reproducing.paper.columns import (
    BOUND_END,
    BOUND_START,
    EXAMPLE_JACOBIAN,
    EXAMPLE_PRODUCT,
    EXAMPLE_RATIO,
    MATRICES,
    OBEYED,
    OPERATORS,
    RANK_END,
    RANK_START,
    RATIO,
    SEGMENT,
)
from reproducing.paper.content import Claim, Line, PaperContent, in_panels
from reproducing.paper.gans import UNTRAINED

MODELS = (NONE, SN, SRN, SRN_INITIAL, SN_CONV)
RANKS = (64, 32, 16, 4, 1)
EXAMPLES = tuple(LinearExample(f"rank {rank}", rank) for rank in RANKS)
SHARES = (90, 70, 50, 30, 10)
"""The paper's c, in per cent."""


def _untrained(percent: int, *variants: str) -> GanModel:
    label = f"SRN-{percent} ({variants[0] if variants else 'size'})"
    more = tuple("relative" for _ in variants)
    return GanModel(label, CONFIG, (f"srn{percent}", *more, "glorot"), UNTRAINED)


def _within(text: str, column: str, than: str) -> tuple[Claim, ...]:
    """Claims that one value of each network is smaller than another one of it."""
    return tuple(Claim(text, column, model.label, model.label, than=than) for model in MODELS)


STRICTER = "c of the initial stable rank is the stricter bound"
CRITICS = {"images": "pairs of a real and a generated image"}

APPENDIX: dict[str, PaperContent] = {
    "B1": PaperContent(
        "Appendix B.1: ratios between images against Jacobian norms on the segments between them",
        (RATIO, SEGMENT, OBEYED),
        tuple(map(Line, MODELS)),
        CRITICS,
        "The norm is the largest of 17 points on each segment.",
        tuple(
            Claim(
                "no ratio exceeds the largest Jacobian norm on its segment",
                RATIO,
                model.label,
                model.label,
                (),
                SEGMENT,
            )
            for model in MODELS
        ),
        judged=True,
    ),
    "B2": PaperContent(
        "Appendix B.2: two linear layers, the first of which loses rank",
        (EXAMPLE_PRODUCT, EXAMPLE_JACOBIAN, EXAMPLE_RATIO),
        tuple(map(Line, EXAMPLES)),
        {},
        "A lower rank leaves the bound by the product of the layers' norms as it is.",
        tuple(
            Claim("a lower rank lowers the empirical constant", EXAMPLE_RATIO, low.label, high.label)
            for high, low in itertools.pairwise(EXAMPLES)
        ),
        judged=True,
    ),
    "C": PaperContent(
        "Appendix C: products of layer norms against measured constants",
        (RATIO, SEGMENT, MATRICES, OPERATORS),
        tuple(map(Line, MODELS)),
        CRITICS,
        "The product of the norms of layers as operators on their inputs bounds both constants, as activations have "
        "slopes of at most 1. That of the norms of weights as matrices, which SN sets to 1, need not.",
        (
            *(
                Claim(
                    "the product of layer norms exceeds what is measured",
                    SEGMENT,
                    model.label,
                    model.label,
                    (),
                    OPERATORS,
                )
                for model in MODELS
            ),
            *(
                Claim("SRN has lower constants than SN at an equal product", RATIO, model.label, SN.label)
                for model in (SRN, SRN_INITIAL)
            ),
        ),
        judged=True,
    ),
    "rank": PaperContent(
        'Section 3: "to 30 % of its original value", and how many layers a bound lowers',
        (BOUND_START, BOUND_END, RANK_START, RANK_END),
        in_panels(
            {
                "trained": (SN, SRN, SRN_INITIAL),
                "untrained, c of min(rows, columns)": tuple(map(_untrained, SHARES)),
                "untrained, c of the initial stable rank": tuple(_untrained(percent, "initial") for percent in SHARES),
            }
        ),
        {},
        "The share is of the stable rank of the initial weight before normalization, a mean over the layers with more "
        "than one row. A bound is c * min(rows, columns) (size) or c * that stable rank (initial); there is none where "
        "this is at most 1. Every discriminator begins with Glorot's initialization.",
        (
            Claim(
                "c of the initial stable rank is the stricter bound",
                RANK_START,
                SRN_INITIAL.label,
                SRN.label,
                ("trained",),
            ),
            Claim(
                "c of the initial stable rank is the stricter bound",
                RANK_END,
                SRN_INITIAL.label,
                SRN.label,
                ("trained",),
            ),
        ),
        "training",
        ("stable ranks by layer",),
        judged=True,
    ),
}
"""Pages by the word that --srn-appendix takes."""
