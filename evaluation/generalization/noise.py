"""Sensitivity of the logits to noise on the input (Arora et al. 2018; Sanyal et al. 2020, Figure 1)."""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from evaluation.errors import EvaluationError
from evaluation.generalization.classifier import BATCH_SIZE, checked_forward


class NoiseSensitivity(NamedTuple):
    """Noise sensitivity Phi at each image, float64 (N,), and its standard error over the draws, NaN for one draw."""

    sensitivity: Tensor
    standard_error: Tensor

    @property
    def maximum(self) -> float:
        """Phi of the network, the maximum over images; as a maximum of estimates it is biased upwards."""
        return float(self.sensitivity.max())


def noise_sensitivity(
    network: nn.Module, images: Tensor, *, draws: int = 32, seed: int = 0, batch_size: int = BATCH_SIZE
) -> NoiseSensitivity:
    """Computes Phi(x) = E |f(x + eta |x|) - f(x)|^2 / |f(x)|^2, eta standard normal, for each image x.

    The noise eta |x| has about the norm of x times the square root of its number of entries. For a linear map Phi is at
    least the stable rank, with equality at its first right singular vector.

    Args:
        network: images -> logits (N, K). Switched to eval mode and back.
        images: (N, ...), float32 or float64, in the network's input range.
        draws: noise samples per image.
        seed: seed of the noise, which is drawn on the CPU so that values do not depend on the device or the batches.

    Raises:
        EvaluationError: see `checked_forward`; fewer than one draw.
    """
    if draws < 1:
        raise EvaluationError(f"noise sensitivity: got {draws} draws, expected at least 1")
    return sensitivity_to(network, images, _normal(images, draws, seed), batch_size=batch_size)


def sensitivity_to(
    network: nn.Module, images: Tensor, noises: Iterable[Tensor], *, batch_size: int = BATCH_SIZE
) -> NoiseSensitivity:
    """Computes `noise_sensitivity` for given values of eta, each of the images' shape."""
    with checked_forward(network, images) as forward, torch.no_grad():
        clean = torch.cat([forward(some).double() for some in images.split(batch_size)])
        scale = torch.linalg.vector_norm(images.flatten(1), dim=1).view(
            -1, *(1 for _ in images.shape[1:])
        )  # (N, 1, ...)
        changes = []
        for noise in noises:
            parts = zip(images.split(batch_size), noise.split(batch_size), scale.split(batch_size), strict=True)
            logits = torch.cat([forward(some + eta.to(some.device) * length).double() for some, eta, length in parts])
            changes.append((logits - clean).square().sum(1) / clean.square().sum(1))
    drawn = torch.stack(changes).cpu()  # (draws, N)
    errors = drawn.std(0) / math.sqrt(len(drawn)) if len(drawn) > 1 else torch.full_like(drawn[0], torch.nan)
    return NoiseSensitivity(drawn.mean(0), errors)


def _normal(images: Tensor, draws: int, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator("cpu").manual_seed(seed)
    for _ in range(draws):
        yield torch.randn(images.shape, dtype=images.dtype, generator=generator, device="cpu")
