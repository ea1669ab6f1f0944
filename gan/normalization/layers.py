"""Layers that can be normalized, and the normalized weights of a network."""

from collections.abc import Iterator, Sequence
from functools import partial
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils import parametrize

from gan.normalization.spectral import SpectralNorm

NORMALIZED_LAYERS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Embedding,
)
"""Types of layers whose weights `normalize` normalizes."""
_ELEMENTWISE = (nn.LayerNorm, nn.RMSNorm)
"""Layers whose weights scale single entries and are not matrices, even with two or more dimensions."""
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED)


def output_dim(module: nn.Module) -> int:
    """Returns the dimension of the output units in a layer's weight: 1 for transposed convolutions, else 0."""
    return 1 if isinstance(module, _TRANSPOSED) else 0


def layers(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yields (name, module) for every linear, convolution and embedding layer."""
    for name, module in network.named_modules():
        if isinstance(module, NORMALIZED_LAYERS):
            yield name, module


def other_weights(network: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Parameter]]:
    """Yields (name, module, parameter) of every matrix that is neither the weight of such a layer nor parametrized.

    A matrix is a parameter of two or more dimensions, or a lazy one, outside of normalization layers: an in-projection
    of attention, a recurrent weight, a tensor of a module of one's own. A parameter of several modules is yielded for
    each of them. Parameters from which a hook computes the layer's weight, such as weight_orig, belong to that weight.
    """
    for place, module in network.named_modules():
        if isinstance(module, (parametrize.ParametrizationList, *_ELEMENTWISE, _NormBase)):
            continue
        for name, parameter in module._parameters.items():
            inside = isinstance(module, NORMALIZED_LAYERS)
            if parameter is None or (inside and (_is_of_weight(module, name) or nn.parameter.is_lazy(parameter))):
                continue
            if nn.parameter.is_lazy(parameter) or (parameter.ndim > 1 and not _is_whole(parameter)):
                yield ".".join(part for part in (place, name) if part), module, parameter


def _is_of_weight(layer: nn.Module, name: str) -> bool:
    """Whether a layer's parameter is its weight, or one of those from which a hook computes it: weight_orig."""
    return name == "weight" or ("weight" in vars(layer) and name.startswith("weight_"))


def _is_whole(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() and not tensor.is_complex()


class NormalizedWeight(NamedTuple):
    """A normalized tensor of a network.

    layer: name of the module; "" for the network itself.
    tensor: attribute of the module, usually "weight".
    original: the unnormalized parameter.
    """

    layer: str
    tensor: str
    original: Tensor
    parametrization: SpectralNorm

    @property
    def name(self) -> str:
        """Name of the layer, followed by that of the tensor unless it is "weight"."""
        return ".".join(part for part in (self.layer, self.tensor if self.tensor != "weight" else "") if part)

    def normalized(self) -> Tensor:
        """Computes the normalized weight, in the type of the unnormalized one; autocast must be off."""
        norm = self.parametrization
        return norm.normalized(self.original.to(norm.pairs()[0][1].dtype)).to(self.original.dtype)


def normalized_weights(network: nn.Module) -> Iterator[NormalizedWeight]:
    """Yields every tensor of a network that this package normalizes."""
    for name, module in network.named_modules():
        if isinstance(module, parametrize.ParametrizationList):
            for parametrization in module:
                if isinstance(parametrization, SpectralNorm):
                    layer, _, tensor = f".{name}".rpartition(".parametrizations.")
                    yield NormalizedWeight(layer[1:], tensor, module.original, parametrization)


def depends_on_size(layer: nn.Module) -> bool:
    """Whether a layer is a convolution whose norm may differ from that of its reshaped weight.

    A convolution of kernel size 1 without groups applies its matrix to each position, so the norms are equal, unless
    its padding repeats values of the input.
    """
    if not isinstance(layer, _CONVOLUTIONS):
        return False
    return layer.groups > 1 or max(layer.kernel_size) > 1 or layer.padding_mode != "zeros"


@torch.no_grad()
def input_sizes(network: nn.Module, example: Sequence[object]) -> dict[str, tuple[int, ...]]:
    """Returns the input size of every convolution that is called in a forward pass, by name.

    The pass is in eval mode, without gradients. If a layer is called several times, its largest input counts.

    Args:
        example: arguments of the forward pass.

    Raises:
        ValueError: the forward pass fails.
    """
    if not isinstance(example, (tuple, list)):
        kind = "a tensor" if isinstance(example, Tensor) else repr(example)
        raise ValueError(f"example: got {kind}, expected the arguments of a forward pass: example=(images,)")
    found: dict[str, tuple[int, ...]] = {}

    def note(name: str, layer: Any, inputs: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        image = inputs[0] if inputs else named["input"]
        size = tuple(image.shape[-len(layer.kernel_size) :])
        found[name] = max(found.get(name, (0,)), size, key=prod)

    hooks = [
        module.register_forward_pre_hook(partial(note, name), with_kwargs=True)
        for name, module in network.named_modules()
        if isinstance(module, _CONVOLUTIONS)
    ]
    modes = [(module, module.training) for module in network.modules()]
    try:
        network.eval()(*example)
    except (AttributeError, RuntimeError, TypeError, ValueError, IndexError) as error:
        shown = ", ".join(str(tuple(part.shape)) if isinstance(part, Tensor) else repr(part) for part in example)
        reason = " ".join(str(error).split())
        raise ValueError(
            f"example: the forward pass of {type(network).__name__} fails with arguments ({shown}): {reason}; expected "
            "the arguments of a forward pass, such as example=(images,)"
        ) from None
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training
    return found
