"""Weight normalization of any network: `normalize(network, "srn", c=0.7)`.

With update="step", the default, the singular vectors move only when `update_(network)` is called, once per
discriminator step: forwards are then functions of the weights alone, real and fake images see the same network, and
evaluation changes nothing.
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
    """How a network is normalized.

    apply: normalizes one layer; None: weights stay as they are.
    settings: names of what `apply` takes.
    penalty: a key of `PENALTIES`: what the method adds to the discriminator's loss.
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
    """Normalizes the weight of every linear, convolution and embedding layer of a network, in place; returns it.

    "wgan_gp" and "ortho" leave the weights alone: what they are is a penalty, see `gradient_penalty` and
    `orthogonal_penalty`, which the training loop adds to the discriminator's loss.

    Args:
        network: initialised already: what an initialiser writes into a normalized weight is lost.
        choice: a key of `NORMALIZATIONS`.
        settings: passed on; `update` and those named in `NORMALIZATIONS[choice].settings`.

    Raises:
        ValueError: an unknown choice or setting, or a layer that cannot be normalized, with its name; the network is
            left as it was.
    """
    if choice not in NORMALIZATIONS:
        raise ValueError(f"normalization: got {choice!r}, expected one of {', '.join(NORMALIZATIONS)}")
    normalization = NORMALIZATIONS[choice]
    unknown = set(settings) - {*normalization.settings, "update"}
    if unknown:
        raise ValueError(f"normalization {choice}: does not take {', '.join(sorted(unknown))}")
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
    """A function that makes a module what it is now: class, attributes, order of parameters, hooks."""
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
    """One power iteration for every normalized weight: call it once per discriminator step, before the forward."""
    for found in normalized_weights(network):
        found.parametrization.update_(found.original)


def refresh_(network: nn.Module) -> None:
    """Exact singular pairs for every normalized weight: after averaging weights, or a jump of the learning rate.

    Raises:
        ValueError: a weight is not finite; with the layer's name.
    """
    for found in normalized_weights(network):
        try:
            found.parametrization.refresh_(found.original)
        except ValueError as error:
            raise ValueError(f"{found.name or 'the network'}: {error}") from None


def bake(network: nn.Module) -> nn.Module:
    """A copy of a network with plain weights, normalized by exact singular pairs. The network itself is left alone."""
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
        parametrizations.eval()  # type: ignore[union-attr, operator]  # in training mode "forward" would move once more
        if norms:
            _own_class(module)
        for name, norm in reversed(norms):  # the order of the parameters is undone from the last change to the first
            parametrize.remove_parametrizations(module, name)
            for follower in norm.followers:
                if follower in module._parameters:
                    module._parameters[follower] = module._parameters.pop(follower)
    return baked


def _own_class(module: nn.Module) -> None:
    """Gives a copied module its own class: deepcopy shares it, and with it the property that stands for the weight."""
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
