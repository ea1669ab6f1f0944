"""Sample complexities of a classifier: Spec-Fro, Spec-L1 and Jac-Norm (Sanyal et al. 2020, 5.2 and appendix D.1).

All are natural logarithms, because products of spectral norms over a hundred layers overflow. Batch normalization and
shortcuts are not part of the first two, as in the paper.
"""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from evaluation.errors import EvaluationError
from evaluation.generalization.classifier import BATCH_SIZE, Forward, checked_forward, logits_of, margin_of
from evaluation.generalization.spectra import LayerSingularValues, layer_spectra, weight_layers
from evaluation.metrics.lipschitz import gradient_of


class Complexity(NamedTuple):
    """Logarithms of the three measures at N images, each float64 (N,); NaN if the margin is not positive."""

    margin: Tensor  # the margin itself, not its logarithm
    spec_fro: Tensor
    spec_l1: Tensor
    jac_norm: Tensor

    @property
    def excluded(self) -> float:
        """Fraction of images without a value, because their margin is not positive."""
        return float((self.margin <= 0).double().mean())

    def percentile(self, percent: float = 90) -> dict[str, float]:
        """Returns a percentile of each measure over its finite values, NaN if there are none; Table 5 has the 90th."""
        values = {"spec_fro": self.spec_fro, "spec_l1": self.spec_l1, "jac_norm": self.jac_norm}
        kept = {name: one[one.isfinite()].numpy() for name, one in values.items()}
        return {name: float(np.percentile(one, percent)) if len(one) else math.nan for name, one in kept.items()}


def complexity(network: nn.Module, images: Tensor, labels: Tensor, *, batch_size: int = BATCH_SIZE) -> Complexity:
    """Computes margin, Spec-Fro, Spec-L1 and Jac-Norm of a classifier at each image.

    Args:
        network: images -> logits (N, K). Switched to eval mode and back.
        images: (N, ...), float32 or float64, in the network's input range.
        labels: int64 (N,).

    Raises:
        EvaluationError: see `checked_forward`, `layer_spectra` and `log_jac_norm`.
    """
    margin = margins(network, images, labels, batch_size=batch_size)
    jac_norm = log_jac_norm(network, images, labels, batch_size=batch_size)
    return complexity_of(margin, layer_spectra(network), jac_norm)


def complexity_of(margin: Tensor, layers: Sequence[LayerSingularValues], jac_norm: Tensor) -> Complexity:
    """Combines margins (N,), layers and log Jac-Norm (N,)."""
    log_square = 2 * _log_positive(margin)
    return Complexity(margin, log_spec_fro(layers) - log_square, log_spec_l1(layers) - log_square, jac_norm)


def margins(network: nn.Module, images: Tensor, labels: Tensor, *, batch_size: int = BATCH_SIZE) -> Tensor:
    """Computes f(x)[y] - max over j != y of f(x)[j] for each image, float64 (N,); positive if classified correctly."""
    return margin_of(logits_of(network, images, labels, batch_size), labels.cpu())


def log_spec_fro(layers: Sequence[LayerSingularValues]) -> float:
    """Returns log(prod |W_i|_2^2 * sum srank(W_i)), Spec-Fro times the squared margin. Neyshabur et al. 2018."""
    return _log_product(layers) + math.log(math.fsum(layer.stable_rank for layer in layers))


def log_spec_l1(layers: Sequence[LayerSingularValues], *, columns: bool = False, relative: bool = True) -> float:
    """Returns log(prod |W_i|_2^2 * (sum (|W_i|_{2,1} / |W_i|_2)^(2/3))^3), Spec-L1 times the squared margin.

    Bartlett et al. 2017, squared. Their denominator |W_i|_2 makes the sum independent of the scale of the weights.
    Sanyal et al. omit it, since it is 1 under spectral normalization.

    Args:
        columns: |W|_{2,1} sums the norms of columns instead of rows; rows belong to output units.
        relative: whether to divide by |W_i|_2.
    """
    norms = [layer.norm_21_columns if columns else layer.norm_21_rows for layer in layers]
    scales = [layer.spectral_norm if relative else 1.0 for layer in layers]
    shares = ((norm / scale) ** (2 / 3) for norm, scale in zip(norms, scales, strict=True))
    return _log_product(layers) + 3 * math.log(math.fsum(shares))


def _log_product(layers: Sequence[LayerSingularValues]) -> float:
    """Returns log(prod |W_i|_2^2)."""
    return 2 * math.fsum(math.log(layer.spectral_norm) for layer in layers)


def log_jac_norm(network: nn.Module, images: Tensor, labels: Tensor, *, batch_size: int = BATCH_SIZE) -> Tensor:
    """Computes log(sum_i |h_i|_2 |J_i|_2 / margin) at each image, float64 (N,); NaN if the margin is not positive.

    J_i is the gradient of the margin with respect to h_i along all paths. Wei & Ma 2019. The hidden layers h_i are the
    inputs of all linear and convolution layers but the first, after activation, normalization and pooling. An input
    that several layers share counts once; a layer that is called twice has two inputs. With a single layer there is no
    hidden layer, and the value is -inf.

    Raises:
        EvaluationError: see `checked_forward` and `weight_layers`; or a hidden layer has no gradient, or its first
            dimension is not the batch.
    """
    layers = weight_layers(network)
    parts = []
    with checked_forward(network, images, labels) as forward:
        for some, classes in zip(images.split(batch_size), labels.split(batch_size), strict=True):
            hidden = _HiddenLayers(len(some))
            with ExitStack() as hooks:
                for name, layer in layers:
                    hook = partial(hidden.enter, name)
                    hooks.enter_context(layer.register_forward_pre_hook(hook, with_kwargs=True))
                parts.append(_log_jac_norm(forward, hidden, some, classes))
    return torch.cat(parts)


def _log_jac_norm(forward: Forward, hidden: "_HiddenLayers", images: Tensor, labels: Tensor) -> Tensor:
    points = images.detach().clone().requires_grad_()
    logits = forward(points)
    margin = margin_of(logits, labels.to(logits.device))
    gradient_of(margin.sum(), points, "classifier")  # runs the hooks on the gradients of hidden layers
    return hidden.log_sum() - _log_positive(margin.detach().double().cpu())


def _log_positive(margin: Tensor) -> Tensor:
    """Returns the logarithm of the margin, NaN if it is not positive."""
    return margin.where(margin > 0, torch.nan).log()


class _HiddenLayers:
    """Collects log(|h_i| |J_i|) of every hidden layer in one pass, by forward pre-hooks of the layers.

    Norms are computed and gradient hooks registered when a layer is called, because an in-place activation may change
    the tensor, and its gradient, later.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.seen: list[tuple[Tensor, int]] = []  # inputs with versions; kept alive so that identities stay unique
        self.logs: list[Tensor] = []  # (count,)

    def enter(self, name: str, layer: nn.Module, arguments: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        """Records the input of a layer: a forward pre-hook with the layer's name as an additional first argument."""
        h = arguments[0] if arguments else named["input"]
        if any(h is tensor and h._version == version for tensor, version in self.seen):
            return
        self.seen.append((h, h._version))
        if len(self.seen) == 1:
            return
        if len(h) != self.count or not h.requires_grad:
            got = "no gradient" if len(h) == self.count else f"shape {tuple(h.shape)} for {self.count} images"
            raise EvaluationError(f"classifier: got {got} before layer {name}, expected (N, ...) with a gradient")
        norm = _log_norm(h.detach())
        h.register_hook(lambda gradient: self.logs.append(norm + _log_norm(gradient)))

    def log_sum(self) -> Tensor:
        """Returns the logarithm of the sum over hidden layers that the margin depends on, (count,)."""
        if not self.logs:
            return torch.full((self.count,), -torch.inf, dtype=torch.float64)
        return torch.stack(self.logs).logsumexp(0).cpu()


def _log_norm(h: Tensor) -> Tensor:
    """Returns log |h_n|_2 of each row, float64 (N,)."""
    return torch.linalg.vector_norm(h.flatten(1), dim=1, dtype=torch.float64).log()
