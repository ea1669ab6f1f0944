"""Weight normalization for any network: `normalize(network, "srn", c=0.7)`.

`normalize` is meant for training loops that call `update_(network)` once per discriminator step: with its default,
update="step", singular vectors change only there. Forward passes then depend on the weights alone: real and fake images
pass through the same network, and evaluation changes nothing. The functions for one layer, `spectral_norm` and others,
need no such call: like torch's, they change the vectors in each forward pass in training mode, update="forward".
"""

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gan.normalization.batched import BatchedNormalization
from gan.normalization.bidirectional import BidirectionalSpectralNorm
from gan.normalization.convolution import ConvolutionSpectralNorm, ConvolutionStableRankNorm, convolution_spectrum
from gan.normalization.gradient_penalty import gradient_penalty, r1_penalty
from gan.normalization.layers import (
    NORMALIZED_LAYERS,
    NormalizedWeight,
    depends_on_size,
    input_sizes,
    normalized_weights,
)
from gan.normalization.orthogonal import orthogonal_penalty
from gan.normalization.parametrizations import (
    bidirectional_spectral_norm,
    convolution_spectral_norm,
    convolution_stable_rank_norm,
    learned_scale_norm,
    spectral_norm,
    stable_rank_norm,
)
from gan.normalization.penalties import PENALTIES, Penalty, PenaltyChoice, lecam_penalty
from gan.normalization.projections import Projection, spectral_projection, stable_rank, stable_rank_projection
from gan.normalization.selection import select, warn_of_rest
from gan.normalization.spectral import SpectralNorm
from gan.normalization.spectrum import LayerSpectrum, UsedWeight, spectra, used_weights
from gan.normalization.stable_rank import StableRankNorm
from gan.normalization.watch import new_watch


class Normalization(NamedTuple):
    """Normalization method: a weight normalization, a penalty, or neither.

    apply: normalizes one layer; None leaves the weights unchanged.
    settings: keyword arguments of `apply`.
    penalty: key of `PENALTIES`, a term added to the discriminator's loss.
    shared: whether all layers share the parameters that `apply` adds.
    sized: whether `apply` takes the input size of a convolution, `input_size`.
    """

    apply: Callable[..., nn.Module] | None
    settings: tuple[str, ...] = ()
    penalty: str = "none"
    shared: bool = False
    sized: bool = False


NORMALIZATIONS: dict[str, Normalization] = {
    "none": Normalization(None),
    "sn": Normalization(spectral_norm, ("n_power_iterations",)),
    "srn": Normalization(stable_rank_norm, ("c", "relative_to", "infeasible", "n_power_iterations")),
    "ssn": Normalization(spectral_norm, ("scale", "n_power_iterations")),
    "bsn": Normalization(bidirectional_spectral_norm, ("n_power_iterations",)),
    "bssn": Normalization(bidirectional_spectral_norm, ("scale", "n_power_iterations")),
    "sn_same_gamma": Normalization(learned_scale_norm, ("n_power_iterations",), "gradient", shared=True),
    "sn_gamma": Normalization(learned_scale_norm, ("n_power_iterations",), "gradient"),
    "sn_conv": Normalization(convolution_spectral_norm, ("scale", "n_power_iterations"), sized=True),
    "srn_conv": Normalization(
        convolution_stable_rank_norm, ("c", "relative_to", "infeasible", "n_power_iterations"), sized=True
    ),
    "wgan_gp": Normalization(None, penalty="gradient"),
    "ortho": Normalization(None, penalty="orthogonal"),
}


def normalize(
    network: nn.Module,
    choice: str,
    *,
    update: str = "step",
    exclude: str | Sequence[str] = (),
    example: Sequence[object] | None = None,
    **settings: float | int | str,
) -> nn.Module:
    """Normalizes the weight of every linear, convolution and embedding layer in place; returns the network.

    "none", "wgan_gp" and "ortho" leave the weights unchanged. The training loop adds the penalty of a choice,
    `gradient_penalty` or `orthogonal_penalty`, to the discriminator's loss, see `Normalization.penalty`.

    One warning lists the weights that are left as they are: those of other modules (attention's in-projection,
    recurrent weights, nn.Bilinear, nn.EmbeddingBag, parameters of two or more dimensions) and weights that are all
    zero. `spectra` lists them too. A parameter that is the weight of several layers is normalized in each of them, by
    the same singular vectors.

    Args:
        network: already initialised; values that an initialiser writes into a normalized weight are lost.
        choice: a key of `NORMALIZATIONS`.
        update: "step" changes singular vectors only in `update_`, which the training loop calls; "forward" at every
            access in training mode, for code that does not call it. See `SpectralNorm`.
        exclude: layers, modules or weights to leave as they are, by name or pattern: ("head", "blocks.*.attn").
            Patterns are those of fnmatch, and "*" matches dots too.
        example: "sn_conv" and "srn_conv" need the input sizes of convolutions: the arguments of one forward pass, such
            as (images,) or (images, labels), which is run once in eval mode. Other choices ignore it.
        settings: settings in `NORMALIZATIONS[choice].settings`, passed to the parametrization.

    Raises:
        ValueError: unknown choice or setting, a pattern that matches nothing, an example that does not fit, or a layer
            that cannot be normalized, with its name. The network is then unchanged.
    """
    normalization = _chosen(choice, settings)
    selection = select(network, exclude)
    if normalization.apply is None:
        return network
    sizes = _sizes(network, example, selection.chosen) if normalization.sized else {}
    new_watch()
    _apply(partial(normalization.apply, update=update, **settings), selection.chosen, sizes)
    _align_shared(network)
    if normalization.shared:
        found = [weight for weight in normalized_weights(network) if weight.name in selection.chosen]
        _share_parameters([weight.parametrization for weight in found])
    warn_of_rest(network, selection)
    return network


def _chosen(choice: str, settings: Collection[str]) -> Normalization:
    """Returns a choice; raises ValueError if there is none of this name, or if it does not take these settings."""
    if choice not in NORMALIZATIONS:
        raise ValueError(f"normalization: got {choice!r}, expected one of {', '.join(NORMALIZATIONS)}")
    normalization = NORMALIZATIONS[choice]
    unknown = set(settings) - set(normalization.settings)
    if unknown:
        accepted = ", ".join((*normalization.settings, "update", "exclude", "example"))
        raise ValueError(f"normalization {choice}: unknown {', '.join(sorted(unknown))}, expected only {accepted}")
    return normalization


def _sizes(
    network: nn.Module, example: Sequence[object] | None, chosen: Mapping[str, nn.Module]
) -> dict[str, tuple[int, ...]]:
    """Returns the input sizes of the chosen layers whose norm depends on it and that the example reaches, by name."""
    needed = [name for name, module in chosen.items() if depends_on_size(module)]
    if example is None or not needed:
        return {}
    found = input_sizes(network, example)
    return {name: found[name] for name in needed if name in found}


def _apply(
    make: Callable[..., nn.Module], chosen: Mapping[str, nn.Module], sizes: Mapping[str, tuple[int, ...]]
) -> None:
    """Normalizes some layers; after an error all are as they were."""
    undo: list[Callable[[], None]] = []
    try:
        for name, module in chosen.items():
            undo.append(_restorer(module))
            try:
                make(module, input_size=sizes[name]) if name in sizes else make(module)
            except (ValueError, RuntimeError) as error:
                reason = " ".join(str(error).split())
                raise ValueError(f"{name or type(module).__name__}: {reason}") from None
    except Exception:
        for restore in undo:
            restore()
        raise


@torch.no_grad()
def _align_shared(network: nn.Module) -> None:
    """Gives the copies of a shared weight the same singular vectors and parameters, so that they stay equal."""
    first: dict[tuple[object, ...], SpectralNorm] = {}
    for found in normalized_weights(network):
        norm = found.parametrization
        kind = (type(norm), norm.dim, getattr(norm, "convolution", None))
        leader = first.setdefault((id(found.original), *kind), norm)
        if leader is not norm:
            for mine, theirs in zip(norm.buffers(), leader.buffers(), strict=True):
                mine.copy_(theirs)
            _share_parameters([leader, norm])


def _share_parameters(norms: Sequence[SpectralNorm]) -> None:
    """Gives normalizations the parameters of the first one, such as a trained scale."""
    for norm in norms[1:]:
        for name, parameter in norms[0].named_parameters():
            for part in (norm, *norm.companions.values()):
                setattr(part, name, parameter)


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


@torch.no_grad()
def bake(network: nn.Module) -> nn.Module:
    """Returns a copy of a network with plain weights, normalized by exact singular pairs."""
    baked = _copied(network)
    refresh_(baked)
    found = [part for weight in normalized_weights(baked) for part in _parametrized(baked, weight)]
    for module, _, _, _ in found:
        module.parametrizations.eval()  # type: ignore[union-attr]  # in training mode update="forward" would iterate
    # All values before any parametrization goes: a parameter may be shared, with a module that is not normalized too.
    values = [getattr(module, name).clone() for module, name, _, _ in found]
    plain: dict[int, Tensor] = {}
    for module in {id(module): module for module, _, _, _ in found}.values():
        _own_class(module)
    # In reverse, so that the parameters end up in their original order.
    for (module, name, original, norm), value in reversed(list(zip(found, values, strict=True))):
        parametrize.remove_parametrizations(module, name, leave_parametrized=False)
        shared = plain.get(id(original))
        rescales = getattr(module, "max_norm", None) is not None  # nn.Embedding then changes its weight when it is read
        if shared is None or rescales or not torch.equal(shared, value):
            shared = nn.Parameter(value, original.requires_grad) if isinstance(original, nn.Parameter) else value
        if not rescales:
            plain[id(original)] = shared
        (module._parameters if isinstance(shared, nn.Parameter) else module._buffers)[name] = shared
        for follower in norm.followers:
            if follower in module._parameters:
                module._parameters[follower] = module._parameters.pop(follower)
    return baked


def _parametrized(network: nn.Module, weight: NormalizedWeight) -> Iterator[tuple[nn.Module, str, Tensor, Any]]:
    """Yields (module, name, stored tensor, parametrization) of a normalized weight and of its companions."""
    module = network.get_submodule(weight.layer)
    yield module, weight.tensor, weight.original, weight.parametrization
    for name, parametrization in weight.parametrization.companions.items():
        yield module, name, module.parametrizations[name].original, parametrization  # type: ignore[index,union-attr]


def _copied(network: nn.Module) -> nn.Module:
    """Returns a deep copy of a network.

    A recurrent layer keeps the normalized weights of its last pass, which cannot be copied if they have a gradient; it
    computes them again in the next pass.
    """
    recurrent = [
        each for each in network.modules() if isinstance(each, nn.RNNBase) and parametrize.is_parametrized(each)
    ]
    kept = [each._flat_weights for each in recurrent]
    try:
        for each in recurrent:
            each._flat_weights = []
        return copy.deepcopy(network)
    finally:
        for each, weights in zip(recurrent, kept, strict=True):
            each._flat_weights = weights


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
    "ConvolutionSpectralNorm",
    "ConvolutionStableRankNorm",
    "LayerSpectrum",
    "Normalization",
    "Penalty",
    "PenaltyChoice",
    "Projection",
    "SpectralNorm",
    "StableRankNorm",
    "UsedWeight",
    "bake",
    "bidirectional_spectral_norm",
    "convolution_spectral_norm",
    "convolution_spectrum",
    "convolution_stable_rank_norm",
    "gradient_penalty",
    "learned_scale_norm",
    "lecam_penalty",
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
    "used_weights",
]
