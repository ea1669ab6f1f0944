"""Selects the weights of a network that `normalize` normalizes, and lists those that it leaves as they are."""

import warnings
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from itertools import accumulate
from typing import NamedTuple

from torch import Tensor, nn

from gan.normalization.layers import layers, normalized_weights, other_weights

SHOWN = 30
"""Largest number of names in a message."""


class Selection(NamedTuple):
    """Weights of a network by treatment.

    chosen: layers to normalize, by name.
    left: names of weights that are left as they are without having been excluded, each with the reason.
    """

    chosen: dict[str, nn.Module]
    left: dict[str, str]


def select(network: nn.Module, exclude: str | Sequence[str]) -> Selection:
    """Sorts the weights of a network.

    Args:
        exclude: see `gan.normalization.normalize`.

    Raises:
        ValueError: a pattern that matches no weight, or a lazy parameter that may become a weight.
    """
    known = dict(layers(network))
    others = {name: (module, parameter) for name, module, parameter in other_weights(network)}
    excluded = _excluded([*known, *others], (exclude,) if isinstance(exclude, str) else tuple(exclude))
    left = {}
    for name, (module, parameter) in others.items():
        if name not in excluded:
            if nn.parameter.is_lazy(parameter):
                raise ValueError(f"{name}: a lazy parameter has no values: initialise the network first")
            left[name] = type(module).__name__
    chosen = {name: module for name, module in known.items() if name not in excluded}
    zero = [name for name, module in chosen.items() if _is_zero(module)]
    left |= {name or "the weight": "all zero" for name in zero}
    return Selection({name: module for name, module in chosen.items() if name not in zero}, left)


def _is_zero(layer: nn.Module) -> bool:
    """Whether a layer's weight, not yet parametrized, is all zero."""
    weight = layer._parameters.get("weight", layer._buffers.get("weight"))
    return isinstance(weight, Tensor) and not nn.parameter.is_lazy(weight) and not weight.is_meta and not weight.any()


def _excluded(names: Iterable[str], patterns: Sequence[str]) -> set[str]:
    """Returns the names that a pattern matches, themselves or as part of a module that it matches."""
    names, found = list(names), set()
    for pattern in patterns:
        matching = {name for name in names if any(fnmatchcase(part, pattern) for part in _parts(name))}
        if not matching:
            raise ValueError(f"exclude: {pattern!r} matches no weight, expected some of {_listed(names)}")
        found |= matching
    return found


def _parts(name: str) -> list[str]:
    """Names of the modules around a layer or weight, of itself, and of its weight: a, a.b, a.b.weight for a.b."""
    parts = [*name.split("."), "weight"] if name else ["weight"]
    return list(accumulate(parts, lambda before, part: f"{before}.{part}"))


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(name or "weight" for name in names[:SHOWN])
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown or "no names: there is none"


def warn_of_rest(network: nn.Module, selection: Selection) -> None:
    """Warns once of all weights that are left as they are, after the others have been normalized."""
    tied = {id(found.original): found.name for found in normalized_weights(network)}
    plain = [(name, module._parameters.get("weight")) for name, module in layers(network)]
    plain += [(name, parameter) for name, _, parameter in other_weights(network)]
    left = dict(selection.left)
    for name, parameter in plain:
        if id(parameter) in tied:
            left[name] = f"the same parameter as {tied[id(parameter)]}, which is normalized: exclude both or neither"
    if left:
        shown = _listed([f"{name} ({reason})" for name, reason in left.items()])
        warnings.warn(
            f"normalize leaves weights of {type(network).__name__} as they are: {shown}. It normalizes linear, "
            "convolution and embedding layers whose weight is not all zero. Normalize others by "
            "spectral_norm(module, name) beforehand, give zero weights their values beforehand, or name them in "
            "exclude to keep them as they are without this warning",
            stacklevel=3,
        )
