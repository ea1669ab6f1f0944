"""Typed configurations of GANs and classifiers, composed from YAML files and overrides. Imports no torch."""

from evaluation.settings.mistakes import nearest
from gan.config.gan import (
    Config,
    DataSettings,
    NormalizationSettings,
    TrainSettings,
    available_configs,
    load_config,
    validate,
)

__all__ = [
    "Config",
    "DataSettings",
    "NormalizationSettings",
    "TrainSettings",
    "available_configs",
    "load_config",
    "nearest",
    "validate",
]
