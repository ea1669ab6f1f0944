"""Singular values of the weights of a classifier's layers."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from evaluation.errors import EvaluationError
from evaluation.runtime.isolation import still

_ELEMENTWISE = nn.LayerNorm  # its weights scale single entries and are not matrices, even with two or more dimensions


class LayerSingularValues(NamedTuple):
    """Singular values and norms of a layer's weight W, read as a matrix (output units, everything else), (m, n).

    Convolutions with groups are a block-diagonal matrix.
    """

    name: str
    shape: tuple[int, int]
    singular_values: Tensor  # float64 (min(m, n),), descending; those below 1e-8 of the largest are rounding errors
    norm_21_rows: float  # sum of the Euclidean norms of the rows
    norm_21_columns: float

    @property
    def spectral_norm(self) -> float:
        """Largest singular value |W|_2."""
        return float(self.singular_values[0])

    @property
    def stable_rank(self) -> float:
        """Stable rank |W|_F^2 / |W|_2^2, in [1, min(m, n)]."""
        return float((self.singular_values / self.singular_values[0]).square().sum())


def layer_spectra(network: nn.Module) -> list[LayerSingularValues]:
    """Computes the exact singular values, in float64, of every linear and convolution layer in the network's order.

    Parametrized weights are taken as used in eval mode. Does not change the network. Solves one symmetric eigenvalue
    problem per layer, of the size of its smaller side.

    Raises:
        EvaluationError: see `weight_layers`; a weight that is all zero or not finite.
    """
    with still(network), torch.no_grad():
        return [_spectrum(name, layer) for name, layer in weight_layers(network)]


def weight_layers(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Returns (name, module) of every linear and convolution layer.

    Raises:
        EvaluationError: there is none, or a module of another type has a weight of two or more dimensions, which the
            measures would ignore.
    """
    found: list[tuple[str, nn.Module]] = [
        (name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear | _ConvNd)
    ]
    if not found:
        raise EvaluationError("classifier: got no linear and no convolution layer, expected at least one")
    handled = (module for module in network.modules() if isinstance(module, nn.Linear | _ConvNd | _ELEMENTWISE))
    known = {id(parameter) for module in handled for parameter in module.parameters()}
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1 and id(parameter) not in known:
            raise EvaluationError(
                f"classifier: got the weight {name} {tuple(parameter.shape)} outside of linear and convolution layers, "
                "expected none; the measures of layers are not defined for it"
            )
    return found


def _spectrum(name: str, layer: nn.Module) -> LayerSingularValues:
    blocks = _blocks(layer)
    scale = max(float(block.abs().max()) for block in blocks)
    if not 0 < scale < torch.inf:
        raise EvaluationError(f"classifier: the weight of {name or 'the layer'} is all zero or not finite")
    values = torch.cat([_singular_values(block / scale) for block in blocks])
    return LayerSingularValues(
        name,
        (sum(block.shape[0] for block in blocks), sum(block.shape[1] for block in blocks)),
        scale * values.sort(descending=True).values,
        math.fsum(float(torch.linalg.vector_norm(block, dim=1).sum()) for block in blocks),
        math.fsum(float(torch.linalg.vector_norm(block, dim=0).sum()) for block in blocks),
    )


def _blocks(layer: nn.Module) -> list[Tensor]:
    """Returns the diagonal blocks of a layer's matrix, one per group, each (output units, everything else)."""
    weight = layer.weight.detach().double().cpu()  # type: ignore[operator]
    groups = layer.groups if isinstance(layer, _ConvNd) else 1
    parts = weight.chunk(groups)
    if isinstance(layer, _ConvTransposeNd):
        parts = tuple(part.transpose(0, 1) for part in parts)
    return [part.flatten(1) for part in parts]


def _singular_values(matrix: Tensor) -> Tensor:
    """Computes the singular values of a matrix with entries of at most 1, so that squares do not overflow."""
    narrow = matrix if len(matrix) <= matrix.shape[1] else matrix.T
    return torch.linalg.eigvalsh(narrow @ narrow.T).clamp_min(0).sqrt()
