"""Spectral norm and stable rank of each layer, before and after normalization."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gan.normalization.layers import layers, normalized_weights, other_weights, output_dim
from gan.normalization.power_iteration import as_matrix
from gan.normalization.singular import norm_and_stable_rank
from gan.normalization.spectral import SpectralNorm


class LayerSpectrum(NamedTuple):
    """Spectral norm and stable rank of a weight before and after normalization, from exact singular values.

    name: of the layer, or of the tensor if it is not a layer's weight.
    sigma, stable_rank: values of the unnormalized weight; the stable rank of an all-zero weight is 0.
    target_rank: upper bound on the stable rank; None without one.
    active: whether the bound currently lowers the stable rank.
    normalized_sigma, normalized_stable_rank: values of the weight that the network uses.
    gamma: factor of the residual at exact singular pairs, 1 if the bound is not active; None without a bound.
    policy: see `StableRankNorm.policy`; None for other normalizations.
    """

    name: str
    sigma: float
    stable_rank: float
    target_rank: float | None
    active: bool
    normalized_sigma: float
    normalized_stable_rank: float
    gamma: float | None = None
    policy: str | None = None


@torch.no_grad()
def spectra(network: nn.Module) -> list[LayerSpectrum]:
    """Returns the spectrum of every linear, convolution and embedding weight, then of all other matrices.

    The others are normalized tensors with their layer's name, such as "cell.weight_hh", and parameters of two or more
    dimensions that are not normalized, such as an in-projection of attention. Does not change the network. Costs one
    symmetric eigenvalue problem per matrix, of the size of its smaller side, or a block Lanczos iteration if that is
    above 1024.

    Raises:
        ValueError: a weight is not finite or has no values yet; the message names the layer.
    """
    normalized = {found.name: found for found in normalized_weights(network)}
    rows = []
    for name, module in layers(network):
        found = normalized.pop(name, None)
        if found is None:
            weight = _in_use(module)
            rows.append(_spectrum(name, weight, weight, output_dim(module)))
        else:
            rows.append(_normalized_spectrum(name, found.original, found.parametrization))
    rows += [_normalized_spectrum(name, other.original, other.parametrization) for name, other in normalized.items()]
    return rows + [_spectrum(name, weight, weight, 0) for name, _, weight in other_weights(network)]


def _in_use(layer: nn.Module) -> Tensor:
    """Returns a layer's weight; parametrizations of others, which may change at an access in training, are in eval."""
    parametrizations = list(getattr(layer, "parametrizations", nn.Module()).modules())
    modes = [module.training for module in parametrizations]
    for module in parametrizations:
        module.training = False
    weight: Tensor = layer.weight  # type: ignore[assignment]
    for module, training in zip(parametrizations, modes, strict=True):
        module.training = training
    return weight


def _normalized_spectrum(name: str, weight: Tensor, parametrization: SpectralNorm) -> LayerSpectrum:
    training = parametrization.training
    parametrization.eval()  # in training mode update="forward" would change u and v
    used = parametrization(weight)
    parametrization.train(training)
    row = _spectrum(name, weight, used, parametrization.dim)
    target = parametrization.target_rank()
    if target is None:
        return row._replace(policy=parametrization.policy())
    active = row.stable_rank > target
    gamma = math.sqrt((target - 1) / (row.stable_rank - 1)) if active else 1.0
    return row._replace(target_rank=target, active=active, gamma=gamma, policy=parametrization.policy())


def _spectrum(name: str, weight: Tensor, used: Tensor, dim: int) -> LayerSpectrum:
    try:
        if nn.parameter.is_lazy(weight) or weight.is_meta:
            raise ValueError("a lazy weight or one on the meta device has no values: initialise the network first")
        before, after = (norm_and_stable_rank(as_matrix(w.detach(), dim)) for w in (weight, used))
    except ValueError as error:
        raise ValueError(f"{name or 'the network'}: {error}") from None
    return LayerSpectrum(name, *before, None, False, *after)
