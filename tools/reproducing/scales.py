"""Scales of the experiments, from the paper's settings down to minutes on a CPU."""

from typing import NamedTuple


class Scale(NamedTuple):
    """Changes of the configurations of the paper's setting.

    variant: part of their names, as "small" in cifar10_small_sn.
    overrides: of GANs' settings.
    share: factor on a classifier's epochs and milestones.
    classifiers: overrides of classifiers' settings.
    memorizing: further overrides where labels are random.
    """

    variant: str
    overrides: tuple[str, ...]
    share: float = 1
    classifiers: tuple[str, ...] = ()
    memorizing: tuple[str, ...] = ()


ADAM = "train.adam_beta2=0.999"
"""As Appendix E.1 states; the SN-GAN authors' code, which the configurations follow, has 0.9."""

SCALES = {
    "paper": Scale("", (ADAM,)),
    "gpu-hour": Scale(
        "",
        (
            ADAM,
            *("train.steps=10000", "train.lr_decay_start=0", "train.precision=bf16", "train.fast=auto"),
            *("eval.nd.steps=10000", "eval.nd.num_samples=100000"),
        ),
        share=0.1,
        classifiers=("train.precision=bf16",),
    ),
    # With crops and flips a network of this size memorizes nothing in so few updates.
    "cpu": Scale("small", (ADAM,), memorizing=("train.augment=false",)),
}
