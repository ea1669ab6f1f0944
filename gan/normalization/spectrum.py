"""Spectral norm and stable rank of each layer, before and after normalization."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from gan.normalization.convolution import ACCURACY, ROUGH_ACCURACY, ConvolutionMap, ConvolutionSpectralNorm
from gan.normalization.layers import (
    depends_on_size,
    input_sizes,
    layers,
    normalized_weights,
    other_weights,
    output_dim,
)
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
    operator_norm: norm of the convolution with the weight that the network uses, as an operator on its input; None if
        the size of the input is not known, and for layers whose norm does not depend on it: linear and embedding
        layers, convolutions of kernel size 1.
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
    operator_norm: float | None = None

    @property
    def operator_ratio(self) -> float | None:
        """operator_norm / normalized_sigma; at most sqrt(kh * kw) at stride 1 and zero padding."""
        return self.operator_norm / self.normalized_sigma if self.operator_norm and self.normalized_sigma else None

    def record(self) -> dict[str, Any]:
        """Returns the fields for a log; operator_norm only where it is known."""
        return {name: value for name, value in self._asdict().items() if value is not None or name != "operator_norm"}


@torch.no_grad()
def spectra(network: nn.Module, example: Sequence[object] | None = None) -> list[LayerSpectrum]:
    """Returns the spectrum of every linear, convolution and embedding weight, then of all other matrices.

    The others are normalized tensors with their layer's name, such as "cell.weight_hh", and parameters of two or more
    dimensions that are not normalized, such as an in-projection of attention. Does not change the network. Costs one
    symmetric eigenvalue problem per matrix, of the size of its smaller side, or a block Lanczos iteration if that is
    above 1024. The weights of a GPU are copied to the host first, together, so that it waits for the GPU once.

    `operator_norm` is known for layers normalized by it, up to a relative 5e-4, and with an example for all
    convolutions that it reaches, up to 5e-6. It costs some dozens of passes of one image through the layer and back, on
    the network's device, which is then waited for several times per layer.

    Args:
        example: arguments of one forward pass, such as (images,), which is run in eval mode.

    Raises:
        ValueError: a weight is not finite or has no values yet; the message names the layer. The example does not fit.
    """
    found = list(_found(network))
    parts = [[weight, *_tensors(parametrization).values()] for _, weight, parametrization, _ in found]
    copies = iter(on_host([tensor for part in parts for tensor in part]))
    rows = []
    for name, _, parametrization, dim in found:
        weight, tensors = next(copies), {tensor: next(copies) for tensor in _tensors(parametrization)}
        if parametrization is None:
            rows.append(_spectrum(name, weight, weight, dim))
        else:
            rows.append(_normalized_spectrum(name, weight, parametrization, tensors))
    norms = _operator_norms(network, found, example)
    return [row._replace(operator_norm=norms.get(row.name)) for row in rows]


def _operator_norms(
    network: nn.Module, found: Sequence[tuple[str, Tensor, SpectralNorm | None, int]], example: Sequence[object] | None
) -> dict[str, float]:
    """Returns the operator norms that are known, by name; computed on the network's device."""
    sizes = {} if example is None else input_sizes(network, example)
    accuracy = ROUGH_ACCURACY if example is None else ACCURACY
    convolutions = {name: module for name, module in layers(network) if depends_on_size(module)}
    norms = {}
    for name, weight, parametrization, _ in found:
        own = parametrization if isinstance(parametrization, ConvolutionSpectralNorm) else None
        if name not in convolutions or (own is None and name not in sizes):
            continue
        used = weight.detach()
        if parametrization is not None:
            with _in_eval(parametrization):
                used = parametrization(used)
        convolution = own.convolution if own is not None else ConvolutionMap.of(convolutions[name], sizes[name])
        norms[name] = convolution.norm(used, None if own is None else own._x, accuracy)
    return norms


@contextmanager
def _in_eval(module: nn.Module) -> Iterator[None]:
    """Context manager: parametrizations that change their vectors at an access in training are in eval mode."""
    modes = [(each, each.training) for each in module.modules()]
    for each, _ in modes:
        each.training = False
    try:
        yield
    finally:
        for each, training in modes:
            each.training = training


class UsedWeight(NamedTuple):
    """A trained matrix of a network.

    name: as in `LayerSpectrum`.
    stored: the parameter.
    used: weight that the network uses, differentiable in `stored`; the parameter itself if it is not normalized.
    """

    name: str
    stored: nn.Parameter
    used: Tensor


@contextmanager
def used_weights(network: nn.Module) -> Iterator[list[UsedWeight]]:
    """Context manager: computes each normalized weight once, at entry; the network uses these tensors until the end.

    So a loss can be differentiated with respect to `UsedWeight.used`. The rows are in the order of `spectra`, without
    weights that other code computes from their parameters. Does not change singular vectors; autocast must be off.
    """
    normalized = {found.name: found for found in normalized_weights(network)}
    rows = []
    try:
        for name, stored, parametrization, _ in _found(network):
            if isinstance(stored, nn.Parameter):
                used = stored if parametrization is None else normalized[name].normalized()
                rows.append(UsedWeight(name, stored, used))
                if parametrization is not None:
                    parametrization.deliver(used)
        yield rows
    finally:
        for found in normalized.values():
            found.parametrization.deliver(None)


def _found(network: nn.Module) -> Iterator[tuple[str, Tensor, SpectralNorm | None, int]]:
    """Yields the name, the unnormalized weight, its normalization and the dimension of its rows, in order."""
    normalized = {found.name: found for found in normalized_weights(network)}
    for name, module in layers(network):
        found = normalized.pop(name, None)
        if found is None:
            yield name, _in_use(module), None, output_dim(module)
        else:
            yield name, found.original, found.parametrization, found.parametrization.dim
    for name, other in normalized.items():
        yield name, other.original, other.parametrization, other.parametrization.dim
    yield from ((name, weight, None, 0) for name, _, weight in other_weights(network))


def _tensors(parametrization: SpectralNorm | None) -> dict[str, Tensor]:
    """Returns the buffers and parameters of a parametrization by name."""
    if parametrization is None:
        return {}
    return {**dict(parametrization.named_buffers()), **dict(parametrization.named_parameters())}


def on_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Returns tensors in host memory, in their memory order: all of one type in one copy, or themselves if there.

    Tensors without values, lazy or on the meta device, are returned as they are.
    """
    found = list(tensors)
    groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for place, tensor in enumerate(tensors):
        if not (nn.parameter.is_lazy(tensor) or tensor.is_meta or tensor.is_cpu):
            groups.setdefault((tensor.device, tensor.dtype), []).append(place)
    for places in groups.values():
        chosen = [tensors[place].detach() for place in places]
        orders = [sorted(range(tensor.ndim), key=tensor.stride, reverse=True) for tensor in chosen]
        pairs = list(zip(chosen, orders, strict=True))
        joined = torch.cat([tensor.permute(order).reshape(-1) for tensor, order in pairs]).cpu()
        parts = joined.split([tensor.numel() for tensor in chosen])
        for place, part, (tensor, order) in zip(places, parts, pairs, strict=True):
            inverse = [order.index(dim) for dim in range(tensor.ndim)]
            found[place] = part.view([tensor.shape[dim] for dim in order]).permute(inverse)
    return found


def _in_use(layer: nn.Module) -> Tensor:
    """Returns a layer's weight."""
    with _in_eval(getattr(layer, "parametrizations", nn.Module())):
        weight: Tensor = layer.weight  # type: ignore[assignment]
    return weight


def _normalized_spectrum(
    name: str, weight: Tensor, parametrization: SpectralNorm, tensors: dict[str, Tensor]
) -> LayerSpectrum:
    with _in_eval(parametrization):
        used = functional_call(parametrization, tensors, (weight,))
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
