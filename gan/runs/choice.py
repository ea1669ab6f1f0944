"""Choice of the run, checkpoint or folder of a command by its options."""

import contextlib
import itertools
import time
from pathlib import Path

import click

from gan.config import Config
from gan.config.loading import Experiment
from gan.errors import CheckpointError, ConfigError
from gan.runs.best import read_best
from gan.runs.checkpoint import FOLDER, newest_run


def choose_run(config: Experiment, run: Path | None, resume: bool) -> Path:
    """Returns the folder given, that of the newest run to resume, or the name of a new one under `runs`."""
    if run is not None:
        return run
    if resume:
        with contextlib.suppress(CheckpointError):  # none yet: the first of many calls of a job script
            return newest_run(identity=config.identity(), kind=config.kind)
    return Path("runs") / f"{config.name}-{time.strftime('%Y%m%d-%H%M%S')}"


def choose_checkpoint(
    checkpoint: Path | None, run: Path | None, best: bool = False, *, kind: str = Config.kind
) -> Path:
    """Returns a checkpoint file or a run folder: the one given, or the newest run under ./runs, which is printed.

    Args:
        best: the run's best checkpoint instead.
        kind: of the newest run, see `gan.runs.checkpoint.kind_of`.

    Raises:
        CheckpointError, ConfigError: there is none.
    """
    if checkpoint is not None:
        return checkpoint
    if run is None:
        run = newest_run(kind=kind)
        click.echo(f"newest run: {run}")
    return _best_of(run) if best else run


def _best_of(run: Path) -> Path:
    found = read_best(run)
    if found is None:
        raise ConfigError(f"--best: {run} has kept no best checkpoint; train with train.keep_best and train.eval_every")
    click.echo(f"best {found['key']}: {found['value']:.4g} at step {found['step']}")
    return run / FOLDER / str(found["checkpoint"])


def fresh_folder(folder: Path) -> Path:
    """The folder itself, or the first of folder-2, folder-3, ... that is free: neither it nor its picture exists."""
    names = (folder.with_name(f"{folder.name}-{number}") for number in itertools.count(2))
    return next(path for path in itertools.chain([folder], names) if not (path.exists() or picture_of(path).exists()))


def picture_of(folder: Path) -> Path:
    """The picture beside a folder of images, which shows them in a grid."""
    return folder.with_name(folder.name + ".png")


__all__ = ["choose_checkpoint", "choose_run", "fresh_folder", "picture_of"]
