"""Summary of a run's networks, for --dry-run and the log."""

from collections.abc import Mapping, Sequence

from torch import nn

from gan.config import Config, NormalizationSettings
from gan.config.stored import AnyConfig
from gan.normalization import PENALTIES, LayerSpectrum, spectra
from gan.normalization.stable_rank import FLOOR


def summarize(config: AnyConfig, data: str, networks: Mapping[str, nn.Module], classes: str = "") -> list[str]:
    """Returns lines with the data, the size of each network, the normalization of the last one and what is added to it.

    Args:
        data: description of the data.
        networks: networks by section of the configuration.
        classes: description of the classes, for the line of each network.
    """
    lines = [f"{config.name}: {data}", f"settings: identity {config.identity()}, which runs with equal settings share"]
    for name, network in networks.items():
        count = sum(parameter.numel() for parameter in network.parameters())
        lines.append(f"{name}: {getattr(config, name).name}{classes}, {count:,} parameters")
    name, network = list(networks.items())[-1]
    lines += _normalization(name, getattr(config, name), spectra(network))
    return [*lines, *(_additions(config) if isinstance(config, Config) else [])]


def _normalization(network: str, wanted: NormalizationSettings, layers: Sequence[LayerSpectrum]) -> list[str]:
    """Describes the effect of a normalization on the weights of a network."""
    bounded = [layer for layer in layers if layer.target_rank is not None]
    if not bounded:
        return [f"{network} weights: {wanted.normalization}"]
    active, count = sum(layer.active for layer in bounded), len(bounded)
    others = "" if active == count else "; the others are within their bounds now"
    kind = f"{wanted.normalization}, {wanted.bound}"
    lines = [f"{network} weights: {kind}, lowers the stable rank of {active} of {count} layers{others}"]
    spectral = [layer.name for layer in layers if layer.target_rank is None]
    if spectral:
        lines.append(
            "spectral normalization only, because a stable rank bounded by at most 1 would leave no gradient: "
            + ", ".join(spectral)
        )
    higher = [layer.name for layer in layers if layer.policy == "skip" and layer.stable_rank > FLOOR]
    if higher:
        lines.append(
            f"a larger c would bound {', '.join(higher)}, so a smaller c is not a stronger constraint there; with "
            f"{network}.infeasible=floor the bound is {FLOOR}"
        )
    return lines


def _additions(config: Config) -> list[str]:
    """Describes the added penalty of the discriminator and the augmentations, if there are any."""
    wanted, lines = config.discriminator, []
    if coefficient := PENALTIES[wanted.penalty].coefficient:
        lines.append(f"discriminator penalty: {wanted.penalty}, coefficient {getattr(wanted, coefficient):g}")
    if names := config.train.augmentations:
        lines.append(f"augmentations of real and generated images: {', '.join(names)}")
    return lines


__all__ = ["summarize"]
