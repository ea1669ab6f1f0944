"""The singular values of every layer, of the weights that a network uses now."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from evaluation.errors import EvaluationError
from evaluation.isolation import still

_ELEMENTWISE = (nn.LayerNorm,)  # their weights scale single entries, whatever the shape


class LayerSpectrum(NamedTuple):
    """One layer's weight W, read as a matrix (output units, everything else), (m, n).

    singular_values: float64 (min(m, n),), descending; below 1e-8 of the largest they are rounding.
    norm_21_rows: the sum over output units of the Euclidean norms of W's rows; norm_21_columns: of its columns.
    """

    name: str
    shape: tuple[int, int]
    singular_values: Tensor
    norm_21_rows: float
    norm_21_columns: float

    @property
    def spectral_norm(self) -> float:
        """|W|_2, the largest singular value."""
        return float(self.singular_values[0])

    @property
    def stable_rank(self) -> float:
        """|W|_F^2 / |W|_2^2, in [1, min(m, n)]."""
        return float((self.singular_values / self.singular_values[0]).square().sum())


def layer_spectra(network: nn.Module) -> list[LayerSpectrum]:
    """Of every linear and convolution layer, in the network's order, from its exact singular values in float64.

    A parametrized weight is taken as the network uses it in eval mode. Leaves the network as it is. Costs one symmetric
    eigenvalue problem per layer, of the smaller side.

    Raises:
        EvaluationError: as `weight_layers`; a weight that is all zero or not finite.
    """
    with still(network), torch.no_grad():
        return [_spectrum(name, layer) for name, layer in weight_layers(network)]


def weight_layers(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """(name, module) of every linear and convolution layer.

    Raises:
        EvaluationError: there is none, or a weight of two or more dimensions lies in a module of another kind: a sum
            or a product over layers would leave it out.
    """
    found: list[tuple[str, nn.Module]] = [
        (name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear | _ConvNd)
    ]
    if not found:
        raise EvaluationError("classifier: got no linear and no convolution layer, expected at least one")
    known = {id(parameter) for _, module in found for parameter in module.parameters()}
    for module in network.modules():
        if isinstance(module, _ELEMENTWISE):
            known |= {id(parameter) for parameter in module.parameters()}
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1 and id(parameter) not in known:
            raise EvaluationError(
                f"classifier: got the weight {name} {tuple(parameter.shape)} outside of linear and convolution layers, "
                "expected none; the measures of layers are not defined for it"
            )
    return found


def _spectrum(name: str, layer: nn.Module) -> LayerSpectrum:
    weight = layer.weight.detach().double().cpu()  # type: ignore[operator, union-attr]
    if isinstance(layer, _ConvTransposeNd):
        weight = weight.transpose(0, 1)
    matrix = weight.flatten(1)
    scale = float(matrix.abs().max())
    if not 0 < scale < torch.inf:
        raise EvaluationError(f"classifier: the weight of {name or 'the layer'} is all zero or not finite")
    narrow = matrix / scale  # squares of very large or small entries would leave the range of float64
    narrow = narrow if len(narrow) <= narrow.shape[1] else narrow.T
    squares = torch.linalg.eigvalsh(narrow @ narrow.T).flip(0).clamp_min(0)
    return LayerSpectrum(
        name,
        (matrix.shape[0], matrix.shape[1]),
        scale * squares.sqrt(),
        float(torch.linalg.vector_norm(matrix, dim=1).sum()),
        float(torch.linalg.vector_norm(matrix, dim=0).sum()),
    )
