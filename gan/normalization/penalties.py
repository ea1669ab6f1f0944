"""What can be added to the discriminator's loss, by name; each goes with any weight normalization, or with none."""

from typing import NamedTuple, Protocol

from torch import Tensor, nn

from gan.normalization.gradient_penalty import gradient_penalty, r1_penalty
from gan.normalization.orthogonal import orthogonal_penalty


class Penalty(Protocol):
    """What is added to the discriminator's loss, a scalar; `real` and `fake` are images (N, 3, H, W) of one batch.

    uniforms: in [0, 1), (N,), for what is random in it.
    """

    def __call__(
        self,
        network: nn.Module,
        real: Tensor,
        fake: Tensor,
        labels: Tensor | None,
        *,
        coefficient: float,
        uniforms: Tensor,
    ) -> Tensor: ...


class PenaltyChoice(NamedTuple):
    """compute: the penalty; None: nothing is added. coefficient: name of the setting that is its coefficient.

    second_derivatives: it differentiates a gradient, or draws random numbers: compilers and CUDA graphs leave it out.
    """

    compute: Penalty | None
    coefficient: str = ""
    second_derivatives: bool = False


def _gradient(
    network: nn.Module,
    real: Tensor,
    fake: Tensor,
    labels: Tensor | None,
    *,
    coefficient: float,
    uniforms: Tensor,
) -> Tensor:
    return gradient_penalty(network, real, fake, labels, coefficient=coefficient, uniforms=uniforms)


def _r1(
    network: nn.Module,
    real: Tensor,
    fake: Tensor,
    labels: Tensor | None,
    *,
    coefficient: float,
    uniforms: Tensor,
) -> Tensor:
    return r1_penalty(network, real, labels, coefficient=coefficient)


def _orthogonal(
    network: nn.Module,
    real: Tensor,
    fake: Tensor,
    labels: Tensor | None,
    *,
    coefficient: float,
    uniforms: Tensor,
) -> Tensor:
    return orthogonal_penalty(network, coefficient=coefficient)


PENALTIES: dict[str, PenaltyChoice] = {
    "none": PenaltyChoice(None),
    "gradient": PenaltyChoice(_gradient, "gp_coefficient", second_derivatives=True),
    "r1": PenaltyChoice(_r1, "r1_coefficient", second_derivatives=True),
    "orthogonal": PenaltyChoice(_orthogonal, "ortho_coefficient"),
}
