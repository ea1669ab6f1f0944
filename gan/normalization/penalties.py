"""Penalties on the discriminator by name; each combines with any weight normalization."""

from typing import NamedTuple, Protocol

import torch.nn.functional as F
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


class LogitsPenalty(Protocol):
    """Function of the discriminator's logits that returns a scalar to be added to its loss.

    real_logits, fake_logits: of one batch, each (N,).
    averages: (2,), moving averages of the means of both, the present ones included; see `lecam_penalty`.
    """

    def __call__(self, real_logits: Tensor, fake_logits: Tensor, averages: Tensor, *, coefficient: float) -> Tensor: ...


class PenaltyChoice(NamedTuple):
    """A penalty and the setting that scales it.

    compute: the penalty of the network and a batch; None: none.
    coefficient: name of the setting that holds the coefficient.
    of_logits: the penalty of the logits of a batch and their moving averages; None: none.
    """

    compute: Penalty | None = None
    coefficient: str = ""
    of_logits: LogitsPenalty | None = None


def lecam_penalty(real_logits: Tensor, fake_logits: Tensor, averages: Tensor, *, coefficient: float = 0.3) -> Tensor:
    """Returns coefficient * (E max(0, D(x) - a_fake)^2 + E max(0, a_real - D(G(z)))^2). Tseng et al. 2021, section 3.2.

    a_real and a_fake are exponential moving averages, with decay 0.99, of the mean logits of real and of generated
    images in all discriminator updates so far, the present one included, without bias towards 0. This is the authors'
    code for StyleGAN2, which penalizes from the first update on. Their code for BigGAN begins after 1,000 iterations.
    Equation 6 of the paper has no maximum with 0; both codes have it.

    Args:
        real_logits, fake_logits: (N,).
        averages: (a_real, a_fake), without gradients.
        coefficient: the default is that of the authors' scripts for BigGAN on CIFAR-10, trained with the hinge loss.
    """
    real_average, fake_average = averages
    of_real = F.relu(real_logits - fake_average).square().mean()
    return coefficient * (of_real + F.relu(real_average - fake_logits).square().mean())


def _r1(
    network: nn.Module, real: Tensor, fake: Tensor, labels: Tensor | None, *, coefficient: float, uniforms: Tensor
) -> Tensor:
    return r1_penalty(network, real, labels, coefficient=coefficient)


def _orthogonal(
    network: nn.Module, real: Tensor, fake: Tensor, labels: Tensor | None, *, coefficient: float, uniforms: Tensor
) -> Tensor:
    return orthogonal_penalty(network, coefficient=coefficient)


PENALTIES: dict[str, PenaltyChoice] = {
    "none": PenaltyChoice(),
    "gradient": PenaltyChoice(gradient_penalty, "gp_coefficient"),
    "r1": PenaltyChoice(_r1, "r1_coefficient"),
    "orthogonal": PenaltyChoice(_orthogonal, "ortho_coefficient"),
    "lecam": PenaltyChoice(None, "lecam_coefficient", lecam_penalty),
}
