"""Penalties on the gradient of a critic with respect to images: WGAN-GP and R1.

Both need second derivatives: they run eagerly, since torch.compile cannot differentiate twice, and in float32 or wider,
outside autocast. Add them to the discriminator's loss; they go with any weight normalization, or with none.
"""

from collections.abc import Callable

import torch
from torch import Tensor

EPS = 1e-12
"""Inside the square root, whose derivative at 0 is infinite: a critic may be flat somewhere."""


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
    """coefficient * E (|grad D(x)| - 1)^2 at x = a * real + (1 - a) * fake, one a ~ U[0, 1) per pair of images.

    Gulrajani et al. 2017, equation 3, with their coefficient.

    Args:
        critic: (images) -> logits, or (images, labels) -> logits where labels are given; each logit a function of its
            own image alone, so without batch normalization.
        real, fake: images (N, ...) of one shape; interpolated in float32, or float64 where they are.
        labels: (N,), of the real images. The paper has no conditional critic; a mixture carries the real one's label.
        generator: of the weights a, on the images' device; None: the global one.
        uniforms: the weights a themselves, (N,), drawn already.

    Returns:
        A scalar, float32 or wider, differentiable in the critic's parameters.

    Raises:
        ValueError: real and fake differ in shape.
    """
    if real.shape != fake.shape:
        raise ValueError(f"real and fake must have one shape, got {tuple(real.shape)} and {tuple(fake.shape)}")
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
    """coefficient / 2 * E |grad D(x)|^2 at real images x. Mescheder et al. 2018, equation 9, with their coefficient.

    Args and returns: see `gradient_penalty`.
    """
    with torch.autocast(real.device.type, enabled=False):
        return coefficient / 2 * _squared_gradient_norms(critic, _full_precision(real), labels).mean()


def _full_precision(images: Tensor) -> Tensor:
    return images.detach().to(torch.promote_types(images.dtype, torch.float32))


@torch.enable_grad()
def _squared_gradient_norms(critic: Callable[..., Tensor], images: Tensor, labels: Tensor | None) -> Tensor:
    """|grad D(x)|^2 for each image, (N,), differentiable."""
    images.requires_grad_()
    logits = critic(images) if labels is None else critic(images, labels)
    (gradients,) = torch.autograd.grad(
        logits.to(torch.promote_types(logits.dtype, torch.float32)).sum(), images, create_graph=True
    )  # (N, ...)
    return gradients.flatten(1).square().sum(1)
