"""Summary of a run's networks, for --dry-run and the log."""

from collections.abc import Mapping, Sequence

from torch import nn

from gan.config.stored import AnyConfig
from gan.normalization import LayerSpectrum, spectra


def summarize(config: AnyConfig, data: str, networks: Mapping[str, nn.Module], classes: str = "") -> list[str]:
    """Returns lines with the data, the size of each network and the normalization of the last one.

    Args:
        data: description of the data.
        networks: networks by section of the configuration.
        classes: description of the classes, for the line of each network.
    """
    lines = [f"{config.name}: {data}, identity {config.identity()}"]
    for name, network in networks.items():
        count = sum(parameter.numel() for parameter in network.parameters())
        lines.append(f"{name}: {getattr(config, name).name}{classes}, {count:,} parameters")
    name, network = list(networks.items())[-1]
    wanted = getattr(config, name)
    return [*lines, _normalization(name, wanted.normalization, wanted.c, spectra(network))]


def _normalization(network: str, normalization: str, c: float, layers: Sequence[LayerSpectrum]) -> str:
    """Describes the effect of a normalization on the weights of a network."""
    bounded = [layer for layer in layers if layer.target_rank is not None]
    if not bounded:
        return f"{network} weights: {normalization}"
    active = sum(layer.active for layer in bounded)
    text = f"{network} weights: srn, c = {c:g}, active on {active} of {len(bounded)} layers now"
    spectral = [layer.name for layer in layers if layer.target_rank is None]
    if spectral:
        text += f"; spectral normalization only, because c * min(rows, columns) <= 1: {', '.join(spectral)}"
    return text


__all__ = ["summarize"]
