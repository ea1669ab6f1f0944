"""Chooses a command's run, checkpoint or output folder from its options."""

import contextlib
import itertools
import time
from pathlib import Path

import click

from gan.config import Config
from gan.config.loading import Experiment
from gan.errors import CheckpointError, ConfigError
from gan.runs.best import read_best
from gan.runs.checkpoint import Checkpoint, read_checkpoint
from gan.runs.finding import FOLDER, newest_run


def choose_run(config: Experiment, run: Path | None, resume: bool) -> Path:
    """Returns `run` if given, the newest run of this configuration to resume, or a new path under ./runs."""
    if run is not None:
        return run
    if resume:
        with contextlib.suppress(CheckpointError):  # the first call of a job script has no run to resume
            return newest_run(identity=config.identity(), kind=config.kind)
    return Path("runs") / f"{config.name}-{time.strftime('%Y%m%d-%H%M%S')}"


def choose_checkpoint(
    checkpoint: Path | None, run: Path | None, best: bool = False, *, kind: str = Config.kind
) -> Path:
    """Returns the given checkpoint or run folder; without one, prints and returns the newest run under ./runs.

    Args:
        best: whether to return the best checkpoint of the run instead.
        kind: kind of the newest run, see `gan.runs.finding.kind_of`.

    Raises:
        CheckpointError, ConfigError: there is no such run or best checkpoint.
    """
    if checkpoint is not None:
        return checkpoint
    if run is None:
        run = newest_run(kind=kind)
        click.echo(f"newest run: {run}")
    return _best_of(run) if best else run


def read_chosen(
    checkpoint: Path | None, run: Path | None, best: bool = False, *, kind: str = Config.kind
) -> Checkpoint:
    """Reads the checkpoint that `choose_checkpoint` names; a best one that a running training replaces, again.

    Raises:
        CheckpointError, ConfigError: there is no such checkpoint, or it cannot be read.
    """
    while True:
        chosen = choose_checkpoint(checkpoint, run, best, kind=kind)
        try:
            return read_checkpoint(chosen)
        except CheckpointError:
            if not best or chosen.exists():
                raise


def _best_of(run: Path) -> Path:
    found = read_best(run)
    if found is None:
        raise ConfigError(f"--best: {run} has no best checkpoint; train with train.keep_best and train.eval_every")
    click.echo(f"best {found['key']}: {found['value']:.4g} at step {found['step']}")
    return run / FOLDER / str(found["checkpoint"])


def fresh_folder(folder: Path) -> Path:
    """Returns the first of folder, folder-2, folder-3, ... that does not exist, nor its image grid nor .npz file."""
    names = (folder.with_name(f"{folder.name}-{number}") for number in itertools.count(2))
    return next(
        path
        for path in itertools.chain([folder], names)
        if not any(place.exists() for place in (path, picture_of(path), packed_of(path)))
    )


def picture_of(folder: Path) -> Path:
    """Returns the path of the image grid for a folder of images: the folder's path with the suffix .png."""
    return folder.with_name(folder.name + ".png")


def packed_of(folder: Path) -> Path:
    """Returns the path of the file that holds the images in place of a folder: its path with the suffix .npz."""
    return folder.with_name(folder.name + ".npz")


__all__ = ["choose_checkpoint", "choose_run", "fresh_folder", "packed_of", "picture_of", "read_chosen"]
