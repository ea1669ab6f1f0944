"""Typed configurations: GANs, classifiers, how they are read from YAML, composed and changed. Imports no torch."""

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
