"""Finds all runs below a folder and says how far each is, beside running trainings, too. Imports no torch."""

import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gan.config import Config
from gan.config.classifier import ClassifierConfig
from gan.config.loading import load
from gan.errors import CheckpointError, ConfigError
from gan.runs.finding import FOLDER, JSONL, kind_of, list_checkpoints, read_log, read_record, step_of

RECORD = "run.json"


class FoundRun(NamedTuple):
    """A run as far as it can be read.

    Attributes:
        folder: its folder.
        name: path of the folder below the one that was searched.
        progress: text such as "GAN, step 2000 of 5000".
        notes: what is missing or cannot be read, each with the reason.
    """

    folder: Path
    name: str
    progress: str
    notes: Sequence[str]


def find_runs(folder: Path) -> list[FoundRun]:
    """Returns the run that a folder is, or all runs below it, by name. Folders inside runs are not searched.

    Raises:
        CheckpointError: the folder is missing, or there is no run.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; give one that holds runs, such as runs/")
    if _is_run(folder):
        return [_described(folder, folder.resolve().name)]
    closed: list[OSError] = []
    found: list[Path] = []
    for place, names, _ in os.walk(folder, onerror=closed.append):
        paths = [Path(place, name) for name in names]
        runs = [path for path in paths if _is_run(path)]
        found += runs
        names[:] = [path.name for path in paths if path not in runs]
    if not found:
        raise CheckpointError(
            f"{folder}: holds no run (a folder with {RECORD}, {JSONL} or {FOLDER}/); give a folder of runs, or train "
            f"one with gan-train --run {folder / 'NAME'}"
        )
    runs_found = [_described(run, run.relative_to(folder).as_posix()) for run in found]
    for error in closed:
        path = Path(str(error.filename))
        runs_found.append(FoundRun(path, path.relative_to(folder).as_posix(), "", [_reason(error)]))
    return sorted(runs_found, key=lambda run: run.name)


def _is_run(folder: Path) -> bool:
    try:
        return any((folder / name).exists() for name in (RECORD, JSONL, FOLDER))
    except OSError:
        return False


def _reason(error: OSError) -> str:
    return f"cannot be read: {error.strerror or error}"


def _described(run: Path, name: str) -> FoundRun:
    """Describes a run; what cannot be read becomes a note."""
    notes: list[str] = []
    try:
        notes += _damaged(run)
        lines = list(read_log(run))
        checkpoints = list_checkpoints(run)
    except OSError as error:
        return FoundRun(run, name, "", [*notes, _reason(error)])
    if not checkpoints:
        notes.append("no checkpoint, so it cannot be measured or resumed yet")
    kind: type[Config] | type[ClassifierConfig] = ClassifierConfig if kind_of(run) == ClassifierConfig.kind else Config
    try:
        config = load(kind, run / "config.yaml")
    except ConfigError as error:
        notes.append(f"its configuration cannot be read, so its length is unknown: {error}")
        config = None
    steps = [*(int(line["step"]) for line in lines), *map(step_of, checkpoints[-1:])]
    return FoundRun(run, name, _progress(kind.kind, config, max(steps, default=None), lines), notes)


def _damaged(run: Path) -> list[str]:
    """Names the files of a run that are damaged or missing; reads only the ends of checkpoints."""
    notes = []
    if not read_record(run):
        notes.append(f"{RECORD} is missing or damaged, so the run is taken for a GAN")
    if not (run / JSONL).exists():
        notes.append(f"no {JSONL}, which is the training log")
    newest = list_checkpoints(run)[-1:]
    # A running training may have removed the file since.
    if any(not zipfile.is_zipfile(path) and path.exists() for path in newest):
        notes.append(f"{newest[0].name} is damaged; gan-train --resume --skip-damaged --run {run} continues before it")
    return notes


def _progress(kind: str, config: Any, step: int | None, lines: Sequence[Mapping[str, Any]]) -> str:
    """Returns the kind of a run and its steps, for classifiers also its epochs, with the totals if they are known."""
    names = {"gan": "GAN", "classifier": "classifier"}
    if step is None:
        return f"{names[kind]}, no step yet"
    if kind == "gan":
        return f"GAN, step {step}" + ("" if config is None else f" of {config.train.steps}")
    epochs = [line["epoch"] for line in lines if isinstance(line.get("epoch"), int | float)]
    total = "" if config is None else f" of {config.train.epochs}"
    return f"classifier, epoch {epochs[-1]:g}{total}, step {step}" if epochs else f"classifier, step {step}"


__all__ = ["FoundRun", "find_runs"]
