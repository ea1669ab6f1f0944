"""Empirical Lipschitz constants of a classifier's logits, local and global. Sanyal et al. 2020, 2 and 3.

Of its margin, a number, `evaluation.empirical_lipschitz` and `evaluation.jacobian_norms` measure them: give
`Margin(network)` as the critic.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from evaluation.errors import EvaluationError
from evaluation.generalization.classifier import BATCH_SIZE, asked, gradient_of
from evaluation.images.reader import check_inputs
from evaluation.metrics.lipschitz import Ratios

NUMBERS = 2**27
"""Of the Jacobians that are in memory at once: 1 GiB in float64, and as much again while it is made."""


class JacobianNorms(NamedTuple):
    """Of the logits' Jacobian (K, entries) at each image, float64 (N,)."""

    spectral: Tensor  # the local Lipschitz constant for Euclidean norms
    frobenius: Tensor  # Novak et al. 2018


def global_lipschitz(network: nn.Module, x: Tensor, y: Tensor, *, batch_size: int = BATCH_SIZE) -> Ratios:
    """|f(x_i) - f(y_i)|_2 / |x_i - y_i|_2 for each pair i, float64 (P,); NaN where x_i = y_i.

    The largest of them is the empirical Lipschitz constant of these pairs, a lower bound of the constant itself.

    Args:
        network: images -> logits (N, K). Switched to eval mode and back.
        x, y: (P, ...) of one shape, float32 in the network's input range; float64 too.

    Raises:
        EvaluationError: inputs of another form, or a network that is no classifier of single images; see `asked`.
    """
    check_inputs(y, "classifier's")
    if x.shape != y.shape:
        raise EvaluationError(f"pairs: got {tuple(x.shape)} and {tuple(y.shape)}, expected one shape")
    parts = []
    with asked(network, x) as ask, torch.no_grad():
        for first, second in zip(x.split(batch_size), y.split(batch_size), strict=True):
            difference = torch.linalg.vector_norm(ask(first).double() - ask(second).double(), dim=1).cpu()
            distance = torch.linalg.vector_norm((first - second).flatten(1), dim=1, dtype=torch.float64).cpu()
            ratio = torch.where(distance > 0, difference / distance, torch.nan)
            parts.append(torch.stack([ratio, distance, difference]))
    return Ratios(*torch.cat(parts, dim=1))


def local_lipschitz(network: nn.Module, images: Tensor, *, batch_size: int = BATCH_SIZE) -> JacobianNorms:
    """The norms of the logits' Jacobian at each image, exact: K backward passes for each batch.

    A batch's Jacobians are in memory at once, batch_size * K * entries numbers; batches are smaller where that would be
    more than `NUMBERS`. Gradients of parameters are neither
    computed nor changed. Arguments as for `global_lipschitz`.

    Raises:
        EvaluationError: as there; a network that is not differentiable.
    """
    parts = []
    with asked(network, images) as ask:
        with torch.no_grad():
            numbers = ask(images[:1]).shape[1] * images[0].numel()
        for some in images.split(max(1, min(batch_size, NUMBERS // numbers))):
            points = some.detach().clone().requires_grad_()
            logits = ask(points)
            rows = [gradient_of(one.sum(), points) for one in logits.unbind(1)]
            jacobians = torch.stack([row.flatten(1) for row in rows], dim=1).double()  # (n, K, entries)
            gram = jacobians @ jacobians.mT  # (n, K, K)
            largest = torch.linalg.eigvalsh(gram)[:, -1].clamp_min(0)
            parts.append(torch.stack([largest, gram.diagonal(dim1=1, dim2=2).sum(1)]).sqrt().cpu())
    return JacobianNorms(*torch.cat(parts, dim=1))
