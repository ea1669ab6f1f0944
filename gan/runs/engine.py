"""Engine of all training runs: attempts, retries, saving, resuming, limits, and the lock of the run folder."""

import shlex
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import click

from gan.config.imported import check_present, import_options
from gan.errors import DivergenceError
from gan.runs.checkpoint import Checkpoint
from gan.runs.choice import choose_run
from gan.runs.finding import read_record
from gan.runs.folder import (
    checkpoint_to_continue,
    checkpoint_to_retry,
    describe_run,
    earlier_commands,
    skip_damaged_checkpoints,
    write_checkpoint,
)
from gan.runs.kinds import AnyConfig, Kind, Run, State
from gan.runs.kinds.registry import KINDS, kind_of
from gan.runs.logger import open_log, quiet_writer
from gan.runs.recorded import RecordedImages, other_fingerprints, recorded_fingerprints
from gan.runtime.device import prepared_device
from gan.runtime.distributed import Processes, num_processes, started
from gan.runtime.files import locked
from gan.training.stopping import Limits, exit_after, stopping


def dry_run(config: AnyConfig, *, start: Path | None = None, device: str = "auto", deterministic: bool = False) -> str:
    """Builds the networks on the CPU and returns their summary.

    Raises:
        UserError: the configuration or the device cannot be used.
    """
    kind = kind_of(config, start)
    kind.check()
    with prepared_device(device, deterministic):
        return kind.summary(kind.build_state())


def train(
    config: AnyConfig,
    *,
    command: str,
    run: Path | None = None,
    start: Path | None = None,
    resume: bool = False,
    skip_damaged: bool = False,
    stop_after: int | None = None,
    max_minutes: float | None = None,
    device: str = "auto",
    deterministic: bool = False,
    profile: bool = False,
) -> Path:
    """Trains in a run folder until the end or a limit; returns the folder.

    Args:
        command: command line, recorded in run.json; the other parameters are the options of gan-train.

    Raises:
        UserError: the configuration, the device, the data or the folder cannot be used, or the run diverged.
        SystemExit: a signal stopped the run; the exit status is that of the signal.
    """
    kind = kind_of(config, start)
    config = kind.config
    if resume and run is not None:
        names = {place: [*accepted] for place, accepted in kind.registries().items()}
        check_present(read_record(run).get("imports"), names, run)
    kind.check()
    kind.check_processes(Processes(count=num_processes()))
    with prepared_device(device, deterministic) as place, started(place) as processes, ExitStack() as stack:
        processes.check_equal(config.identity(), "the configuration's identity")
        folder = processes.first(lambda: choose_run(config, run, resume))
        processes.first(lambda: stack.enter_context(locked(folder)))
        stack.enter_context(quiet_writer())
        if skip_damaged:
            processes.first(lambda: skip_damaged_checkpoints(folder))
        checkpoint = processes.first(lambda: checkpoint_to_continue(kind, folder, resume))
        if checkpoint is not None and _is_done(kind, folder, checkpoint, processes):
            return folder
        with processes.one_first():
            images = kind.images
        processes.check_equal(images.fingerprint, "the fingerprint of the training images")
        commands = [*earlier_commands(config, folder, checkpoint), command]
        fixed = Run(folder, images, place, processes, commands, profile)
        reason = _train(kind, fixed, checkpoint, partial(stopping, stop_after, max_minutes))
    exit_after(reason)
    return folder


def _is_done(kind: Kind, folder: Path, checkpoint: Checkpoint, processes: Processes) -> bool:
    """Returns whether a run is complete at its newest checkpoint; if so, prints the next command.

    Raises:
        CheckpointError: the checkpoint does not fit the configuration.
    """
    state = kind.load_state(checkpoint)
    if not processes.first(partial(kind.is_complete, folder, state)):
        return False
    following = f"{kind.next_commands[0]} {_of(folder, kind)}"
    done = f"{folder}: all {state.step} steps are done; next: {following}"
    processes.first(partial(click.echo, done, err=True))
    return True


def _of(folder: Path, kind: Kind) -> str:
    """Returns the options with which a command finds a run and the names of imported code."""
    return f"--run {shlex.quote(str(folder))}{import_options(kind.config.model_dump())}"


def _train(kind: Kind, run: Run, checkpoint: Checkpoint | None, limits: Callable[[float], Limits]) -> str:
    """Trains from a checkpoint or from the beginning, with retries after divergence; returns the reason to stop.

    Args:
        limits: returns the limits of an attempt from the seconds spent so far; see `stopping`.

    Raises:
        DivergenceError: the run diverged more often than train.retries.
    """
    spent = 0.0
    while True:
        begin = time.monotonic()
        try:
            return _attempt(kind, run, checkpoint, limits(spent))
        except DivergenceError as error:
            checkpoint = run.processes.first(partial(checkpoint_to_retry, kind.config, run.folder, error))
        spent += time.monotonic() - begin


def _attempt(kind: Kind, run: Run, checkpoint: Checkpoint | None, limits: Limits) -> str:
    """Trains from a checkpoint or from the beginning; returns the reason to stop, "" at the end.

    Raises:
        DivergenceError: a number is not finite, or the run has collapsed.
    """
    processes, config = run.processes, kind.config
    state = _state(kind, run, checkpoint)
    attempt = kind.begin(run, state)

    def describe() -> None:
        describe_run(
            config,
            run.folder,
            fingerprints=recorded_fingerprints(state),
            device=run.device,
            processes=processes.count,
            step=attempt.method,
            parent=getattr(state, "parent", {}),
            commands=run.commands,
        )

    def save() -> Path:
        return write_checkpoint(config, run.folder, config.model_dump(), state.state_dict())

    processes.first(describe)
    opened = open_log(
        run.folder,
        writes=processes.is_first,
        steps=attempt.steps,
        images_per_step=attempt.images_per_step,
        first_step=state.step,
        scalars=kind.scalars,
    )
    with closing(opened) as log:
        together = f", {processes.count} processes" if processes.count > 1 else ""
        place = f"of {attempt.steps}{attempt.length} in {run.folder} on {run.device}{together}"
        beginning = f"{'continuing' if state.step else 'starting'} at step {state.step} {place}"
        for line in (kind.summary(state), beginning, *attempt.remarks):
            log.say(line)
        with limits as stop:
            reason = attempt.train(log, partial(processes.first, save), processes.agreed(stop))
        following = ", ".join(f"{name} {_of(run.folder, kind)}" for name in kind.next_commands)
        again = f"{kind.command} {_of(run.folder, kind)} --resume"
        log.say(
            f"stopped at step {state.step} ({reason}); continue with: {again}"
            if reason
            else f"done: {state.step} steps{attempt.ending()}; next: {following}"
        )
    return reason


def _state(kind: Kind, run: Run, checkpoint: Checkpoint | None) -> State:
    """Builds or loads the state to train from.

    Raises:
        CheckpointError: the checkpoint does not fit, or was trained on other images.
    """
    if checkpoint is None:
        state = kind.build_state(run.images, run.device)
        state.other_fingerprints = run.processes.first(lambda: other_fingerprints(kind.load_images))
        return state
    state = kind.load_state(checkpoint, run.device)
    recorded = RecordedImages.of(recorded_fingerprints(state), checkpoint.path, run.folder)
    recorded.compare("train", run.images.fingerprint, kind.config.data.root)
    return state


__all__ = ["KINDS", "dry_run", "kind_of", "train"]
