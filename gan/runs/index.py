"""Finds all runs below a folder and says how far each is, beside running trainings, too. Imports no torch."""

import os
import shlex
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gan.config import Config
from gan.config.classifier import ClassifierConfig
from gan.config.imported import recorded_imports
from gan.config.loading import load, training_settings
from gan.errors import CheckpointError, ConfigError
from gan.runs.finding import FOLDER, JSONL, kind_of, list_checkpoints, read_log, read_record, step_of

RECORD = "run.json"


class FoundRun(NamedTuple):
    """A run as far as it can be read.

    Attributes:
        folder: its folder.
        name: path of the folder below the one that was searched.
        kind: "gan" or "classifier".
        progress: text such as "GAN, step 2000 of 5000".
        notes: what is missing, cannot be read, or raised an alarm, a sentence each.
        settings: values of the settings that change training, by place.
        alarms: names of the alarms that have not ended.
        updated: time of the last log line, in seconds, if known.
    """

    folder: Path
    name: str
    kind: str = ""
    progress: str = ""
    notes: Sequence[str] = ()
    settings: Mapping[str, Any] = {}
    alarms: Sequence[str] = ()
    updated: float | None = None


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
            f"{folder}: holds no run (a folder with {RECORD}, {JSONL} or {FOLDER}/step-*.pt); give a folder of runs, "
            f"or train one with gan-train --run {shlex.quote(str(folder / 'NAME'))}"
        )
    runs_found = [_described(run, run.relative_to(folder).as_posix()) for run in found]
    for error in closed:
        path = Path(str(error.filename))
        runs_found.append(FoundRun(path, path.relative_to(folder).as_posix(), notes=[_reason(error)]))
    return sorted(runs_found, key=lambda run: run.name)


def _is_run(folder: Path) -> bool:
    try:
        return (folder / RECORD).exists() or (folder / JSONL).exists() or bool(list_checkpoints(folder))
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
        updated = (run / JSONL).stat().st_mtime if lines else None
    except OSError as error:
        return FoundRun(run, name, notes=[*notes, _reason(error)])
    if not checkpoints:
        notes.append("no checkpoint, so it cannot be measured or resumed yet")
    kind: type[Config] | type[ClassifierConfig] = ClassifierConfig if kind_of(run) == ClassifierConfig.kind else Config
    config = None
    if not (run / "config.yaml").is_file():
        notes.append("no config.yaml, so its length and its settings are unknown")
    else:
        try:
            config = load(kind, run / "config.yaml")
        except ConfigError as error:
            notes.append(f"its configuration cannot be read, so its length is unknown: {error}")
    steps = [*(int(line["step"]) for line in lines), *map(step_of, checkpoints[-1:])]
    alarms, texts = _alarms(lines)
    return FoundRun(
        run,
        name,
        kind.kind,
        _progress(kind.kind, config, max(steps, default=None), lines),
        [*texts, *notes],
        {} if config is None else _settings(config, run),
        alarms,
        updated,
    )


def _alarms(lines: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """Returns the names of the alarms that have not ended, and a sentence on every alarm of a log."""
    open_: dict[str, str] = {}
    texts = []
    for line in lines:
        name = line.get("alarm")
        if not isinstance(name, str):
            continue
        if line.get("begins"):
            open_[name] = f"step {line['step']}: {line.get('text', '')}"
        elif name in open_:
            texts.append(f"alarm {name}, until step {line['step']}, at {open_.pop(name)}")
    return list(open_), [*(f"alarm {name} since {text}" for name, text in open_.items()), *texts]


def _settings(config: Config | ClassifierConfig, run: Path) -> dict[str, Any]:
    """Returns the settings that change training, the data by their title, code of a user's own with its SHA-256."""
    found = {"data": config.data.shown, **dict(training_settings(config))}
    if found["data"] == found.get("data.name"):
        del found["data"]
    for record in recorded_imports(read_record(run).get("imports")):
        for place in found.keys() & record["names"].keys():
            found[place] = f"{found[place]} ({record['sha256'][:8]})"
    return found


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
        again = f"gan-train --resume --skip-damaged --run {shlex.quote(str(run))}"
        notes.append(f"{newest[0].name} is damaged; {again} continues before it")
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
