"""Claims of Lin, Sekar and Fanti 2021, "Why Spectral Normalization Stabilizes GANs", by the sentences of its abstract.

The paper's figures and tables were not at hand, so no number of it stands here. Settings are those of the
authors' code.
"""

from collections.abc import Iterable

from reproducing.gans import GanModel
from reproducing.paper.columns import DISTANCE, DRIFT, END, FALL, LARGEST, START
from reproducing.paper.content import Claim, Line, PaperContent

CONFIG = "cifar10_sndcgan_sn"
FACTOR = 1.4
"""Factor of the scaled SN_conv, a value of the authors' grid for other normalizations, near Kaiming's sqrt(2)."""


def _glorot(label: str, *variants: str, changes: tuple[str, ...] = ()) -> GanModel:
    """A model whose discriminator begins with Glorot's initialization."""
    return GanModel(label, CONFIG, (*variants, "glorot"), changes)


NONE = _glorot("none (Glorot)", "unnormalized")
LECUN = GanModel("none (LeCun)", CONFIG, ("unnormalized", "lecun"))
SN, SN_CONV, BSSN, WGAN_GP = (
    _glorot(label, *variants)
    for label, variants in (("SN", ()), ("SN_conv", ("sn_conv",)), ("BSSN", ("bssn",)), ("WGAN-GP", ("wgan_gp",)))
)
SRN, SRN_INITIAL = _glorot("SRN-30 (size)", "srn30"), _glorot("SRN-30 (initial)", "srn30", "relative")
SCALED = _glorot(f"SN_conv times {FACTOR}", "sn_conv", changes=(f"discriminator.scale={FACTOR}",))

EXPLODING = "SN controls exploding gradients"
VANISHING = "SN controls vanishing gradients"
LINKED = "SN's weights have nearly the variance of LeCun's initialization, those of stricter implementations have not"
STRICTER = "stricter implementations of SN have poor performance out of the box"
BEGINNING = "LeCun's initialization controls vanishing gradients only at the beginning, SN throughout"
BETTER = "BSSN gives better samples than SN"

PROTOCOL = {
    "data": "CIFAR-10",
    "extractor": "Inception",
    "iterations": "400,000",
    "networks": "SNDCGAN, batch 64, Adam 1e-4 or 2e-4, 0.5, 0.999",
    "images": "FID of 10,000 generated, 5,000 real",
    "seeds": "5",
}
WEIGHTS = (
    "Gradients are of the discriminator's loss in the weights that the network uses, after normalization, at single "
    "batches; below 1e-12 they count as 1e-12. Every discriminator begins with Glorot's initialization unless its "
    "name says LeCun."
)
VARIANCES = (
    "The distance from LeCun's variance is the mean over layers of |log2(variance * fan_in)| of the weights that the "
    "network uses, the drift that of |log2(variance at the end / at the start)|; 1 is a factor of 2."
)


def _claims(text: str, column: str, smaller: Iterable[GanModel], larger: Iterable[GanModel]) -> tuple[Claim, ...]:
    """Claims that each model of `smaller` is below each of `larger`."""
    larger = list(larger)
    return tuple(Claim(text, column, one.label, other.label) for one in smaller for other in larger)


def _content(
    title: str,
    columns: tuple[str, ...],
    models: Iterable[GanModel],
    note: str,
    claims: tuple[Claim, ...],
    kinds: tuple[str, ...],
) -> PaperContent:
    """A page with curves of training and a judgement of each claim."""
    lines = tuple(map(Line, models))
    return PaperContent(title, columns, lines, PROTOCOL, note, claims, "training", kinds, judged=True)


SN_IS_LINKED = _claims(LINKED, DISTANCE, [SN], [SN_CONV])
AT_THE_BEGINNING = (
    *_claims(BEGINNING, START, [NONE], [LECUN]),
    Claim(BEGINNING, END, LECUN.label, LECUN.label, than=START),  # nothing is lost unless it falls
    *_claims(BEGINNING, FALL, [SN], [LECUN]),
    *_claims(BEGINNING, DRIFT, [SN], [LECUN]),
)
STRICTER_IS_POOR = (
    *_claims(STRICTER, END, [SN_CONV], [SN]),
    *_claims(STRICTER, "FID", [SN], [SN_CONV]),
)

RATES = ("1e-4", "2e-4")
GRID = {
    f"generator {g}, discriminator {d}": (f"train.learning_rate={g}", f"train.d_learning_rate={d}")
    for g in RATES
    for d in RATES
}
"""Overrides by pair of learning rates; the section of a page has the pair's name."""
METHODS = {"SN": (), "SSN": ("ssn",), "BSN": ("bsn",), "BSSN": ("bssn",)}

BSSN_PAPER: dict[str, PaperContent] = {
    "gradients": _content(
        "Gradients of the discriminator during training",
        (LARGEST, END, FALL, DISTANCE, DRIFT, "FID"),
        (NONE, LECUN, SN, SRN, SRN_INITIAL, SN_CONV, BSSN, WGAN_GP),
        f"{WEIGHTS} {VARIANCES}",
        (
            *_claims(EXPLODING, LARGEST, [SN], [NONE, LECUN]),
            *_claims(VANISHING, END, [NONE, LECUN], [SN]),
            *SN_IS_LINKED,
            *STRICTER_IS_POOR,
            *_claims(BETTER, "FID", [BSSN], [SN]),
        ),
        ("gradients", "gradients by layer"),
    ),
    "initialisation": _content(
        "Variance of the weights against LeCun's 1 / fan_in",
        (START, END, FALL, DISTANCE, DRIFT),
        (NONE, LECUN, SN, SN_CONV),
        f"{WEIGHTS} {VARIANCES} Drawn is variance * fan_in, 1 with LeCun's initialization.",
        (*SN_IS_LINKED, *AT_THE_BEGINNING),
        ("variances by layer",),
    ),
    "sn_conv": _content(
        "SN by the norm of the convolution as an operator, out of the box and with a scale",
        (LARGEST, START, END, DISTANCE, "FID"),
        (SN, SN_CONV, SCALED),
        f"{WEIGHTS} {VARIANCES}",
        (
            *STRICTER_IS_POOR,
            *_claims("a scale, a further hyper-parameter, restores the stricter one", END, [SN_CONV], [SCALED]),
            *_claims("a scale, a further hyper-parameter, restores the stricter one", "FID", [SCALED], [SN_CONV]),
        ),
        ("gradients", "gradients by layer"),
    ),
    "grid": PaperContent(
        "FID over a grid of learning rates",
        ("FID",),
        tuple(
            Line(GanModel(label, CONFIG, variants, rates), section=section)
            for section, rates in GRID.items()
            for label, variants in METHODS.items()
        ),
        PROTOCOL,
        "BSSN and SSN have the scale of their variants, 1.2; the paper chose it by a grid search.",
        tuple(
            Claim(text, "FID", smaller, larger)
            for text, smaller, larger in (
                (f"{BETTER}, at all learning rates", "BSSN", "SN"),
                ("scaling improves samples", "SSN", "SN"),
                ("both directions improve samples", "BSN", "SN"),
            )
        ),
        judged=True,
    ),
}
"""Pages by the name that --bssn takes."""
