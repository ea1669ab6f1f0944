"""Interface between the run engine and the kinds of runs: what differs between a GAN and a classifier."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from gan.config.stored import AnyConfig
from gan.data import ImageData
from gan.runs.checkpoint import Checkpoint
from gan.runs.logger import Scalars
from gan.runtime.distributed import Processes
from gan.training.log import Log


class State(Protocol):
    """Part of a training state that every kind of run has."""

    step: int
    class_names: tuple[str, ...]
    data_fingerprint: str
    retries: list[dict[str, Any]]

    def state_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Run:
    """Fixed properties of a run, equal in every attempt.

    commands: the command lines that have worked on it, this one last. profile: whether to trace a few iterations.
    """

    folder: Path
    images: ImageData
    device: torch.device
    processes: Processes
    commands: list[str]
    profile: bool


class Attempt(Protocol):
    """Training from one state, until the end, a reason to stop or a divergence.

    steps: of the whole run. images_per_step: real images seen in each. length: what follows the steps in the first
    line of the log. method: how an iteration is carried out, for run.json. remarks: further lines for the log.
    """

    steps: int
    images_per_step: int
    length: str
    method: str
    remarks: list[str]

    def run(self, logger: Log, save: Callable[[], Path], stop: Callable[[int], str]) -> str:
        """Trains; returns the reason to stop, "" at the end.

        Raises:
            DivergenceError: numbers are not finite, or the run has collapsed.
        """

    def ending(self) -> str:
        """Why the run ended before its last step, for the log; "" if it did not."""


class Kind(Protocol):
    """One kind of run with its configuration.

    command: its name. next_commands: to use the result. scalars: fields of its log.
    """

    command: str
    next_commands: tuple[str, ...]
    scalars: Scalars

    @property
    def config(self) -> AnyConfig: ...

    @staticmethod
    def registries() -> Mapping[str, Iterable[str]]:
        """Names that each setting accepts."""

    def check(self) -> None:
        """Raises UserError if a name is in no registry, or settings contradict each other."""

    def check_processes(self, count: int) -> None:
        """Raises ConfigError if so many processes cannot train together."""

    def load_images(self) -> ImageData:
        """Training images."""

    def build_state(self, images: ImageData | None = None, device: torch.device | str = "cpu") -> State:
        """State before the first step; without images one that cannot be trained."""

    def load_state(self, checkpoint: Checkpoint, device: torch.device | str = "cpu") -> State:
        """State of a checkpoint. Raises CheckpointError if it does not fit the configuration."""

    def is_complete(self, folder: Path, state: State) -> bool:
        """Whether a run that stopped with this state has nothing left to do."""

    def summary(self, state: Any) -> str:
        """Sizes of the networks, and the effect of normalization on each layer."""

    def begin(self, run: Run, state: Any) -> Attempt:
        """An attempt from this state."""


__all__ = ["AnyConfig", "Attempt", "Kind", "Run", "State"]
