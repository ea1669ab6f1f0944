"""Values, losses and times of one trained run."""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from evaluation import Report
from evaluation.errors import EvaluationError
from evaluation.reporting.plots import Curves, read_curves
from gan.runtime.files import write_atomically

RECORD = "reproduce.json"
LAST_PART = 0.5  # last share of the steps, over which the steadiness of a loss is measured

Values = Mapping[str, tuple[float, dict[str, Any]]]
"""Values by key, each with its protocol entry: "fields" and "hash"."""
NOTHING: Values = {}


class MeasuredRun:
    """A trained and evaluated run.

    Args:
        folder: folder of the run.
        reports: folders of its reports.
        logged: values from its training log.
    """

    def __init__(self, folder: Path, reports: Sequence[Path], logged: Values = NOTHING) -> None:
        self.folder, self.reports, self.logged = folder, list(reports), logged

    @cached_property
    def report(self) -> Report:
        """All reports merged into one."""
        parts = [Report.load(folder) for folder in self.reports]
        values = {key: value for part in parts for key, value in part.values.items()}
        entries = {key: entry for part in parts for key, entry in part.protocol["values"].items()}
        arrays = {name: array for part in parts for name, array in part.arrays.items()}
        return Report(values, arrays, parts[0].protocol | {"values": entries})

    @cached_property
    def values(self) -> Values:
        """Values of all reports and of the training log."""
        if not self.reports:
            return self.logged
        entries = self.report.protocol["values"]
        return {**self.logged, **{key: (value, entries[key]) for key, value in self.report.values.items()}}

    def find(self, pattern: str) -> tuple[str, float, dict[str, Any]] | None:
        """Key, value and protocol entry of the first value whose key matches; None without a match."""
        key = next((key for key in self.values if re.fullmatch(pattern, key)), None)
        return None if key is None else (key, *self.values[key])

    @cached_property
    def curves(self) -> Curves:
        """Losses over the steps; empty for an untrained network."""
        try:
            return read_curves(self.folder / "metrics.jsonl")
        except EvaluationError:
            return {}

    @property
    def training_seconds(self) -> float:
        """Wall-clock seconds of training, including start and end of all its processes."""
        return float(sum(read_seconds(self.folder).get("training", ())))

    @property
    def evaluation_seconds(self) -> float:
        """Wall-clock seconds of all evaluations, including start and end of the processes."""
        seconds = read_seconds(self.folder)
        return float(sum(sum(seconds.get(report.name, ())) for report in self.reports))

    @cached_property
    def device(self) -> str:
        """Device and number of threads used in training."""
        record = json.loads((self.folder / "run.json").read_text(encoding="utf-8"))
        threads = record.get("threads")
        return f"{record['device']}, {threads} thread{'s' if threads != 1 else ''}"


def read_seconds(run: Path) -> dict[str, list[float]]:
    """Seconds of each process as recorded by `add_seconds`, by "training" or the name of a report."""
    file = run / RECORD
    found: dict[str, list[float]] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return found


def add_seconds(run: Path, name: str, seconds: float) -> None:
    """Records the seconds of one process under "training" or the name of a report."""
    noted = read_seconds(run)
    noted.setdefault(name, []).append(round(seconds, 1))
    write_atomically(run / RECORD, json.dumps(noted, indent=1).encode())


Measure = Callable[[MeasuredRun], float]


def value_of(pattern: str) -> Measure:
    """Measure that reads the value whose key matches; NaN without a match."""

    def measure(run: MeasuredRun) -> float:
        found = run.find(pattern)
        return math.nan if found is None else found[1]

    return measure


def unevenness(run: MeasuredRun, where: str = "") -> float:
    """Absolute log ratio of the 95th percentiles of Jacobian norms at real and at generated images.

    Args:
        where: "" for the images themselves, "_near" for points near them.
    """
    real, fake = (value_of(rf"jacobian/{images}{where}/p95")(run) for images in ("real", "fake"))
    return abs(math.log(real / fake)) if real > 0 and fake > 0 else math.nan


def steadiness(run: MeasuredRun) -> float:
    """Standard deviation of the discriminator's logged losses around a fitted line over the last half of a run."""
    if "d_loss" not in run.curves:
        return math.nan
    steps, losses = run.curves["d_loss"]
    late = steps > steps[-1] * (1 - LAST_PART)
    line = np.polyval(np.polyfit(steps[late], losses[late], 1), steps[late])
    return float(np.std(losses[late] - line))
