"""Interface between the run engine and the kinds of runs: the differences between a GAN and a classifier."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from gan.config.stored import AnyConfig
from gan.data import ImageData
from gan.noise import attempt_seed
from gan.runs.checkpoint import Checkpoint
from gan.runs.logger import Scalars
from gan.runtime.distributed import Processes
from gan.runtime.profiling import traced
from gan.training.log import Log
from gan.training.state import ClassifierState, TrainState

State = TrainState | ClassifierState


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

    @contextmanager
    def traced(self, train_step: Callable[[], None], log: Log) -> Iterator[Callable[[], None]]:
        """Yields the training step, which the first process traces if the run is profiled."""
        if self.profile and self.processes.is_first:
            with traced(self.device, train_step, self.folder / "profile", log.say) as step:
                yield step
        else:
            yield train_step


@dataclass(frozen=True)
class Attempt:
    """Training from one state, until the end, a reason to stop or a divergence.

    steps: of the whole run. images_per_step: real images seen in each. method: how an iteration is carried out, for
    run.json. train: trains with a log, a function that saves and one that gives a reason to stop; returns the reason,
    "" at the end. length: what follows the steps in the first line of the log. remarks: further lines for the log.
    ending: why the run ended before its last step, "" if it did not.
    """

    steps: int
    images_per_step: int
    method: str
    train: Callable[[Log, Callable[[], Path], Callable[[int], str]], str]
    length: str = ""
    remarks: tuple[str, ...] = ()
    ending: Callable[[], str] = lambda: ""


class Kind(Protocol):
    """One kind of run with its configuration.

    command: its name. next_commands: to use the result. scalars: fields of its log. images: of training, loaded when
    first needed.
    """

    command: str
    next_commands: tuple[str, ...]
    scalars: Scalars
    config: AnyConfig
    images: ImageData

    @staticmethod
    def registries() -> Mapping[str, Iterable[str]]:
        """Names that each setting accepts."""

    def check(self) -> None:
        """Raises UserError if a name is in no registry, or settings contradict each other."""

    def check_processes(self, processes: Processes) -> None:
        """Raises ConfigError if so many processes cannot train together."""

    def build_state(self, images: ImageData | None = None, device: torch.device | str = "cpu") -> State:
        """State before the first step; without images one that cannot be trained."""

    def load_state(self, checkpoint: Checkpoint, device: torch.device | str = "cpu") -> State:
        """State of a checkpoint. Raises CheckpointError if it does not fit the configuration."""

    def is_complete(self, folder: Path, state: Any) -> bool:
        """Whether a run that stopped with this state has nothing left to do."""

    def summary(self, state: Any) -> str:
        """Sizes of the networks, and the effect of normalization on each layer."""

    def begin(self, run: Run, state: Any) -> Attempt:
        """An attempt from this state."""


def seed_of(config: AnyConfig, state: State) -> dict[str, int]:
    """Setting train.seed of the attempt that begins with this state: another one after each retry."""
    return {"seed": attempt_seed(config.train.seed, len(state.retries))}


__all__ = ["AnyConfig", "Attempt", "Kind", "Run", "State", "seed_of"]
