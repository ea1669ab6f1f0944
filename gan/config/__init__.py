"""Typed configurations of GANs and classifiers, composed from YAML files and overrides. Imports no torch."""

from evaluation.settings.mistakes import nearest
from gan.config.gan import (
    IMAGE_SIZES,
    Config,
    DataSettings,
    InitializationSettings,
    NormalizationSettings,
    TrainSettings,
    available_configs,
    load_config,
    validate,
)

__all__ = [
    "IMAGE_SIZES",
    "Config",
    "DataSettings",
    "InitializationSettings",
    "NormalizationSettings",
    "TrainSettings",
    "available_configs",
    "load_config",
    "nearest",
    "validate",
]
