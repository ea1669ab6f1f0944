"""Two kinds of runs, GANs and classifiers: all that differs between them on the way from a name to a table."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from gan.config.loading import Experiment
from reproducing import classifiers, gans
from reproducing.content import AnyModel, Classifier, Model
from reproducing.measured import Measured, Values
from reproducing.results import Ours, Spread
from reproducing.scales import Scale
from reproducing.work import Costs, Progress


class Kind(Protocol):
    """What the modules of KINDS have. A configuration is the kind's own.

    TRAINING, EVALUATION: modules of the commands.
    UNIT: what the length of training is counted in.
    REACH: what stands behind ± in tables, and how far apart two means have to be. NOTE: says so under them.
    CONDITIONS: columns of every table, what numbers depend on besides the model.
    """

    TRAINING: str
    EVALUATION: str
    UNIT: str
    REACH: Callable[[Spread], float]
    NOTE: str
    CONDITIONS: tuple[str, ...]

    def names(self) -> list[str]:
        """Of its configurations."""

    def variant_of(self, config: str, variant: str) -> str:
        """The name of a configuration's variant; its own where there is none."""

    def load(self, name: str, overrides: tuple[str, ...]) -> Experiment:
        """See `gan.config.loading.load`."""

    def scaled(self, model: Any, config: Any, scale: Scale) -> tuple[str, ...]:
        """What a scale changes of a configuration."""

    def changed(self, model: Any, config: Any) -> tuple[str, ...]:
        """What a model changes of a configuration at its scale."""

    def groups_of(self, metrics: Iterable[str], model: Any) -> tuple[tuple[str, ...], ...]:
        """Metrics of the evaluation, as they are measured together."""

    def needed(self, config: Any) -> str:
        """Equal for configurations that need the same data."""

    def obstacle(self, config: Any, metrics: list[str], device: str) -> str:
        """Why a run cannot be trained or these metrics cannot be measured, "" if they can."""

    def length(self, config: Any) -> int:
        """Of the training, in units."""

    def progress(self, config: Any, folder: Path, step: int | None) -> Progress:
        """Of a run whose newest checkpoint is of this step, None without one."""

    def logged(self, config: Any, folder: Path) -> Values:
        """What the log of a trained run says of its result."""

    def work(self, config: Any) -> str:
        """Equal for configurations of which a unit of training costs the same."""

    def tried(self, config: Any, device: torch.device) -> Costs:
        """Measured here."""

    def num_images(self, config: Any, metrics: Iterable[str]) -> int:
        """That metrics need, where each costs the same."""

    def conditions(self, config: Any, runs: Sequence[Measured], values: Sequence[Ours]) -> Mapping[str, str]:
        """How some values were obtained, by the names of CONDITIONS."""


KINDS: Mapping[type, Kind] = {Model: gans, Classifier: classifiers}


def kind_of(model: AnyModel) -> Kind:
    return KINDS[type(model)]
