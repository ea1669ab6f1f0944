"""Penalties on the gradient of a critic with respect to its input images: WGAN-GP and R1.

Both need second derivatives, which torch.compile cannot compute, and run outside autocast, in float32 or wider. Add
them to the discriminator's loss, with any weight normalization or none.
"""

from collections.abc import Callable

import torch
from torch import Tensor

EPS = 1e-12
"""Number added under the square root, whose derivative is infinite where the critic's gradient is 0."""


def gradient_penalty(
    critic: Callable[..., Tensor],
    real: Tensor,
    fake: Tensor,
    labels: Tensor | None = None,
    *,
    coefficient: float = 10.0,
    generator: torch.Generator | None = None,
    uniforms: Tensor | None = None,
) -> Tensor:
    """Returns coefficient * E (|grad D(x)| - 1)^2 at x = a * real + (1 - a) * fake, one a ~ U[0, 1) per pair.

    Gulrajani et al. 2017, equation 3; the default coefficient is theirs.

    Args:
        critic: (images) -> logits, or (images, labels) -> logits if labels are given. Each logit must depend only on
            its own image, which excludes batch normalization.
        real, fake: images (N, ...) of one shape; interpolated in float32, or in float64 if either is float64.
        labels: labels of the real images, (N,), used for the interpolated ones. The paper has no conditional critic.
        generator: draws the weights a, on the images' device; None uses the global generator.
        uniforms: the weights a, (N,), if already drawn.

    Returns:
        A scalar, float32 or wider, differentiable in the critic's parameters.

    Raises:
        ValueError: real and fake differ in shape.
    """
    if real.shape != fake.shape:
        raise ValueError(f"real and fake must have the same shape, got {tuple(real.shape)} and {tuple(fake.shape)}")
    with torch.autocast(real.device.type, enabled=False):
        real, fake = _full_precision(real), _full_precision(fake)
        dtype = torch.promote_types(real.dtype, fake.dtype)
        real, fake = real.to(dtype), fake.to(dtype)
        if uniforms is None:
            uniforms = torch.rand(len(real), generator=generator, dtype=dtype, device=real.device)
        weights = uniforms.to(dtype).view(-1, *[1] * (real.ndim - 1))  # (N, 1, 1, 1)
        norms = (_squared_gradient_norms(critic, torch.lerp(fake, real, weights), labels) + EPS).sqrt()
        return coefficient * (norms - 1).square().mean()


def r1_penalty(
    critic: Callable[..., Tensor], real: Tensor, labels: Tensor | None = None, *, coefficient: float = 10.0
) -> Tensor:
    """Returns coefficient / 2 * E |grad D(x)|^2 at real images x. Mescheder et al. 2018, equation 9.

    The default coefficient is theirs. Arguments and result: see `gradient_penalty`.
    """
    with torch.autocast(real.device.type, enabled=False):
        return coefficient / 2 * _squared_gradient_norms(critic, _full_precision(real), labels).mean()


def _full_precision(images: Tensor) -> Tensor:
    return images.detach().to(torch.promote_types(images.dtype, torch.float32))


@torch.enable_grad()
def _squared_gradient_norms(critic: Callable[..., Tensor], images: Tensor, labels: Tensor | None) -> Tensor:
    """Returns |grad D(x)|^2 of each image, (N,), differentiable."""
    images.requires_grad_()
    logits = critic(images) if labels is None else critic(images, labels)
    (gradients,) = torch.autograd.grad(
        logits.to(torch.promote_types(logits.dtype, torch.float32)).sum(), images, create_graph=True
    )  # (N, ...)
    return gradients.flatten(1).square().sum(1)
