"""Finds runs, their checkpoints and records. Imports no torch, so that commands report a missing one at once."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from gan.config import Config
from gan.config.classifier import ClassifierConfig
from gan.config.loading import load
from gan.errors import CheckpointError, ConfigError

FOLDER = "checkpoints"
JSONL = "metrics.jsonl"
SUFFIX = ".safetensors"
EXPORTED = f"generator{SUFFIX}"
OF_EXPORTED = "gan-sample --checkpoint, gan-train --from and load_exported take them"
_NAME = re.compile(r"(?P<kind>step|best)-(?P<step>\d+)\.pt")


def list_checkpoints(run: Path) -> list[Path]:
    """Returns the checkpoints of a run, oldest first."""
    return _numbered(run, "step")


def best_checkpoints(run: Path) -> list[Path]:
    """Returns the best checkpoints of a run, oldest first; see gan.runs.best."""
    return _numbered(run, "best")


def step_of(path: Path) -> int:
    """Returns the step of a file from `list_checkpoints` or `best_checkpoints`."""
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match["step"])


def _numbered(run: Path, kind: str) -> list[Path]:
    found = [(match, path) for path in (run / FOLDER).glob("*.pt") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted((int(match["step"]), path) for match, path in found if match["kind"] == kind)]


def find_checkpoint(path: Path) -> Path:
    """Returns a checkpoint file unchanged, or the newest one of a run folder.

    Raises:
        CheckpointError: there is none; the message names the checkpoints in the same folder.
    """
    if path.is_file():
        return path
    if path.is_dir():
        checkpoints = list_checkpoints(path)
        if checkpoints:
            return checkpoints[-1]
        raise CheckpointError(f"{path}: holds no checkpoint ({FOLDER}/step-*.pt){_advice(path)}")
    beside = [other.name for other in sorted(path.parent.glob("*.pt"))]
    hint = f"; in the same folder: {', '.join(beside)}" if beside else ""
    raise CheckpointError(f"{path}: no such checkpoint or run folder{hint}")


def exported_folder(path: Path) -> Path | None:
    """Returns the folder of gan-export that `path`, or the file `path`, is or lies in; None for a run or checkpoint."""
    if path.suffix == SUFFIX:
        return path.parent
    return path if (path / EXPORTED).is_file() and not list_checkpoints(path) else None


def _advice(folder: Path) -> str:
    """Returns advice for a folder that is no run."""
    if exported_folder(folder) is not None:
        return f"; it holds exported networks: {OF_EXPORTED}"
    if folder.name == FOLDER and list_checkpoints(folder.parent):
        return f"; give the run, {folder.parent}"
    runs = [str(run) for run in sorted(_folders(folder)) if list_checkpoints(run)]
    return f"; give one of the runs in it: {', '.join(runs[:3])}{', ...' if len(runs) > 3 else ''}" if runs else ""


def newest_run(runs: Path = Path("runs"), identity: str = "", kind: str = "gan") -> Path:
    """Returns the run of this kind under `runs` that was saved last.

    Args:
        identity: if not empty, only runs with this identity are considered.
        kind: see `kind_of`.

    Raises:
        CheckpointError: no such run has a checkpoint.
    """
    found = [(checkpoints[-1].stat().st_mtime, run) for run in _folders(runs) if (checkpoints := list_checkpoints(run))]
    for _, run in sorted(found, reverse=True):
        if kind_of(run) == kind and identity in ("", identity_of(run)):
            return run
    raise CheckpointError(f"{runs}: contains no run with a checkpoint; train one, or give --run or --checkpoint")


def _folders(runs: Path) -> list[Path]:
    return list(runs.iterdir()) if runs.is_dir() else []


def identity_of(run: Path) -> str:
    """Returns the identity of a run's stored configuration, as this version computes it; "" without one."""
    kind = ClassifierConfig if kind_of(run) == ClassifierConfig.kind else Config
    try:
        return load(kind, run / "config.yaml").identity()
    except ConfigError:
        return ""


def kind_of(run: Path) -> str:
    """Returns the kind of a run, "gan" or "classifier"; "gan" if it is not stored, as in runs of earlier versions."""
    return str(read_record(run).get("kind", "gan"))


def read_record(run: Path) -> dict[str, Any]:
    """Returns the contents of run.json; {} if it is missing or invalid."""
    try:
        record = json.loads((run / "run.json").read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def read_log(run: Path) -> Iterator[dict[str, Any]]:
    """Yields the valid lines of metrics.jsonl, which may be missing or, after a killed run, end with half a line."""
    jsonl = run / JSONL
    if not jsonl.exists():
        return
    for text in jsonl.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(ValueError, KeyError, TypeError, OverflowError, RecursionError):
            record = json.loads(text)
            int(record["step"])
            yield record
