"""Noise sensitivity: how far noise on the input moves the output. Arora et al. 2018; Sanyal et al. 2020, Figure 1."""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from evaluation.errors import EvaluationError
from evaluation.generalization.classifier import BATCH_SIZE, asked


class NoiseSensitivity(NamedTuple):
    """Phi at each image, float64 (N,), and the standard error of its mean over the draws, NaN with one draw."""

    sensitivity: Tensor
    standard_error: Tensor

    @property
    def maximum(self) -> float:
        """Phi of the network: the largest of the images'. A maximum of estimates: it grows with their errors."""
        return float(self.sensitivity.max())


def noise_sensitivity(
    network: nn.Module, images: Tensor, *, draws: int = 32, seed: int = 0, batch_size: int = BATCH_SIZE
) -> NoiseSensitivity:
    """Phi(x) = E |f(x + eta |x|) - f(x)|^2 / |f(x)|^2, eta standard normal, for each image x.

    eta |x| is as long as x times the square root of the number of its entries. Of a linear map it is at least the
    stable rank, with equality at its first right singular vector.

    Args:
        network: images -> logits (N, K). Switched to eval mode and back.
        images: (N, ...) float32 in the network's input range; float64 too.
        draws: of eta, for each image.
        seed: of the draws, which are made on the CPU: values depend neither on the device nor on the batches.

    Raises:
        EvaluationError: inputs of another form, or a network that is no classifier of single images; see `asked`.
    """
    if draws < 1:
        raise EvaluationError(f"noise sensitivity: got {draws} draws, expected at least 1")
    return sensitivity_to(network, images, _normal(images, draws, seed), batch_size=batch_size)


def sensitivity_to(
    network: nn.Module, images: Tensor, noises: Iterable[Tensor], *, batch_size: int = BATCH_SIZE
) -> NoiseSensitivity:
    """As `noise_sensitivity`, averaged over given values of eta, each of the images' shape.

    Raises:
        EvaluationError: as there.
    """
    with asked(network, images) as ask, torch.no_grad():
        clean = torch.cat([ask(some).double() for some in images.split(batch_size)])
        lengths = torch.linalg.vector_norm(images.flatten(1), dim=1)
        scale = lengths.view(-1, *(1 for _ in images.shape[1:]))  # (N, 1, ...)
        changes = []
        for noise in noises:
            parts = zip(images.split(batch_size), noise.split(batch_size), scale.split(batch_size), strict=True)
            logits = torch.cat([ask(some + eta.to(some.device) * length).double() for some, eta, length in parts])
            changes.append((logits - clean).square().sum(1) / clean.square().sum(1))
    drawn = torch.stack(changes).cpu()  # (draws, N)
    errors = drawn.std(0) / math.sqrt(len(drawn)) if len(drawn) > 1 else torch.full_like(drawn[0], torch.nan)
    return NoiseSensitivity(drawn.mean(0), errors)


def _normal(images: Tensor, draws: int, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator("cpu").manual_seed(seed)
    for _ in range(draws):
        yield torch.randn(images.shape, dtype=images.dtype, generator=generator, device="cpu")
