"""Parametrizations of one tensor of a module, drop-in for torch.nn.utils.parametrizations.spectral_norm.

Like torch's, they follow the weights by themselves: singular vectors change at every access in training mode. With
update="step" they change only in `update_`, for training loops that call it. The arguments that torch's function has
come first, in its order; dim=None reads a transposed convolution by dimension 1 and all else by 0.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from gan.normalization.bidirectional import BidirectionalSpectralNorm
from gan.normalization.convolution import ConvolutionMap, ConvolutionSpectralNorm, ConvolutionStableRankNorm
from gan.normalization.layers import depends_on_size, output_dim
from gan.normalization.learned_scale import LearnedScaleNorm, ScaledBias
from gan.normalization.power_iteration import EPS
from gan.normalization.spectral import SpectralNorm
from gan.normalization.stable_rank import StableRankNorm

_HOOKS = {"u": "remove_spectral_norm", "g": "remove_weight_norm", "mask": "prune.remove"}
"""Maps the suffix of the tensor that a hook adds to the function of torch.nn.utils that removes the hook."""


def spectral_norm(
    module: nn.Module,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = EPS,
    dim: int | None = None,
    *,
    scale: float = 1.0,
    update: str = "forward",
) -> nn.Module:
    """Scales `module.name` to spectral norm `scale`; returns the module. See `SpectralNorm`.

    With scale=1 values, gradients, buffers and random draws equal those of torch's function bit for bit.
    """
    make = partial(SpectralNorm, scale=scale, n_power_iterations=n_power_iterations, eps=eps, update=update)
    return register(module, name, make, dim)


def stable_rank_norm(
    module: nn.Module,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = EPS,
    dim: int | None = None,
    *,
    c: float = 0.7,
    update: str = "forward",
    infeasible: str = "skip",
    relative_to: str = "size",
) -> nn.Module:
    """Bounds the stable rank of `module.name` at spectral norm 1; returns the module. See `StableRankNorm`."""
    bounded = partial(StableRankNorm, c=c, infeasible=infeasible, relative_to=relative_to)
    make = partial(bounded, n_power_iterations=n_power_iterations, eps=eps, update=update)
    return register(module, name, make, dim)


def bidirectional_spectral_norm(
    module: nn.Module,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = EPS,
    dim: int | None = None,
    *,
    scale: float = 1.0,
    update: str = "forward",
) -> nn.Module:
    """Divides `module.name` by the mean of two spectral norms; returns it. See `BidirectionalSpectralNorm`."""
    make = partial(
        BidirectionalSpectralNorm, scale=scale, n_power_iterations=n_power_iterations, eps=eps, update=update
    )
    return register(module, name, make, dim)


def learned_scale_norm(
    module: nn.Module,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = EPS,
    dim: int | None = None,
    *,
    update: str = "forward",
) -> nn.Module:
    """Normalizes `module.name` with a trained scale, and multiplies a layer's bias by it, too; returns the module.

    See `LearnedScaleNorm`. The scale is the parameter `module.parametrizations[name][0].gamma`.
    """
    make = partial(LearnedScaleNorm, n_power_iterations=n_power_iterations, eps=eps, update=update)
    register(module, name, make, dim)
    norm = module.parametrizations[name][0]  # type: ignore[index]
    assert isinstance(norm, LearnedScaleNorm)
    names = list(module._parameters)
    if name == "weight" and module._parameters.get("bias") is not None:
        scaled = ScaledBias(norm.gamma, tuple(names[names.index("bias") + 1 :]))
        norm.companions = {"bias": scaled}
        parametrize.register_parametrization(module, "bias", scaled)
    return module


def convolution_spectral_norm(
    module: nn.Module,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = EPS,
    *,
    input_size: int | Sequence[int] | None = None,
    scale: float = 1.0,
    update: str = "forward",
) -> nn.Module:
    """Divides the weight of a convolution by its norm as an operator; returns it. See `ConvolutionSpectralNorm`.

    Other layers, and convolutions of kernel size 1 without groups, get `spectral_norm`, which is the same for them.

    Args:
        input_size: number of positions of the input per dimension, such as (32, 32); a number for all.
        scale: norm of the result.
    """
    settings: dict[str, Any] = {"n_power_iterations": n_power_iterations, "eps": eps, "scale": scale, "update": update}
    if not depends_on_size(module):
        return spectral_norm(module, name, **settings)
    return register(module, name, partial(ConvolutionSpectralNorm, convolution=_sized(module, input_size), **settings))


def convolution_stable_rank_norm(
    module: nn.Module,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = EPS,
    *,
    input_size: int | Sequence[int] | None = None,
    update: str = "forward",
    **settings: Any,
) -> nn.Module:
    """Bounds the stable rank at operator norm 1; returns the module. See `ConvolutionStableRankNorm`.

    Other layers, and convolutions of kernel size 1 without groups, get `stable_rank_norm`.

    Args:
        input_size: number of positions of the input per dimension, such as (32, 32); a number for all.
        settings: further settings of `stable_rank_norm`.
    """
    settings |= {"n_power_iterations": n_power_iterations, "eps": eps, "update": update}
    if not depends_on_size(module):
        return stable_rank_norm(module, name, **settings)
    return register(
        module, name, partial(ConvolutionStableRankNorm, convolution=_sized(module, input_size), **settings)
    )


def _sized(layer: nn.Module, input_size: int | Sequence[int] | None) -> ConvolutionMap:
    if input_size is None:
        raise ValueError(
            "the norm of this convolution depends on the size of its input, which is unknown: give normalize the "
            "arguments of a forward pass that calls the layer, example=(images,), or leave the layer out by exclude; "
            "the functions for one layer take input_size=(height, width)"
        )
    return ConvolutionMap.of(layer, input_size)


def register(module: nn.Module, name: str, make: Callable[..., SpectralNorm], dim: int | None = None) -> nn.Module:
    """Normalizes `module.name` by the parametrization that `make(weight, dim=...)` returns; returns the module.

    dim: of the output units; None takes 1 for transposed convolutions, else 0.

    Raises:
        ValueError: no such tensor, or it is already parametrized or computed by a hook.
    """
    if parametrize.is_parametrized(module, name):
        raise ValueError(
            f"{type(module).__name__}.{name} is parametrized already: a weight is normalized only once; "
            "remove the other parametrization by torch.nn.utils.parametrize.remove_parametrizations, or let normalize "
            "leave the layer by naming it in exclude"
        )
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"{type(module).__name__} has no tensor named {name!r} to normalize")
    if name not in module._parameters and name not in module._buffers:
        raise ValueError(f"{type(module).__name__}.{name} is {_reason_and_remedy(module, name)}")
    parametrization = make(weight, dim=output_dim(module) if dim is None else dim)
    names = list(module._parameters)
    parametrization.followers = tuple(names[names.index(name) + 1 :]) if name in names else ()
    parametrize.register_parametrization(module, name, parametrization)
    module.register_load_state_dict_pre_hook(partial(_rename_hook_keys, name=name))
    return module


def _reason_and_remedy(module: nn.Module, name: str) -> str:
    """Returns why a plain attribute cannot be normalized, and the remedy."""
    for suffix, remove in _HOOKS.items():
        if hasattr(module, f"{name}_{suffix}"):
            return f"computed by a hook, but a weight is normalized only once: remove it by torch.nn.utils.{remove}"
    return "neither a parameter nor a buffer: register it first"


def _rename_hook_keys(
    module: nn.Module, state_dict: dict[str, Any], prefix: str, *arguments: Any, name: str = "weight"
) -> None:
    """Renames the keys weight_orig, weight_u and weight_v, so that checkpoints of torch.nn.utils.spectral_norm load.

    The published layers of the SRN paper's first author use the same keys.
    """
    if not parametrize.is_parametrized(module, name):
        return
    for old, new in (("orig", "original"), ("u", "0._u"), ("v", "0._v")):
        if f"{prefix}{name}_{old}" in state_dict:
            state_dict[f"{prefix}parametrizations.{name}.{new}"] = state_dict.pop(f"{prefix}{name}_{old}")
