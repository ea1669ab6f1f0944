"""Runs that tables and figures are made of: what they are, what is there of them, and the commands for the rest."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gan.errors import ConfigError
from gan.launch.several import Planned
from gan.runs.checkpoint import list_checkpoints
from reproducing.content import AnyModel
from reproducing.kinds import KINDS, Kind, kind_of
from reproducing.measured import Measured
from reproducing.scales import Scale
from reproducing.work import Progress


def check_variant(variant: str) -> None:
    """Raises ConfigError if no configuration has such a variant."""
    names = [name for kind in KINDS.values() for name in kind.names()]
    if variant and not any(f"_{variant}_" in name for name in names):
        raise ConfigError(
            f"--variant: got {variant!r}, of which there is no configuration such as cifar10_{variant}_sn"
        )


@dataclass(frozen=True)
class Run:
    """A model of some setting and seed, whether or not anything of it is there yet.

    Its folder's name ends with the identity of its settings: two tables that need one run share it, under any name.

    Args:
        kind: what it trains.
        name: of the configuration.
        overrides: of its settings.
        root: where runs are kept.
    """

    kind: Kind
    name: str
    overrides: tuple[str, ...]
    seed: int
    root: Path

    @classmethod
    def of(cls, model: AnyModel, seed: int, scale: Scale, overrides: tuple[str, ...], root: Path) -> "Run":
        """By the scale's settings, then those of all runs, then the model's own, which may be relative to them."""
        kind = kind_of(model)
        check_variant(scale.variant)
        name = kind.variant_of(model.config, scale.variant)
        settings = (*kind.scaled(model, kind.load(name, ()), scale), *overrides)
        more = kind.changed(model, kind.load(name, settings))
        places = {override.partition("=")[0].strip() for override in overrides}
        if places & {"data.name", "data.root"} and "data.title" not in places:
            more = (*more, "data.title=''")  # the configuration's is that of other data
        return cls(kind, name, (*settings, *more), seed, root)

    @cached_property
    def config(self) -> Any:
        """Of the kind's own type."""
        return self.kind.load(self.name, (*self.overrides, f"train.seed={self.seed}"))

    @cached_property
    def identity(self) -> str:
        """Of its settings, shortened."""
        return str(self.config.identity()[:8])

    @cached_property
    def protocol(self) -> str:
        """Of its evaluation's settings, shortened; one that is new, and at its default, changes nothing."""
        settings = json.dumps(self.config.eval.model_dump(exclude_defaults=True), sort_keys=True)
        return hashlib.sha256(settings.encode()).hexdigest()[:8]

    @property
    def folder(self) -> Path:
        found = sorted(self.root.glob(f"*-{self.identity}"))
        return found[0] if found else self.root / f"{self.name}-seed{self.seed}-{self.identity}"

    @property
    def step(self) -> int | None:
        """Of the newest checkpoint, None without one."""
        checkpoints = list_checkpoints(self.folder)
        return int(checkpoints[-1].stem.rpartition("-")[2]) if checkpoints else None

    @property
    def progress(self) -> Progress:
        return self.kind.progress(self.config, self.folder, self.step)

    @property
    def length(self) -> int:
        """In units of the kind."""
        return self.kind.length(self.config)

    @property
    def is_trained(self) -> bool:
        return self.progress.is_whole

    def report(self, metrics: Iterable[str]) -> Path:
        """The folder of the report of some metrics by this configuration's protocol."""
        return self.folder / "reports" / f"{'-'.join(sorted(metrics))}-{self.protocol}"

    def is_measured(self, metrics: Iterable[str]) -> bool:
        return (self.report(metrics) / "report.json").is_file()

    def obstacle(self, metrics: list[str], device: str) -> str:
        """Why it cannot be trained, or these metrics not be measured; "" if nothing is in the way."""
        return self.kind.obstacle(self.config, metrics, device)

    def training(self, device: str) -> Planned:
        """The command that trains it, or goes on where it stopped."""
        settings = [f"--set={override}" for override in (*self.overrides, f"train.seed={self.seed}")]
        arguments = ["--config", self.name, *settings, "--run", str(self.folder), "--resume", "--device", device]
        return Planned(self.folder, arguments, self.kind.TRAINING)

    def evaluation(self, metrics: Iterable[str], device: str) -> Planned:
        """The command that measures it, by the protocol of the configuration as it is now."""
        settings = [f"--set={setting}" for setting in _settings("eval", self.config.eval.model_dump())]
        arguments = ["--run", str(self.folder), "--metrics", ",".join(metrics), *settings]
        arguments += ["--out", str(self.report(metrics)), "--device", device]
        return Planned(self.folder, arguments, self.kind.EVALUATION)

    def measured(self, groups: Iterable[tuple[str, ...]]) -> Measured | None:
        """What it has to show of some groups of metrics; None where something is missing."""
        groups = list(groups)
        if not self.is_trained or not all(self.is_measured(metrics) for metrics in groups):
            return None
        logged = self.kind.logged(self.config, self.folder)
        return Measured(self.folder, [self.report(metrics) for metrics in groups], logged)


def _settings(place: str, values: Mapping[str, Any]) -> Iterable[str]:
    """Nested settings as --set takes them."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _settings(f"{place}.{name}", value)
        else:
            yield f"{place}.{name}={json.dumps(value)}"
