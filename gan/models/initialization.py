"""Initial weights of a network by name, in place of the architecture's own.

Weights of every linear, convolution, transposed convolution and embedding layer are drawn, and their biases are 0.
Scales and shifts of normalization layers stay as they are, also those of each class. With fan_in and fan_out of `fans`:

| name | weights | source |
|---|---|---|
| `glorot` | uniform, variance 2 / (fan_in + fan_out) | Glorot & Bengio 2010, also called Xavier |
| `lecun` | normal, variance 1 / fan_in | LeCun et al. 1998, section 4.6 |
| `kaiming` | normal, variance 2 / fan_in | He et al. 2015, equation 10, for ReLU |
| `orthogonal` | orthonormal rows or columns of (out, everything else) | Saxe et al. 2014 |
| `normal` | normal, standard deviation s | DCGAN, Radford et al. 2016: s = 0.02 |
| `truncated_normal` | the same, redrawn beyond 2 s, so that the standard deviation is 0.880 s | TensorFlow |
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd


class Fans(NamedTuple):
    """Numbers of connections of a unit.

    fan_in: inputs that an output unit sums, so that lecun keeps the variance of independent inputs.
    fan_out: outputs to which an input unit contributes; as in torch, as if the stride of a convolution were 1.
    """

    fan_in: float
    fan_out: float


def fans(layer: nn.Module) -> Fans:
    """Returns the fans of a linear, convolution, transposed convolution or embedding layer.

    | layer | fan_in | fan_out |
    |---|---|---|
    | linear | in | out |
    | convolution | in / groups * kh * kw | out / groups * kh * kw |
    | transposed convolution | in / groups * kh * kw / (stride_h * stride_w) | out / groups * kh * kw |
    | embedding of n entries | dimension | n |

    A transposed convolution of stride 2 spreads each input over its kernel, so an output sums a quarter of in * kh * kw
    inputs, as a mean over the positions. torch.nn.init takes out * kh * kw for it, that is fan_in and fan_out exchanged
    and no stride: variances of 1 / fan_in would then change the variance of features by in / (out * stride_h *
    stride_w). It also leaves the groups out of fan_out. An embedding counts as the linear layer from its dimension to n
    units, as in the projection of a conditional discriminator and in torch.nn.init.
    """
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if not isinstance(layer, _ConvNd):
        return Fans(weight.shape[1], weight.shape[0])
    positions = math.prod(layer.kernel_size)
    fan_in, fan_out = (channels // layer.groups * positions for channels in (layer.in_channels, layer.out_channels))
    return Fans(fan_in / math.prod(layer.stride) if isinstance(layer, _ConvTransposeNd) else fan_in, fan_out)


def initialize_(network: nn.Module, name: str, std: float = 0.02) -> None:
    """Draws the weights of a network that is not normalized yet from the global generator, in place.

    Args:
        name: a key of `INITIALIZATIONS`.
        std: standard deviation of "normal" and "truncated_normal"; others ignore it.

    Raises:
        KeyError: an unknown name.
    """
    draw_ = INITIALIZATIONS[name]
    with torch.no_grad():
        for layer in _layers(network):
            draw_(layer, std)
            if isinstance(getattr(layer, "bias", None), Tensor):
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


def _layers(network: nn.Module) -> Iterator[nn.Module]:
    """Yields the layers with weights, without those inside normalization layers."""
    if isinstance(network, (nn.Linear, _ConvNd, nn.Embedding)):
        yield network
    elif not isinstance(network, _NormBase):
        for child in network.children():
            yield from _layers(child)


def _weight(layer: nn.Module) -> Tensor:
    assert isinstance(layer.weight, Tensor)
    return layer.weight


def _glorot(layer: nn.Module, std: float) -> None:
    limit = math.sqrt(3 * 2 / sum(fans(layer)))  # U(-a, a) has the variance a^2 / 3
    _weight(layer).uniform_(-limit, limit)


def _lecun(layer: nn.Module, std: float) -> None:
    _weight(layer).normal_(0, math.sqrt(1 / fans(layer).fan_in))


def _kaiming(layer: nn.Module, std: float) -> None:
    _weight(layer).normal_(0, math.sqrt(2 / fans(layer).fan_in))


def _orthogonal(layer: nn.Module, std: float) -> None:
    """Draws a matrix for each group, (out / groups, in / groups * kh * kw): groups do not share inputs."""
    groups = layer.groups if isinstance(layer, _ConvNd) else 1
    for part in _weight(layer).chunk(groups):
        rows = part.transpose(0, 1) if isinstance(layer, _ConvTransposeNd) else part
        rows.copy_(nn.init.orthogonal_(torch.empty_like(rows, memory_format=torch.contiguous_format)))


def _normal(layer: nn.Module, std: float) -> None:
    _weight(layer).normal_(0, std)


def _truncated_normal(layer: nn.Module, std: float) -> None:
    nn.init.trunc_normal_(_weight(layer), 0, std, -2 * std, 2 * std)


@torch.no_grad()
def inherit_(network: nn.Module, parent: nn.Module) -> list[str]:
    """Copies the tensors of another network; returns the layers that keep their own.

    A layer inherits all of its tensors, with those of its normalization, or none: these have the same names and shapes
    in both networks.
    """
    own, others = network.state_dict(), parent.state_dict()
    layers: dict[str, list[str]] = {}
    for name in own:
        layers.setdefault(_layer_of(name), []).append(name)
    theirs = [_layer_of(name) for name in others]
    kept = [
        layer
        for layer, names in layers.items()
        if len(names) != theirs.count(layer)
        or any(name not in others or others[name].shape != own[name].shape for name in names)
    ]
    taken = {name: others[name] for layer, names in layers.items() if layer not in kept for name in names}
    network.load_state_dict(own | taken)
    return kept


def _layer_of(name: str) -> str:
    """Returns the name of the layer that a tensor of a state_dict belongs to."""
    return name.partition(".parametrizations.")[0] if ".parametrizations." in name else name.rpartition(".")[0]


INITIALIZATIONS: dict[str, Callable[[nn.Module, float], None]] = {
    "glorot": _glorot,
    "lecun": _lecun,
    "kaiming": _kaiming,
    "orthogonal": _orthogonal,
    "normal": _normal,
    "truncated_normal": _truncated_normal,
}
"""Maps each name to a function that draws the weight of a layer, given the setting initialization_std."""
