"""Sample complexities of a classifier: Spec-Fro, Spec-L1 and Jac-Norm. Sanyal et al. 2020, 5.2 and appendix D.1.

All are logarithms (natural): products of spectral norms over a hundred layers leave the range of floats. Batch
normalization and shortcuts are left out of the first two, as in the paper.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from evaluation.errors import EvaluationError
from evaluation.generalization.classifier import BATCH_SIZE, Ask, asked, gradient_of, margin_of
from evaluation.generalization.spectra import LayerSingularValues, layer_spectra, weight_layers


class Complexity(NamedTuple):
    """The three measures at N images, each float64 (N,), natural logarithms; NaN where the margin is not positive."""

    margin: Tensor  # no logarithm
    spec_fro: Tensor
    spec_l1: Tensor
    jac_norm: Tensor

    @property
    def excluded(self) -> float:
        """The fraction of images whose margin is not positive: they have no value."""
        return float((self.margin <= 0).double().mean())

    def percentile(self, percent: float = 90) -> dict[str, float]:
        """Of each measure, over the images where it is finite; NaN if there are none. Table 5 has the 90th."""
        values = {"spec_fro": self.spec_fro, "spec_l1": self.spec_l1, "jac_norm": self.jac_norm}
        kept = {name: one[one.isfinite()].numpy() for name, one in values.items()}
        return {name: float(np.percentile(one, percent)) if len(one) else math.nan for name, one in kept.items()}


def complexity(network: nn.Module, images: Tensor, labels: Tensor, *, batch_size: int = BATCH_SIZE) -> Complexity:
    """Margin, Spec-Fro, Spec-L1 and Jac-Norm of a classifier at each image.

    Args:
        network: images -> logits (N, K). Switched to eval mode and back.
        images: (N, ...) float32 in the network's input range; float64 too.
        labels: int64 (N,).

    Raises:
        EvaluationError: as `margins`, `layer_spectra` and `log_jac_norm`.
    """
    margin = margins(network, images, labels, batch_size=batch_size)
    jac_norm = log_jac_norm(network, images, labels, batch_size=batch_size)
    return complexity_of(margin, layer_spectra(network), jac_norm)


def complexity_of(margin: Tensor, layers: Sequence[LayerSingularValues], jac_norm: Tensor) -> Complexity:
    """From what is known: margins (N,), layers, log Jac-Norm (N,)."""
    twice = 2 * _log_positive(margin)
    return Complexity(margin, log_spec_fro(layers) - twice, log_spec_l1(layers) - twice, jac_norm)


def margins(network: nn.Module, images: Tensor, labels: Tensor, *, batch_size: int = BATCH_SIZE) -> Tensor:
    """f(x)[y] - max over j != y of f(x)[j] for each image, float64 (N,); positive where the classifier is right.

    Raises:
        EvaluationError: inputs of another form, or a network that is no classifier of single images; see `asked`.
    """
    with asked(network, images, labels) as ask, torch.no_grad():
        parts = [
            margin_of(ask(some).double().cpu(), classes.cpu())
            for some, classes in zip(images.split(batch_size), labels.split(batch_size), strict=True)
        ]
    return torch.cat(parts)


def log_spec_fro(layers: Sequence[LayerSingularValues]) -> float:
    """log of prod |W_i|_2^2 * sum srank(W_i), which is Spec-Fro times the squared margin. Neyshabur et al. 2018."""
    return _log_product(layers) + math.log(math.fsum(layer.stable_rank for layer in layers))


def log_spec_l1(layers: Sequence[LayerSingularValues], *, columns: bool = False, relative: bool = True) -> float:
    """log of prod |W_i|_2^2 * (sum (|W_i|_{2,1} / |W_i|_2)^(2/3))^3: Spec-L1 times the squared margin.

    Bartlett et al. 2017, squared. The denominator |W_i|_2, which makes the sum independent of the scale of the weights,
    is theirs; Sanyal et al. print the formula without it, where spectral normalization makes it 1.

    Args:
        columns: |W|_{2,1} sums the norms of W's columns rather than those of its rows, one for each output unit.
        relative: with the denominator.
    """
    norms = [layer.norm_21_columns if columns else layer.norm_21_rows for layer in layers]
    scales = [layer.spectral_norm if relative else 1.0 for layer in layers]
    return _log_product(layers) + 3 * math.log(
        math.fsum((norm / scale) ** (2 / 3) for norm, scale in zip(norms, scales, strict=True))
    )


def _log_product(layers: Sequence[LayerSingularValues]) -> float:
    """log of prod |W_i|_2^2."""
    return 2 * math.fsum(math.log(layer.spectral_norm) for layer in layers)


def log_jac_norm(network: nn.Module, images: Tensor, labels: Tensor, *, batch_size: int = BATCH_SIZE) -> Tensor:
    """log of sum_i |h_i|_2 |J_i|_2 / margin at each image, float64 (N,); NaN where the margin is not positive.

    J_i is the gradient of the margin by h_i, along all paths. Wei & Ma 2019. The hidden layers h_i are what the linear
    and convolution layers see: each input of one of them but the first one's, after activation, normalization and
    pooling; an input that several layers share counts once, a layer that is called twice has two. With a single layer
    there is none, and the value is -inf.

    Raises:
        EvaluationError: as `margins` and `weight_layers`; a hidden layer that the images are not the first dimension
            of, or through which no gradient flows.
    """
    layers = weight_layers(network)
    parts = []
    with asked(network, images, labels) as ask:
        for some, classes in zip(images.split(batch_size), labels.split(batch_size), strict=True):
            hidden = _HiddenLayers(len(some))
            handles = [layer.register_forward_pre_hook(hidden.of(name), with_kwargs=True) for name, layer in layers]
            try:
                parts.append(_log_jac_norm(ask, hidden, some, classes))
            finally:
                for handle in handles:
                    handle.remove()
    return torch.cat(parts)


def _log_jac_norm(ask: Ask, hidden: "_HiddenLayers", images: Tensor, labels: Tensor) -> Tensor:
    points = images.detach().clone().requires_grad_()
    logits = ask(points)
    margin = margin_of(logits, labels.to(logits.device))
    gradient_of(margin.sum(), points)  # the hooks on hidden layers see their gradients on the way
    return hidden.log_sum() - _log_positive(margin.detach().double().cpu())


def _log_positive(margin: Tensor) -> Tensor:
    """log of the margin, NaN where it is not positive."""
    return margin.where(margin > 0, torch.nan).log()


class _HiddenLayers:
    """log |h_i| |J_i| of every hidden layer of one pass, by hooks before the layers.

    Norms are taken, and hooks on gradients placed, when a layer is entered: an activation in place may change the
    tensor later, and its gradient would be another one's.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.seen: list[tuple[Tensor, int]] = []  # with their versions; held, so that no other takes a tensor's place
        self.logs: list[Tensor] = []  # (count,)

    def of(self, name: str) -> Any:
        """What is called before the layer of this name."""

        def enter(layer: nn.Module, arguments: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
            self._enter(name, arguments[0] if arguments else named["input"])

        return enter

    def _enter(self, name: str, h: Tensor) -> None:
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
        """log of the sum over the hidden layers that the margin depends on, (count,)."""
        if not self.logs:
            return torch.full((self.count,), -torch.inf, dtype=torch.float64)
        return torch.stack(self.logs).logsumexp(0).cpu()


def _log_norm(h: Tensor) -> Tensor:
    """log |h_n|_2 of each row, (N,), float64."""
    return torch.linalg.vector_norm(h.flatten(1), dim=1, dtype=torch.float64).log()
