"""Adversarial losses, as functions of logits (N,), and an optional penalty on the discriminator."""

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
    """Maps a discriminator and images (B, 3, H, W) to a float32 scalar; `labels` are those of the real images.

    uniforms: random numbers in [0, 1), (B,), for penalties that need them.
    """

    def __call__(
        self, network: nn.Module, real: Tensor, fake: Tensor, labels: Tensor | None, *, uniforms: Tensor
    ) -> Tensor: ...


class Loss(NamedTuple):
    """Losses of both networks; each network minimises its own, the discriminator with the penalty added."""

    discriminator: DiscriminatorLoss
    generator: GeneratorLoss
    penalty: DiscriminatorPenalty | None = None


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
    "hinge": Loss(hinge_discriminator, negative_logits),
    "non_saturating": Loss(non_saturating_discriminator, non_saturating_generator),
    "wasserstein": Loss(wasserstein_discriminator, negative_logits),
}
