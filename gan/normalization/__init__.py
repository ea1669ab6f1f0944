"""Weight normalization of any network: `normalize(network, "srn", c=0.7)`.

With update="step", the default, the singular vectors move only when `update_(network)` is called, once per
discriminator step: forwards are then functions of the weights alone, real and fake images see the same network, and
evaluation changes nothing.
"""

import copy
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gan.normalization.power_iteration import as_matrix, singular_values
from gan.normalization.spectral import SpectralNorm
from gan.normalization.stable_rank import StableRankNorm, stable_rank

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
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def _register(module: nn.Module, name: str, make: Callable[[Tensor, int], SpectralNorm]) -> nn.Module:
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"{type(module).__name__} has no tensor named {name!r} to normalize")
    if parametrize.is_parametrized(module, name):
        raise ValueError(f"{type(module).__name__}.{name} is parametrized already: normalize a weight once")
    # The output units of a transposed convolution are its second dimension.
    parametrize.register_parametrization(module, name, make(weight, 1 if isinstance(module, _TRANSPOSED) else 0))
    return module


def spectral_norm(
    module: nn.Module, name: str = "weight", *, scale: float = 1.0, n_power_iterations: int = 1, update: str = "step"
) -> nn.Module:
    """Divides `module.name` by its spectral norm, times `scale`; returns the module. See `SpectralNorm`."""
    return _register(
        module,
        name,
        lambda weight, dim: SpectralNorm(
            weight, dim=dim, scale=scale, n_power_iterations=n_power_iterations, update=update
        ),
    )


def stable_rank_norm(
    module: nn.Module, name: str = "weight", *, c: float = 0.7, n_power_iterations: int = 1, update: str = "step"
) -> nn.Module:
    """Unit spectral norm and stable rank at most c * min(rows, columns); returns the module. See `StableRankNorm`."""
    return _register(
        module,
        name,
        lambda weight, dim: StableRankNorm(weight, dim=dim, c=c, n_power_iterations=n_power_iterations, update=update),
    )


class Normalization(NamedTuple):
    """How one weight is normalized, and which settings it takes."""

    apply: Callable[..., nn.Module]
    settings: tuple[str, ...]


def _leave(module: nn.Module) -> nn.Module:
    return module


NORMALIZATIONS: dict[str, Normalization] = {
    "none": Normalization(_leave, ()),
    "sn": Normalization(spectral_norm, ("n_power_iterations",)),
    "srn": Normalization(stable_rank_norm, ("c", "n_power_iterations")),
}


def normalize(network: nn.Module, choice: str, **settings: float | int | str) -> nn.Module:
    """Normalizes the weight of every linear, convolution and embedding layer of a network, in place; returns it.

    Args:
        network: initialised already: what an initialiser writes into a normalized weight is lost.
        choice: a key of `NORMALIZATIONS`.
        settings: passed on; `update` and those named in `NORMALIZATIONS[choice].settings`.

    Raises:
        ValueError: an unknown choice or setting, or a layer that cannot be normalized, with its name.
    """
    if choice not in NORMALIZATIONS:
        raise ValueError(f"normalization: got {choice!r}, expected one of {', '.join(NORMALIZATIONS)}")
    normalization = NORMALIZATIONS[choice]
    unknown = set(settings) - {*normalization.settings, "update"}
    if unknown:
        raise ValueError(f"normalization {choice}: does not take {', '.join(sorted(unknown))}")
    if normalization.apply is _leave:
        return network
    for name, module in list(network.named_modules()):
        if isinstance(module, NORMALIZED_LAYERS):
            try:
                normalization.apply(module, **settings)
            except ValueError as error:
                raise ValueError(f"{name or type(module).__name__}: {error}") from None
    return network


def _normalized(network: nn.Module) -> Iterator[tuple[str, Tensor, SpectralNorm]]:
    """Every normalized weight: the name of its layer, the unnormalized weight, the parametrization."""
    for name, module in network.named_modules():
        if parametrize.is_parametrized(module):
            for parametrizations in module.parametrizations.values():  # type: ignore[union-attr, operator]
                for parametrization in parametrizations:
                    if isinstance(parametrization, SpectralNorm):
                        yield name, parametrizations.original, parametrization


@torch.no_grad()
def update_(network: nn.Module) -> None:
    """One power iteration for every normalized weight: call it once per discriminator step, before the forward."""
    for _, weight, parametrization in _normalized(network):
        parametrization.update_(weight)


@torch.no_grad()
def refresh_(network: nn.Module) -> None:
    """Exact singular pairs for every normalized weight: after averaging weights or a jump of the learning rate."""
    for _, weight, parametrization in _normalized(network):
        parametrization.refresh_(weight)


def _own_class(module: nn.Module) -> None:
    """Gives a copied module its own class: deepcopy shares it, and with it the property that stands for the weight."""
    shared = type(module)
    module.__class__ = type(shared.__name__, shared.__bases__, dict(shared.__dict__))


def bake(network: nn.Module) -> nn.Module:
    """A copy of a network with plain weights, normalized by exact singular pairs. The network itself is left alone."""
    baked = copy.deepcopy(network)
    refresh_(baked)
    for module in list(baked.modules()):
        if not parametrize.is_parametrized(module):
            continue
        parametrizations = module.parametrizations
        names = [
            name
            for name, applied in parametrizations.items()  # type: ignore[union-attr, operator]
            if any(isinstance(p, SpectralNorm) for p in applied)
        ]
        parametrizations.eval()  # type: ignore[union-attr, operator]  # in training mode "forward" would move once more
        if names:
            _own_class(module)
        for name in names:
            parametrize.remove_parametrizations(module, name)
    return baked


class LayerSpectrum(NamedTuple):
    """One weight, before and after normalization.

    sigma: spectral norm of the unnormalized weight, exact.
    stable_rank: of the unnormalized weight, exact.
    target_rank: the bound on the stable rank; None where none is set.
    active: whether the bound lowers the stable rank now.
    normalized_sigma, normalized_stable_rank: of the weight the network uses, exact.
    """

    name: str
    sigma: float
    stable_rank: float
    target_rank: float | None
    active: bool
    normalized_sigma: float
    normalized_stable_rank: float


def _spectrum(name: str, weight: Tensor, normalized: Tensor, dim: int, target: float | None) -> LayerSpectrum:
    raw, used = (singular_values(as_matrix(w.detach(), dim)) for w in (weight, normalized))
    raw_rank, used_rank = (float(s.square().sum() / s[0].square()) for s in (raw, used))
    active = target is not None and raw_rank > target
    return LayerSpectrum(name, float(raw[0]), raw_rank, target, active, float(used[0]), used_rank)


@torch.no_grad()
def spectra(network: nn.Module) -> list[LayerSpectrum]:
    """Spectral norm and stable rank of every linear, convolution and embedding weight, normalized or not.

    Leaves the network as it is. Costs one symmetric eigenvalue problem per weight, of the smaller side.
    """
    parametrized = {name: (weight, p) for name, weight, p in _normalized(network)}
    rows = []
    for name, module in network.named_modules():
        if not isinstance(module, NORMALIZED_LAYERS):
            continue
        if name in parametrized:
            weight, parametrization = parametrized[name]
            training = parametrization.training
            parametrization.eval()
            normalized = parametrization(weight)
            parametrization.train(training)
            rows.append(_spectrum(name, weight, normalized, parametrization.dim, parametrization.target_rank()))
        else:
            weight = module.weight
            rows.append(_spectrum(name, weight, weight, 1 if isinstance(module, _TRANSPOSED) else 0, None))
    return rows


__all__ = [
    "NORMALIZATIONS",
    "LayerSpectrum",
    "Normalization",
    "SpectralNorm",
    "StableRankNorm",
    "bake",
    "normalize",
    "refresh_",
    "spectra",
    "spectral_norm",
    "stable_rank",
    "stable_rank_norm",
    "update_",
]
