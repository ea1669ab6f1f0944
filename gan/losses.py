"""Adversarial losses as functions of logits, and the interface of penalties on the discriminator."""

from typing import NamedTuple, Protocol

import torch.nn.functional as F
from torch import Tensor, nn


class DiscriminatorLoss(Protocol):
    """Maps the logits of real and of generated images, each (N,), to a scalar."""

    def __call__(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor: ...


class GeneratorLoss(Protocol):
    """Maps the logits of generated images, (N,), to a scalar."""

    def __call__(self, fake_logits: Tensor) -> Tensor: ...


class DiscriminatorPenalty(Protocol):
    """Maps a discriminator and images (B, C, H, W) to a float32 scalar.

    Args:
        labels: (B,), of the real images; None if unconditional.
        uniforms: random numbers in [0, 1), (B,), for penalties that need them.
    """

    def __call__(
        self, network: nn.Module, real: Tensor, fake: Tensor, labels: Tensor | None, *, uniforms: Tensor
    ) -> Tensor: ...


class LogitPenalty(Protocol):
    """Maps the logits of real and of generated images, each (N,), to a scalar.

    Args:
        averages: (2,), moving averages of the mean logits of real and of generated images, the present ones included.
    """

    def __call__(self, real_logits: Tensor, fake_logits: Tensor, averages: Tensor) -> Tensor: ...


class Loss(NamedTuple):
    """Losses that the two networks minimise.

    Attributes:
        certain_loss, indifferent_gap: bounds of two alarms, see `gan.training.health`; None: no such alarm.
        margin: a real image with at least this logit, or a generated one with at most its negative, adds no gradient to
            the discriminator's loss; None: every image does.
        penalty, logit_penalty: added to the discriminator's loss.
    """

    discriminator: DiscriminatorLoss
    generator: GeneratorLoss
    certain_loss: float | None = None
    indifferent_gap: float | None = None
    margin: float | None = None
    penalty: DiscriminatorPenalty | None = None
    logit_penalty: LogitPenalty | None = None


def hinge_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """E max(0, 1 - D(x)) + E max(0, 1 + D(G(z))): Miyato et al. 2018, equation 16; Lim & Ye 2017."""
    return F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()


def negative_logits(fake_logits: Tensor) -> Tensor:
    """-E D(G(z)): the generator's loss for both the hinge and the Wasserstein loss."""
    return -fake_logits.mean()


def non_saturating_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-E log s(D(x)) - E log(1 - s(D(G(z)))), s the logistic function: Goodfellow et al. 2014."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def non_saturating_generator(fake_logits: Tensor) -> Tensor:
    """-E log s(D(G(z))): Goodfellow et al. 2014, section 3."""
    return F.softplus(-fake_logits).mean()


def wasserstein_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """E D(G(z)) - E D(x): Arjovsky et al. 2017. Requires a critic with a bounded Lipschitz constant."""
    return fake_logits.mean() - real_logits.mean()


LOSSES: dict[str, Loss] = {
    "hinge": Loss(hinge_discriminator, negative_logits, certain_loss=0.05, indifferent_gap=0.02, margin=1.0),
    "non_saturating": Loss(
        non_saturating_discriminator, non_saturating_generator, certain_loss=0.05, indifferent_gap=0.014
    ),
    "wasserstein": Loss(wasserstein_discriminator, negative_logits, indifferent_gap=0.0),
}
"""Losses by name, with the bounds of their alarms.

certain_loss: mean discriminator loss below which it separates real from generated perfectly. The hinge and the
logistic loss are never negative, and their gradients vanish near 0. The bounds are 2.5% and 3.6% of a constant
discriminator's loss. Healthy runs stay above 0.6; a run with 60 unnormalized discriminator steps per generator step
reached 0.001. Penalties are not negative, so they can hide this sign but not cause it. The Wasserstein loss has no
lower bound.

indifferent_gap: difference of the mean logits of real and generated images below which the discriminator cannot tell
them apart. The bounds are 1% of a constant discriminator's loss, which is 2 (hinge), 2 ln 2 (logistic) or 0
(Wasserstein). Unlike the loss, the difference does not contain the penalty. Healthy runs stay above 0.2. The
Wasserstein loss has no scale, and its difference tends to 0 when training succeeds, so the alarm requires logits that
are equal up to rounding.
"""
