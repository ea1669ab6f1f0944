"""Runs that tables and figures are made of: what they are, what is there of them, and the commands for the rest."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from gan.checkpoint import list_checkpoints
from gan.config import Config, available_configs, load_config
from gan.errors import ConfigError
from gan.several import Planned
from reproducing.measured import Measured
from reproducing.paper import Model


class Scale(NamedTuple):
    """variant: of the configurations' names, as "small" in cifar10_small_sn. overrides: of their settings."""

    variant: str
    overrides: tuple[str, ...]


ADAM = "train.adam_beta2=0.999"
"""As Appendix E.1 states; the SN-GAN authors' code, which the configurations follow, has 0.9."""

SCALES = {
    "paper": Scale("", (ADAM,)),
    "gpu-hour": Scale(
        "",
        (
            ADAM,
            *("train.steps=10000", "train.lr_decay_start=0", "train.precision=bf16", "train.fast=auto"),
            *("eval.nd.steps=10000", "eval.nd.num_samples=100000"),
        ),
    ),
    "cpu": Scale("small", (ADAM,)),
}
UNTRAINED = "train.steps=0"


def variant_of(config: str, variant: str) -> str:
    """ "cifar10_cond_sn" and "small" -> "cifar10_small_cond_sn"; the configuration itself where it has no such variant.

    Raises:
        ConfigError: no configuration has such a variant.
    """
    data, _, rest = config.partition("_")
    known = [name.removesuffix(".yaml") for name in available_configs()]
    if variant and not any(f"_{variant}_" in name for name in known):
        raise ConfigError(
            f"--variant: got {variant!r}, of which there is no configuration such as cifar10_{variant}_sn"
        )
    found = f"{data}_{variant}_{rest}"
    return found if found in known else config


@dataclass(frozen=True)
class Run:
    """A model of some setting and seed, whether or not anything of it is there yet.

    Its folder's name ends with the identity of its settings: two tables that need one run share it, under any name.

    Args:
        name: of the configuration.
        overrides: of its settings.
        root: where runs are kept.
    """

    name: str
    overrides: tuple[str, ...]
    seed: int
    root: Path

    @classmethod
    def of(cls, model: Model, seed: int, scale: Scale, overrides: tuple[str, ...], root: Path) -> "Run":
        more = (UNTRAINED,) if model.untrained else ()
        places = {override.partition("=")[0].strip() for override in overrides}
        if places & {"data.name", "data.root"} and "data.title" not in places:
            more = (*more, "data.title=''")  # the configuration's is that of other data
        return cls(variant_of(model.config, scale.variant), (*scale.overrides, *overrides, *more), seed, root)

    @cached_property
    def config(self) -> Config:
        return load_config(self.name, (*self.overrides, f"train.seed={self.seed}"))

    @cached_property
    def identity(self) -> str:
        """Of its settings, shortened."""
        return self.config.identity()[:8]

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
    def is_trained(self) -> bool:
        return self.step is not None and self.step >= self.config.train.steps

    def report(self, metrics: Iterable[str]) -> Path:
        """The folder of the report of some metrics by this configuration's protocol."""
        return self.folder / "reports" / f"{'-'.join(sorted(metrics))}-{self.protocol}"

    def is_measured(self, metrics: Iterable[str]) -> bool:
        return (self.report(metrics) / "report.json").is_file()

    def training(self, device: str) -> Planned:
        """The command that trains it, or goes on where it stopped."""
        settings = [f"--set={override}" for override in (*self.overrides, f"train.seed={self.seed}")]
        arguments = ["--config", self.name, *settings, "--run", str(self.folder), "--resume", "--device", device]
        return Planned(self.folder, arguments)

    def evaluation(self, metrics: Iterable[str], device: str) -> Planned:
        """The command that measures it, by the protocol of the configuration as it is now."""
        settings = [f"--set={setting}" for setting in _settings("eval", self.config.eval.model_dump())]
        arguments = ["--run", str(self.folder), "--metrics", ",".join(metrics), *settings]
        arguments += ["--out", str(self.report(metrics)), "--device", device]
        return Planned(self.folder, arguments, "gan.evaluate")

    def measured(self, groups: Iterable[tuple[str, ...]]) -> Measured | None:
        """What it has to show of some groups of metrics; None where something is missing."""
        groups = list(groups)
        if not self.is_trained or not all(self.is_measured(metrics) for metrics in groups):
            return None
        return Measured(self.folder, [self.report(metrics) for metrics in groups])


def _settings(place: str, values: Mapping[str, Any]) -> Iterable[str]:
    """Nested settings as --set takes them."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _settings(f"{place}.{name}", value)
        else:
            yield f"{place}.{name}={json.dumps(value)}"
