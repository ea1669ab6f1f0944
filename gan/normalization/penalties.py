"""Penalties on the discriminator by name; each combines with any weight normalization."""

from typing import NamedTuple, Protocol

from torch import Tensor, nn

from gan.normalization.gradient_penalty import gradient_penalty, r1_penalty
from gan.normalization.orthogonal import orthogonal_penalty


class Penalty(Protocol):
    """Function that returns a scalar to be added to the discriminator's loss.

    real, fake: images (N, 3, H, W) of one batch.
    labels: labels of the real images, int64 (N,); None if unconditional.
    uniforms: random numbers in [0, 1), (N,), for penalties that need them.
    """

    def __call__(
        self,
        network: nn.Module,
        real: Tensor,
        fake: Tensor,
        labels: Tensor | None,
        /,
        *,
        coefficient: float,
        uniforms: Tensor,
    ) -> Tensor: ...


class PenaltyChoice(NamedTuple):
    """A penalty and the setting that scales it.

    compute: the penalty; None: no penalty.
    coefficient: name of the setting that holds the coefficient.
    """

    compute: Penalty | None
    coefficient: str = ""


def _r1(
    network: nn.Module, real: Tensor, fake: Tensor, labels: Tensor | None, *, coefficient: float, uniforms: Tensor
) -> Tensor:
    return r1_penalty(network, real, labels, coefficient=coefficient)


def _orthogonal(
    network: nn.Module, real: Tensor, fake: Tensor, labels: Tensor | None, *, coefficient: float, uniforms: Tensor
) -> Tensor:
    return orthogonal_penalty(network, coefficient=coefficient)


PENALTIES: dict[str, PenaltyChoice] = {
    "none": PenaltyChoice(None),
    "gradient": PenaltyChoice(gradient_penalty, "gp_coefficient"),
    "r1": PenaltyChoice(_r1, "r1_coefficient"),
    "orthogonal": PenaltyChoice(_orthogonal, "ortho_coefficient"),
}
