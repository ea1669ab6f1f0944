"""Numbers and claims about GANs in Sanyal et al. 2020: section 5.3, appendices E and F.

Numbers are given as printed. Orders of models that the text claims are `Claim`s, compared with our runs.
"""

import itertools

from reproducing.gans import GanModel
from reproducing.paper.columns import (
    AT_FAKE,
    AT_REAL,
    FAKE_FAKE,
    NEAR_FAKE,
    NEAR_REAL,
    REAL_FAKE,
    REAL_REAL,
    STEADINESS,
    UNEVENNESS,
    UNEVENNESS_NEAR,
)
from reproducing.paper.content import Claim, Line, PaperContent, in_panels

UNTRAINED = ("train.steps=0",)
"""Change of a model that is evaluated as initialized."""

SN, SRN70, SRN50 = (
    GanModel(label, f"cifar10_{name}")
    for label, name in (("SN-GAN", "sn"), ("SRN-70-GAN", "srn70"), ("SRN-50-GAN", "srn50"))
)
SRN90, SRN30, SRN10 = (GanModel(f"SRN-{percent}-GAN", "cifar10_sn", (f"srn{percent}",)) for percent in (90, 30, 10))
SN_MIYATO, ORTHO_MIYATO = GanModel("SN-GAN", "cifar10_sn_miyato"), GanModel("Orthonormal", "cifar10_ortho_miyato")
WGAN_GP, ORTHO = GanModel("WGAN-GP", "cifar10_wgan_gp"), GanModel("Ortho-GAN", "cifar10_ortho")
RANDOM = GanModel("Random-GAN", "cifar10_sn", changes=UNTRAINED)
COND_SN, COND_SRN70, COND_SRN50 = (
    GanModel(label, f"cifar10_cond_{name}")
    for label, name in (("SN-GAN", "sn"), ("SRN-70-GAN", "srn70"), ("SRN-50-GAN", "srn50"))
)
COND_RANDOM = GanModel("Random-GAN", "cifar10_cond_sn", changes=UNTRAINED)
CIFAR100_SN = GanModel("SN-GAN", "cifar100_sn")
CIFAR100_SRN70 = GanModel("SRN-70-GAN", "cifar100_sn", ("srn70",))
CELEBA_SN, CELEBA_SRN70 = GanModel("SN-GAN", "celeba_sn"), GanModel("SRN-70-GAN", "celeba_sn", ("srn70",))
UNCONDITIONAL, CONDITIONAL = "unconditional", "conditional, projection discriminator"

INCEPTION = {
    "extractor": "Inception",
    "iterations": "not stated",
    "networks": "32-layer ResNet, batch not stated, Adam 2e-4, 0, 0.999",
    "images": "IS of 50,000; FID 10,000 real (train), 5,000 generated",
    "seeds": "not stated",
}
UNSTATED_C = {"networks": f"{INCEPTION['networks']}, c not stated"}
"""Conditions of lines that say only "SRN-GAN"."""
ON_CIFAR10 = {"data": "CIFAR-10"} | INCEPTION
QUOTED = {
    "iterations": "not stated there; quoted from Miyato et al. 2018",
    "networks": "of Miyato et al. 2018, Adam 2e-4, 0, 0.9, not trained anew",
    "images": "of Miyato et al. 2018, who print FID 21.7 for SN-GAN",
}
"""Conditions of the lines in Table 2 that its footnote marks as quoted."""
DIVERGENCE = INCEPTION | {
    "extractor": "critic of 100,000 updates",
    "images": "10,000 real (test; CelebA: train), 1,000,000 generated",
}

TABLES = {
    "2": PaperContent(
        "Inception score and FID on CIFAR-10",
        ("IS", "FID", "Intra-FID"),
        (
            Line(ORTHO_MIYATO, {"IS": "7.92 ± .04", "FID": "23.8"}, UNCONDITIONAL, QUOTED),
            Line(WGAN_GP, {"IS": "7.86 ± .07", "FID": "21.7"}, UNCONDITIONAL),
            Line(SN_MIYATO, {"IS": "8.22 ± .04", "FID": "20.67"}, UNCONDITIONAL, QUOTED),
            Line(SRN70, {"IS": "8.53 ± 0.04", "FID": "19.83"}, UNCONDITIONAL),
            Line(SRN50, {"IS": "8.33 ± 0.06", "FID": "19.57"}, UNCONDITIONAL),
            Line(COND_SN, {"IS": "8.71 ± .04", "FID": "16.049", "Intra-FID": "26.24"}, CONDITIONAL),
            Line(COND_SRN70, {"IS": "8.93 ± 0.12", "FID": "15.92", "Intra-FID": "24.01"}, CONDITIONAL),
            Line(COND_SRN50, {"IS": "8.76 ± 0.09", "FID": "16.89", "Intra-FID": "27.3"}, CONDITIONAL),
        ),
        ON_CIFAR10,
        "The paper quotes the unconditional SN-GAN and Orthonormal from Miyato et al. 2018; ours have their Adam, "
        "(0, 0.9), unless the networks are compact. Figure 5 has both with the Adam of the SRN rows. WGAN-GP is not "
        "marked as quoted, but 7.86 is also Gulrajani et al.'s, and 21.7 is Miyato et al.'s of SN-GAN.",
    ),
    "3": PaperContent(
        "CIFAR-100, unconditional",
        ("IS", "FID"),
        (
            Line(CIFAR100_SN, {"IS": "9.04", "FID": "23.2"}),
            Line(CIFAR100_SRN70, {"IS": "8.85", "FID": "19.55"}, protocol=UNSTATED_C),
        ),
        {"data": "CIFAR-100"} | INCEPTION,
    ),
    "4": PaperContent(
        "Neural Divergence",
        ("ND",),
        (
            Line(SN, {"ND": "10.69"}, "CIFAR-10"),
            Line(SRN70, {"ND": "11.97"}, "CIFAR-10", UNSTATED_C),
            Line(SRN50, section="CIFAR-10"),  # not in the paper's table
            Line(CELEBA_SN, {"ND": "0.36"}, "CelebA"),
            Line(CELEBA_SRN70, {"ND": "0.64"}, "CelebA", UNSTATED_C),
        ),
        {"data": "as the section says"} | DIVERGENCE,
        "The printed numbers cannot come from the printed formula, log(1 + exp(f)) over generated images: a critic "
        "that knows nothing has 0.693 there, and 10.69 is one that is sure of the opposite. See docs/metrics.md.",
    ),
}


def _orders(text: str, column: str, *models: GanModel) -> tuple[Claim, ...]:
    """Claims that each model's value is smaller than the next one's."""
    pairs = itertools.pairwise(models)
    return tuple(Claim(text, column, smaller.label, larger.label) for smaller, larger in pairs)


PAIRS = {name: ON_CIFAR10[name] for name in ("data", "iterations", "networks")} | {"images": "2,000 pairs"}
POINTS = PAIRS | {"images": "2,000 images"}
LOSSES = {name: PAIRS[name] for name in ("data", "iterations", "networks")}
COMPARED = (RANDOM, SN, SRN70, SRN50)
COMPARED_AS_CONDITIONAL = (COND_RANDOM, COND_SN, COND_SRN70, COND_SRN50)
"""Models of Figures 13 to 16, and SRN-50-GAN, which the paper does not draw there."""
STABLE = "The paper draws one SRN-GAN, whose c is not stated there; in Figure 5 it is 0.7."

PICKED = "The paper's are 10 of 100 images, picked by hand; the c of its SRN-GAN is not stated there."
UNSEEN = "No caption of this figure was at hand: these models are what the paper's section F leaves over."


VICINITY = (
    "The paper means norms in the vicinity of the images and states no distance. By its section 2 the local constant "
    "at an image is a limit, the norm of the Jacobian at the image itself. Points near an image are the image with "
    "normal noise in each pixel, on the scale [-1, 1], as in DRAGAN; noise 0.1 is a distance of 5.5 at 32x32. It "
    "can decide how much the norms of real and generated images differ, so the paper's statement is compared with the "
    "norms at the images."
)


def _histograms(
    title: str,
    kinds: str | tuple[str, ...],
    columns: tuple[str, ...],
    panels: dict[str, tuple[GanModel, ...]],
    *claims: Claim,
    note: str = "",
    **more: str,
) -> PaperContent:
    """Histograms, in each panel one of each kind; `more` are conditions that differ from Figure 13's."""
    kinds = (kinds,) if isinstance(kinds, str) else kinds
    return PaperContent(title, columns, in_panels(panels), PAIRS | more, note, claims, "histograms", kinds)


def _samples(title: str, note: str, *models: GanModel, columns: tuple[str, ...] = ()) -> PaperContent:
    return PaperContent(title, columns, in_panels({"": models}), {}, note, drawn="samples")


NOT_MONOTONE = (
    "In panel a a lower c is not a stronger constraint on every layer. Where c * min(rows, columns) <= 1 there is no "
    "bound (infeasible: skip), since at a stable rank of 1 a weight has no gradient; the paper does not say what it "
    "does. So the stable rank of the RGB shortcut, which has 3 columns, is 2.5, 2.1, 1.5, 2.5, 2.5 for c = 0.9, 0.7, "
    "0.5, 0.3, 0.1 at the start (128 channels). With --set discriminator.infeasible=floor bounds are at least 1.5, and "
    "it is 2.5, 2.1, 1.5, 1.5, 1.5."
)

FIGURES = {
    "5": _histograms(
        "Empirical Lipschitz constants of unconditional GANs on CIFAR-10",
        "elhist/real_fake",
        (REAL_FAKE, "IS", "FID"),
        {
            "a: stable rank constraints": (SRN90, SRN70, SRN50, SRN30, SRN10),
            "b: approaches": (RANDOM, ORTHO, WGAN_GP, SN, SRN70),
        },
        *_orders("a lower c moves the histogram towards zero", REAL_FAKE, SRN10, SRN30, SRN50, SRN70, SRN90),
        *_orders(
            "a lower c improves the inception score (but Table 2: SRN-70 8.53, SRN-50 8.33)",
            *("IS", SRN90, SRN70, SRN50, SRN30),
        ),
        *_orders("at c = 0.1 the inception score drops", "IS", SRN10, SRN30),
        *_orders("WGAN-GP has lower constants than Random-GAN", REAL_FAKE, WGAN_GP, RANDOM),
        *_orders("WGAN-GP scores higher than Random-GAN", "IS", RANDOM, WGAN_GP),
        *_orders("SRN-GAN has higher constants than WGAN-GP", REAL_FAKE, WGAN_GP, SRN70),
        *_orders("SRN-GAN scores higher than WGAN-GP", "IS", WGAN_GP, SRN70),
        note=NOT_MONOTONE,
        extractor="Inception",
        images="2,000 pairs; IS of 50,000",
    ),
    "12": _histograms(
        "Empirical Lipschitz constants of conditional GANs on CIFAR-100",
        "elhist/real_fake",
        (REAL_FAKE,),
        {
            CONDITIONAL: (
                GanModel("SN-GAN", "cifar100_cond_sn"),
                GanModel("SRN-70-GAN", "cifar100_cond_sn", ("srn70",)),
                GanModel("SRN-50-GAN", "cifar100_cond_sn", ("srn50",)),
            )
        },
        data="CIFAR-100",
    ),
    "13": _histograms(
        "Empirical Lipschitz constants between generated images, CIFAR-10",
        "elhist/fake_fake",
        (FAKE_FAKE,),
        {"a: conditional": COMPARED_AS_CONDITIONAL, "b: unconditional": COMPARED},
        note=STABLE,
    ),
    "14": _histograms(
        "Empirical Lipschitz constants between real images, CIFAR-10",
        "elhist/real_real",
        (REAL_REAL,),
        {"a: conditional": COMPARED_AS_CONDITIONAL, "b: unconditional": COMPARED},
        note=STABLE,
    ),
    "15": _histograms(
        "Jacobian norms at and near generated images, CIFAR-10",
        ("jacobian/fake", "jacobian/fake_near"),
        (AT_FAKE, NEAR_FAKE, UNEVENNESS, UNEVENNESS_NEAR),
        {"a: conditional": COMPARED_AS_CONDITIONAL, "b: unconditional": (*COMPARED, WGAN_GP)},
        *_orders("SRN-GAN's norms are alike for real and generated, SN-GAN's are not", UNEVENNESS, SRN70, SN),
        *_orders("WGAN-GP's are alike, SN-GAN's are not", UNEVENNESS, WGAN_GP, SN),
        note=f"{STABLE} {VICINITY}",
        **POINTS,
    ),
    "16": _histograms(
        "Jacobian norms at and near real images, CIFAR-10",
        ("jacobian/real", "jacobian/real_near"),
        (AT_REAL, NEAR_REAL),
        {"a: conditional": COMPARED_AS_CONDITIONAL, "b: unconditional": (*COMPARED, WGAN_GP)},
        note=f"{STABLE} {VICINITY}",
        **POINTS,
    ),
    "17": PaperContent(
        "Loss of the discriminator during training",
        (STEADINESS,),
        in_panels({"unconditional": (SRN50, SRN70, SN), "conditional": (COND_SRN50, COND_SRN70, COND_SN)}),
        LOSSES,
        claims=(
            *_orders("SRN-70-GAN's loss is steadier than SN-GAN's", STEADINESS, SRN70, SN),
            *_orders("SRN-50-GAN's loss is steadier than SN-GAN's", STEADINESS, SRN50, SN),
        ),
        drawn="curves",
        kinds=("d_loss",),
    ),
    "18": _samples("CelebA, unconditional SRN-GAN", PICKED, CELEBA_SRN70),
    "19": _samples("CelebA, unconditional SN-GAN", PICKED, CELEBA_SN),
    "20": _samples(
        "CIFAR-10, unconditional GANs",
        "The paper does not say how its images were chosen.",
        *(SRN70, SRN50, SN, WGAN_GP),
    ),
    "21": _samples(
        "CIFAR-10, conditional GANs", UNSEEN, COND_SRN70, COND_SRN50, COND_SN, columns=("IS", "FID", "GAN-test")
    ),
    "22": _samples("CIFAR-100, unconditional GANs", UNSEEN, CIFAR100_SRN70, CIFAR100_SN),
}
