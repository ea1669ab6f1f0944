"""Scales of the experiments, from the paper's settings down to those of a CPU."""

from typing import NamedTuple


class Scale(NamedTuple):
    """Changes to the configurations of the paper's setting.

    variant: variant laid over them, such as "jpeg"; "small" for the one of a CPU; "" for none.
    gans: further variants of GANs' configurations.
    share: factor on classifiers' epochs and milestones.
    classifiers: overrides of classifiers' settings.
    memorizing: further overrides for random labels.
    """

    variant: str
    gans: tuple[str, ...] = ()
    share: float = 1
    classifiers: tuple[str, ...] = ()
    memorizing: tuple[str, ...] = ()


SCALES = {
    "paper": Scale(""),
    "gpu-hour": Scale("", ("gpu_hour",), share=0.1, classifiers=("train.precision=bf16",)),
    # With crops and flips, a network of this size memorizes nothing in so few updates.
    "cpu": Scale("small", memorizing=("train.augment=false",)),
}
