"""Loads the configuration of a run from a file, or from the folder of a run to resume."""

from collections.abc import Sequence
from pathlib import Path

from gan.config import Config
from gan.config.classifier import ClassifierConfig
from gan.config.loading import OtherKindError, SomeExperiment, load, override_config
from gan.errors import ConfigError

AnyConfig = Config | ClassifierConfig


def resolve_config(
    kind: type[SomeExperiment],
    name: str | None,
    overrides: Sequence[str],
    run: Path | None,
    resume: bool,
    variants: Sequence[str] = (),
) -> SomeExperiment:
    """Loads the configuration `name`, or without a name the one stored in the run to resume.

    Raises:
        ConfigError: neither is given, or see `gan.config.loading.load`.
    """
    if name is not None:
        return load(kind, name, overrides, variants)
    if variants:
        raise ConfigError("--with: needs --config, to which the variant is applied")
    if not (resume and run is not None):
        raise ConfigError("--config is missing: give a file or a name (see --list), or --run DIR --resume")
    stored = run / "config.yaml"
    if not stored.is_file():
        raise ConfigError(f"{run}: has no config.yaml, so there is no run to resume; start one with --config")
    return override_config(load(kind, stored), overrides, str(stored))


def load_experiment(path_or_name: str | Path, overrides: Sequence[str] = (), variants: Sequence[str] = ()) -> AnyConfig:
    """Loads the configuration of a GAN or of a classifier run.

    Raises:
        ConfigError: see `gan.config.loading.load`.
    """
    try:
        return load(Config, path_or_name, overrides, variants)
    except OtherKindError:
        return load(ClassifierConfig, path_or_name, overrides, variants)


__all__ = ["AnyConfig", "load_experiment", "resolve_config"]
