"""Runs of models: configuration, folder, existing results, and commands for the missing ones."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from gan.config import nearest
from gan.config.files import find_variant, find_variants
from gan.config.reading import read_mapping
from gan.errors import ConfigError
from gan.launch.several import Planned
from gan.runs.finding import identity_of, list_checkpoints, step_of
from reproducing.measured import MeasuredRun
from reproducing.paper.content import Model
from reproducing.scales import Scale


def check_variant(variant: str) -> None:
    """Raises ConfigError if neither GANs nor classifiers have such a variant, or it decides the normalization.

    The normalization is what the rows of a table differ in.
    """
    names = [(kind, name) for kind in ("gan", "classifier") for name in find_variants(kind)]
    known = sorted({name for kind, name in names if not _normalizes(kind, name)})
    if variant and variant not in known:
        raise ConfigError(f"--variant: got {variant!r}, expected one of {', '.join(known)}{nearest(variant, known)}")


def _normalizes(kind: str, variant: str) -> bool:
    """Whether a variant decides the normalization."""
    return any("normalization" in section for section in read_mapping(find_variant(kind, variant)).values())


@dataclass(frozen=True)
class ModelRun:
    """A model with a seed and settings, trained or not.

    The name of its folder ends with the identity of its settings, so tables share runs under different labels.

    Args:
        name, variants: configuration and its variants.
        overrides: overrides of its settings.
        root: folder of all runs.
    """

    model: Model
    name: str
    variants: tuple[str, ...]
    overrides: tuple[str, ...]
    seed: int
    root: Path

    @classmethod
    def of(cls, model: Model, seed: int, scale: Scale, overrides: tuple[str, ...], root: Path) -> "ModelRun":
        """Run of a model at a scale, with the overrides of all runs."""
        check_variant(scale.variant)
        name, variants = model.composed(scale)
        settings = model.overrides(name, variants, scale, overrides)
        return cls(model, name, variants, settings, seed, root)

    @cached_property
    def config(self) -> Any:
        """Configuration: `Config` of a GAN, `ClassifierConfig` of a classifier."""
        return self.model.load(self.name, self.variants, (*self.overrides, f"train.seed={self.seed}"))

    @cached_property
    def identity(self) -> str:
        """First digits of the identity of the settings."""
        return str(self.config.identity()[:8])

    @cached_property
    def protocol(self) -> str:
        """Short hash of the evaluation settings that differ from their defaults; a new setting changes no hash."""
        settings = json.dumps(self.config.eval.model_dump(exclude_defaults=True), sort_keys=True)
        return hashlib.sha256(settings.encode()).hexdigest()[:8]

    @property
    def folder(self) -> Path:
        """Existing or future folder of the run."""
        found = sorted(self.root.glob(f"*-{self.identity}")) or _stored(self.root, self.identity)
        return found[0] if found else self.root / f"{self.config.name}-seed{self.seed}-{self.identity}"

    @property
    def step(self) -> int | None:
        """Step of the newest checkpoint, None without one."""
        checkpoints = list_checkpoints(self.folder)
        return step_of(checkpoints[-1]) if checkpoints else None

    @property
    def is_trained(self) -> bool:
        """Whether training is complete."""
        step = self.step
        return step is not None and self.model.is_trained(self.config, self.folder, step)

    def report(self, metrics: Iterable[str]) -> Path:
        """Folder of the report of some metrics with this configuration's evaluation settings."""
        return self.folder / "reports" / f"{'-'.join(sorted(metrics))}-{self.protocol}"

    def is_measured(self, metrics: Iterable[str]) -> bool:
        """Whether the report of some metrics exists."""
        return (self.report(metrics) / "report.json").is_file()

    def training(self, device: str) -> Planned:
        """Command that trains the run or resumes its training."""
        settings = [f"--set={override}" for override in (*self.overrides, f"train.seed={self.seed}")]
        variants = [f"--with={variant}" for variant in self.variants]
        arguments = ["--config", self.name, *variants, *settings, "--run", str(self.folder), "--resume"]
        arguments += ["--device", device]
        return Planned(self.folder, arguments, self.model.training_module)

    def evaluation(self, metrics: Iterable[str], device: str) -> Planned:
        """Command that evaluates some metrics with this configuration's evaluation settings."""
        settings = [f"--set={setting}" for setting in _settings("eval", self.config.eval.model_dump())]
        arguments = ["--run", str(self.folder), "--metrics", ",".join(metrics), *settings]
        arguments += ["--out", str(self.report(metrics)), "--device", device]
        return Planned(self.folder, arguments, self.model.evaluation_module)

    def measured(self, groups: Iterable[tuple[str, ...]]) -> MeasuredRun | None:
        """Values of some groups of metrics; None if training or a report is missing."""
        groups = list(groups)
        if not self.is_trained or not all(self.is_measured(metrics) for metrics in groups):
            return None
        logged = self.model.logged(self.config, self.folder)
        return MeasuredRun(self.folder, [self.report(metrics) for metrics in groups], logged)


def _stored(root: Path, identity: str) -> list[Path]:
    """Folders of the same settings whose names end with an identity computed by an earlier version."""
    return [file.parent for file in sorted(root.glob("*/config.yaml")) if _stored_identity(file.parent)[:8] == identity]


@cache
def _stored_identity(folder: Path) -> str:
    return identity_of(folder)


def _settings(place: str, values: Mapping[str, Any]) -> Iterable[str]:
    """Yields nested settings as arguments of --set."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _settings(f"{place}.{name}", value)
        else:
            yield f"{place}.{name}={json.dumps(value)}"
