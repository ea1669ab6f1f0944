"""Adversarial losses: functions of logits (N,) and nothing else; a penalty may be added to the discriminator's."""

from typing import NamedTuple, Protocol

import torch.nn.functional as F
from torch import Tensor, nn


class DiscriminatorLoss(Protocol):
    """Logits of real and of generated images, (N,) each -> a scalar."""

    def __call__(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor: ...


class GeneratorLoss(Protocol):
    """Logits of generated images, (N,) -> a scalar."""

    def __call__(self, fake_logits: Tensor) -> Tensor: ...


class DiscriminatorPenalty(Protocol):
    """Of the discriminator on real and fake images (B, 3, H, W), with the real images' labels; a scalar, float32.

    uniforms: in [0, 1), (B,), for what is random in it.
    """

    def __call__(
        self, network: nn.Module, real: Tensor, fake: Tensor, labels: Tensor | None, *, uniforms: Tensor
    ) -> Tensor: ...


class Loss(NamedTuple):
    """Both sides of the game; each is minimised by its own network, the discriminator's with the penalty, if any."""

    discriminator: DiscriminatorLoss
    generator: GeneratorLoss
    penalty: DiscriminatorPenalty | None = None


def hinge_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """E max(0, 1 - D(x)) + E max(0, 1 + D(G(z))): Miyato et al. 2018, equation 16; Lim & Ye 2017."""
    return F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()


def negative_logits(fake_logits: Tensor) -> Tensor:
    """-E D(G(z)): the generator's side of the hinge and of the Wasserstein loss."""
    return -fake_logits.mean()


def non_saturating_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-E log s(D(x)) - E log(1 - s(D(G(z)))), s the logistic function: Goodfellow et al. 2014."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def non_saturating_generator(fake_logits: Tensor) -> Tensor:
    """-E log s(D(G(z))): Goodfellow et al. 2014, section 3."""
    return F.softplus(-fake_logits).mean()


def wasserstein_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """E D(G(z)) - E D(x): Arjovsky et al. 2017. Meaningful only for a Lipschitz-bounded critic."""
    return fake_logits.mean() - real_logits.mean()


LOSSES: dict[str, Loss] = {
    "hinge": Loss(hinge_discriminator, negative_logits),
    "non_saturating": Loss(non_saturating_discriminator, non_saturating_generator),
    "wasserstein": Loss(wasserstein_discriminator, negative_logits),
}
