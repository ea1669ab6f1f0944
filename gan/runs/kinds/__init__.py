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
    """Properties of a run that all of its attempts share.

    Attributes:
        commands: command lines that have trained it, the present one last.
        profile: whether to trace a few iterations.
    """

    folder: Path
    images: ImageData
    device: torch.device
    processes: Processes
    commands: list[str]
    profile: bool

    @contextmanager
    def traced(self, train_step: Callable[[], None], log: Log) -> Iterator[Callable[[], None]]:
        """Yields the training step, traced if the run is profiled and this is the first process."""
        if self.profile and self.processes.is_first:
            with traced(self.device, train_step, self.folder / "profile", log.say) as step:
                yield step
        else:
            yield train_step


@dataclass(frozen=True)
class Attempt:
    """Training from one state until the end, a reason to stop or a divergence.

    Attributes:
        steps: total steps of the run.
        images_per_step: real images per step.
        method: how an iteration is executed, for run.json.
        train: trains, given a log, a function that saves a checkpoint and one that returns a reason to stop; returns
            the reason, "" at the end.
        length: text after the number of steps in the first line of the log.
        remarks: further lines for the log.
        ending: returns why the run ended before its last step, "" if it did not.
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

    Attributes:
        command: name of the training command.
        next_commands: names of the commands that use a trained run.
        scalars: scalar fields of its log.
        extent: setting that says how long it trains, the only one of training that --resume may change.
        images: training images, loaded on first use.
    """

    command: str
    next_commands: tuple[str, ...]
    scalars: Scalars
    extent: str
    config: AnyConfig
    images: ImageData

    def begun_from(self, parent: Any) -> "Kind":
        """Returns the run with this configuration that begins with other networks, a `gan.build.Parent`.

        Raises:
            ConfigError: this kind of run cannot.
        """

    @staticmethod
    def registries() -> Mapping[str, Iterable[str]]:
        """Returns the names that each setting accepts."""

    def load_images(self, split: str) -> ImageData:
        """Loads the images of a split."""

    def check(self) -> None:
        """Raises UserError if a name is in no registry or settings contradict each other."""

    def check_processes(self, processes: Processes) -> None:
        """Raises ConfigError if this number of processes cannot train together."""

    def build_state(self, images: ImageData | None = None, device: torch.device | str = "cpu") -> State:
        """Builds the state before the first step; without images, a state for the summary only."""

    def load_state(self, checkpoint: Checkpoint, device: torch.device | str = "cpu") -> State:
        """Loads the state of a checkpoint; raises CheckpointError if it does not fit the configuration."""

    def other_training(self, before: Any, step: int) -> str:
        """Returns how training by this configuration differs, up to a step, from that by `before`; "" if it is equal.

        Args:
            before: configuration that differs in `extent` only.
        """

    def goes_on(self, before: Any, step: int) -> bool:
        """Whether a longer run writes at this step what the run of `before` wrote, which may have ended there."""

    def is_complete(self, folder: Path, state: Any) -> bool:
        """Returns whether a run with this state is finished."""

    def summary(self, state: Any) -> str:
        """Describes the data, the sizes of the networks and the effect of normalization."""

    def begin(self, run: Run, state: Any) -> Attempt:
        """Prepares an attempt from this state."""


def seed_of(config: AnyConfig, state: State) -> dict[str, int]:
    """Returns train.seed of the attempt that begins with this state, a new one after each retry."""
    return {"seed": attempt_seed(config.train.seed, len(state.retries))}


__all__ = ["AnyConfig", "Attempt", "Kind", "Run", "State", "seed_of"]
