"""Spectral norm and stable rank of each layer, before and after normalization."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gan.normalization.layers import layers, normalized_weights, output_dim
from gan.normalization.power_iteration import as_matrix, singular_values
from gan.normalization.spectral import SpectralNorm


class LayerSpectrum(NamedTuple):
    """Spectral norm and stable rank of a weight before and after normalization, from exact singular values.

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
    """Returns the spectrum of every linear, convolution and embedding weight, then of other normalized tensors.

    Does not change the network. Costs one symmetric eigenvalue problem per matrix, of the size of its smaller side.

    Raises:
        ValueError: a weight is not finite; the message names the layer.
    """
    normalized = {found.name: found for found in normalized_weights(network)}
    rows = []
    for name, module in layers(network):
        found = normalized.pop(name, None)
        if found is None:
            rows.append(_spectrum(name, module.weight, module.weight, output_dim(module)))  # type: ignore[arg-type]
        else:
            rows.append(_normalized_spectrum(name, found.original, found.parametrization))
    return rows + [
        _normalized_spectrum(name, other.original, other.parametrization) for name, other in normalized.items()
    ]


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
        before, after = (singular_values(as_matrix(w.detach(), dim)) for w in (weight, used))
    except ValueError as error:
        raise ValueError(f"{name or 'the network'}: {error}") from None
    ranks = [float((values / values[0]).square().sum()) if values[0] > 0 else 0.0 for values in (before, after)]
    return LayerSpectrum(name, float(before[0]), ranks[0], None, False, float(after[0]), ranks[1])
