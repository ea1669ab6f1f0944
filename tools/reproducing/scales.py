"""Scales of the experiments, from the paper's settings down to those of a CPU."""

from typing import NamedTuple


class Scale(NamedTuple):
    """Changes to the configurations of the paper's setting.

    small: whether networks and recipes are those for a CPU.
    variant: variant laid over all configurations that it fits, such as "jpeg"; "" for none.
    gans: further variants of GANs' configurations.
    share: factor on classifiers' epochs and milestones.
    classifiers: overrides of classifiers' settings.
    memorizing: further overrides for random labels.
    """

    small: bool = False
    variant: str = ""
    gans: tuple[str, ...] = ()
    share: float = 1
    classifiers: tuple[str, ...] = ()
    memorizing: tuple[str, ...] = ()


SCALES = {
    "paper": Scale(),
    "gpu-hour": Scale(gans=("gpu_hour",), share=0.1, classifiers=("train.precision=bf16",)),
    # With crops and flips, a network of this size memorizes nothing in so few updates.
    "cpu": Scale(small=True, memorizing=("train.augment=false",)),
}
