"""Empirical Lipschitz constants of a classifier's logits, local and global (Sanyal et al. 2020, sections 2 and 3).

For the constants of its margin, pass `Margin(network)` as the critic to `evaluation.empirical_lipschitz` and
`evaluation.jacobian_norms`.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from evaluation.errors import EvaluationError
from evaluation.generalization.classifier import BATCH_SIZE, checked_forward
from evaluation.images.checks import check_inputs
from evaluation.metrics.lipschitz import Ratios, gradient_of

JACOBIAN_ENTRIES = 2**27  # entries in memory at once: 1 GiB in float64, twice that during the computation


class JacobianNorms(NamedTuple):
    """Norms of the Jacobian (K, entries) of the logits at each image, float64 (N,)."""

    spectral: Tensor  # the local Lipschitz constant for Euclidean norms
    frobenius: Tensor  # Novak et al. 2018


def global_lipschitz(network: nn.Module, x: Tensor, y: Tensor, *, batch_size: int = BATCH_SIZE) -> Ratios:
    """Computes |f(x_i) - f(y_i)|_2 / |x_i - y_i|_2 for each pair i, float64 (P,); NaN for x_i = y_i.

    The largest ratio is the empirical Lipschitz constant of these pairs, a lower bound of the Lipschitz constant.

    Args:
        network: images -> logits (N, K). Switched to eval mode and back.
        x, y: (P, ...) of one shape, float32 or float64, in the network's input range.

    Raises:
        EvaluationError: see `checked_forward`; x and y of different shapes.
    """
    check_inputs(y, "classifier's")
    if x.shape != y.shape:
        raise EvaluationError(f"pairs: got {tuple(x.shape)} and {tuple(y.shape)}, expected one shape")
    parts = []
    with checked_forward(network, x) as forward, torch.no_grad():
        for first, second in zip(x.split(batch_size), y.split(batch_size), strict=True):
            difference = torch.linalg.vector_norm(forward(first).double() - forward(second).double(), dim=1).cpu()
            distance = torch.linalg.vector_norm((first - second).flatten(1), dim=1, dtype=torch.float64).cpu()
            ratio = torch.where(distance > 0, difference / distance, torch.nan)
            parts.append(torch.stack([ratio, distance, difference]))
    return Ratios(*torch.cat(parts, dim=1))


def local_lipschitz(network: nn.Module, images: Tensor, *, batch_size: int = BATCH_SIZE) -> JacobianNorms:
    """Computes exact norms of the Jacobian of the logits at each image, by K backward passes per batch.

    All Jacobians of a batch are in memory at once, batch_size * K * entries numbers; batches are smaller if that would
    exceed `JACOBIAN_ENTRIES`. Gradients of parameters are neither computed nor changed. For the arguments see
    `global_lipschitz`.

    Raises:
        EvaluationError: see `checked_forward`; a network that is not differentiable.
    """
    parts = []
    with checked_forward(network, images) as forward:
        with torch.no_grad():
            entries = forward(images[:1]).shape[1] * images[0].numel()
        for some in images.split(max(1, min(batch_size, JACOBIAN_ENTRIES // entries))):
            points = some.detach().clone().requires_grad_()
            logits = forward(points)
            rows = [gradient_of(one.sum(), points, "classifier", retain_graph=True) for one in logits.unbind(1)]
            jacobians = torch.stack([row.flatten(1) for row in rows], dim=1).double()  # (n, K, entries)
            gram = jacobians @ jacobians.mT  # (n, K, K)
            largest = torch.linalg.eigvalsh(gram)[:, -1].clamp_min(0)
            parts.append(torch.stack([largest, gram.diagonal(dim1=1, dim2=2).sum(1)]).sqrt().cpu())
    return JacobianNorms(*torch.cat(parts, dim=1))
