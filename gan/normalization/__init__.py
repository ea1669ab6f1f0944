"""Weight normalization for any network: `normalize(network, "srn", c=0.7)`.

With update="step", the default, singular vectors change only in `update_(network)`, called once per discriminator step.
Forward passes then depend on the weights alone: real and fake images pass through the same network, and evaluation
changes nothing.
"""

import copy
from collections.abc import Callable
from typing import NamedTuple

from torch import nn
from torch.nn.utils import parametrize

from gan.normalization.batched import BatchedNormalization
from gan.normalization.bidirectional import BidirectionalSpectralNorm
from gan.normalization.gradient_penalty import gradient_penalty, r1_penalty
from gan.normalization.layers import NORMALIZED_LAYERS, layers, normalized_weights
from gan.normalization.orthogonal import orthogonal_penalty
from gan.normalization.parametrizations import bidirectional_spectral_norm, spectral_norm, stable_rank_norm
from gan.normalization.penalties import PENALTIES, Penalty, PenaltyChoice
from gan.normalization.projections import Projection, spectral_projection, stable_rank, stable_rank_projection
from gan.normalization.spectral import SpectralNorm
from gan.normalization.spectrum import LayerSpectrum, spectra
from gan.normalization.stable_rank import StableRankNorm


class Normalization(NamedTuple):
    """Normalization method: a weight normalization, a penalty, or neither.

    apply: normalizes one layer; None leaves the weights unchanged.
    settings: keyword arguments of `apply`.
    penalty: key of `PENALTIES`, a term added to the discriminator's loss.
    """

    apply: Callable[..., nn.Module] | None
    settings: tuple[str, ...] = ()
    penalty: str = "none"


NORMALIZATIONS: dict[str, Normalization] = {
    "none": Normalization(None),
    "sn": Normalization(spectral_norm, ("n_power_iterations",)),
    "srn": Normalization(stable_rank_norm, ("c", "infeasible", "n_power_iterations")),
    "ssn": Normalization(spectral_norm, ("scale", "n_power_iterations")),
    "bsn": Normalization(bidirectional_spectral_norm, ("n_power_iterations",)),
    "bssn": Normalization(bidirectional_spectral_norm, ("scale", "n_power_iterations")),
    "wgan_gp": Normalization(None, penalty="gradient"),
    "ortho": Normalization(None, penalty="orthogonal"),
}


def normalize(network: nn.Module, choice: str, **settings: float | int | str) -> nn.Module:
    """Normalizes the weight of every linear, convolution and embedding layer in place; returns the network.

    "none", "wgan_gp" and "ortho" leave the weights unchanged; the training loop adds the penalties of the last two,
    `gradient_penalty` and `orthogonal_penalty`, to the discriminator's loss.

    Args:
        network: already initialised; values that an initialiser writes into a normalized weight are lost.
        choice: a key of `NORMALIZATIONS`.
        settings: `update` and the settings in `NORMALIZATIONS[choice].settings`, passed to the parametrization.

    Raises:
        ValueError: unknown choice or setting, or a layer that cannot be normalized, with its name. The network is then
            unchanged.
    """
    if choice not in NORMALIZATIONS:
        raise ValueError(f"normalization: got {choice!r}, expected one of {', '.join(NORMALIZATIONS)}")
    normalization = NORMALIZATIONS[choice]
    unknown = set(settings) - {*normalization.settings, "update"}
    if unknown:
        accepted = ", ".join((*normalization.settings, "update"))
        raise ValueError(f"normalization {choice}: unknown {', '.join(sorted(unknown))}, expected only {accepted}")
    if normalization.apply is None:
        return network
    undo: list[Callable[[], None]] = []
    try:
        for name, module in list(layers(network)):
            undo.append(_restorer(module))
            try:
                normalization.apply(module, **settings)
            except (ValueError, RuntimeError) as error:
                reason = " ".join(str(error).split())
                raise ValueError(f"{name or type(module).__name__}: {reason}") from None
    except Exception:
        for restore in undo:
            restore()
        raise
    return network


def _restorer(module: nn.Module) -> Callable[[], None]:
    """Returns a function that restores a module's class, attributes, order of parameters and hooks."""
    kind, attributes = type(module), dict(module.__dict__)
    contents = {name: dict(value) for name, value in attributes.items() if isinstance(value, dict)}

    def restore() -> None:
        module.__class__ = kind
        module.__dict__.clear()
        module.__dict__.update(attributes)
        for name, content in contents.items():  # in place: handles of hooks refer to these dictionaries
            attributes[name].clear()
            attributes[name].update(content)

    return restore


def update_(network: nn.Module) -> None:
    """Runs power iteration for every normalized weight; call it before the forward pass of each discriminator step."""
    for found in normalized_weights(network):
        found.parametrization.update_(found.original)


def refresh_(network: nn.Module) -> None:
    """Sets the exact singular pairs of every normalized weight, for instance after averaging or loading weights.

    Raises:
        ValueError: a weight is not finite; the message names the layer.
    """
    for found in normalized_weights(network):
        try:
            found.parametrization.refresh_(found.original)
        except ValueError as error:
            raise ValueError(f"{found.name or 'the network'}: {error}") from None


def bake(network: nn.Module) -> nn.Module:
    """Returns a copy of a network with plain weights, normalized by exact singular pairs."""
    baked = copy.deepcopy(network)
    refresh_(baked)
    for module in list(baked.modules()):
        if not parametrize.is_parametrized(module):
            continue
        parametrizations = module.parametrizations
        norms = [
            (name, norm)
            for name, applied in parametrizations.items()  # type: ignore[union-attr, operator]
            for norm in applied
            if isinstance(norm, SpectralNorm)
        ]
        parametrizations.eval()  # type: ignore[union-attr]  # in training mode update="forward" would iterate
        if norms:
            _own_class(module)
        for name, norm in reversed(norms):  # in reverse, so that the parameters end up in their original order
            parametrize.remove_parametrizations(module, name)
            for follower in norm.followers:
                if follower in module._parameters:
                    module._parameters[follower] = module._parameters.pop(follower)
    return baked


def _own_class(module: nn.Module) -> None:
    """Gives a copied module its own class: deepcopy shares the class, which holds the weight's property."""
    shared = type(module)
    module.__class__ = type(shared.__name__, shared.__bases__, dict(shared.__dict__))


__all__ = [
    "NORMALIZATIONS",
    "NORMALIZED_LAYERS",
    "PENALTIES",
    "BatchedNormalization",
    "BidirectionalSpectralNorm",
    "LayerSpectrum",
    "Normalization",
    "Penalty",
    "PenaltyChoice",
    "Projection",
    "SpectralNorm",
    "StableRankNorm",
    "bake",
    "bidirectional_spectral_norm",
    "gradient_penalty",
    "normalize",
    "normalized_weights",
    "orthogonal_penalty",
    "r1_penalty",
    "refresh_",
    "spectra",
    "spectral_norm",
    "spectral_projection",
    "stable_rank",
    "stable_rank_norm",
    "stable_rank_projection",
    "update_",
]
