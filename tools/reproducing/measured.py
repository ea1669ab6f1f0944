"""What a trained run has to show: the values of its reports, its losses, its conditions."""

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
LAST_PART = 0.5  # of a run, over which a loss is called steady or not

Values = Mapping[str, tuple[float, dict[str, Any]]]
"""By key: a value, and its entry in a report's protocol, of which "fields" and "hash" are used here."""
NOTHING: Values = {}


class Measured:
    """A run that is trained and evaluated.

    Args:
        folder: of the run.
        reports: folders of its reports.
        logged: values that its training has logged.
    """

    def __init__(self, folder: Path, reports: Sequence[Path], logged: Values = NOTHING) -> None:
        self.folder, self.reports, self.logged = folder, list(reports), logged

    @cached_property
    def report(self) -> Report:
        """All reports as one."""
        parts = [Report.load(folder) for folder in self.reports]
        values = {key: value for part in parts for key, value in part.values.items()}
        entries = {key: entry for part in parts for key, entry in part.protocol["values"].items()}
        arrays = {name: array for part in parts for name, array in part.arrays.items()}
        return Report(values, arrays, parts[0].protocol | {"values": entries})

    @cached_property
    def values(self) -> Values:
        """Of all reports, and those that training has logged."""
        if not self.reports:
            return self.logged
        entries = self.report.protocol["values"]
        return {**self.logged, **{key: (value, entries[key]) for key, value in self.report.values.items()}}

    def find(self, pattern: str) -> tuple[str, float, dict[str, Any]] | None:
        """The first value whose key matches: key, value, entry."""
        key = next((key for key in self.values if re.fullmatch(pattern, key)), None)
        return None if key is None else (key, *self.values[key])

    @cached_property
    def curves(self) -> Curves:
        """Losses over the steps; empty where there are none, as of an untrained network."""
        try:
            return read_curves(self.folder / "metrics.jsonl")
        except EvaluationError:
            return {}

    @property
    def training_seconds(self) -> float:
        """On the clock, with start and end of the process, over all its interruptions."""
        return float(sum(read_seconds(self.folder).get("training", ())))

    @property
    def evaluation_seconds(self) -> float:
        """Of its reports, likewise."""
        seconds = read_seconds(self.folder)
        return float(sum(sum(seconds.get(report.name, ())) for report in self.reports))

    @cached_property
    def device(self) -> str:
        record = json.loads((self.folder / "run.json").read_text(encoding="utf-8"))
        threads = record.get("threads")
        return f"{record['device']}, {threads} thread{'s' if threads != 1 else ''}"


def read_seconds(run: Path) -> dict[str, list[float]]:
    """What `add_seconds` has noted in a run's folder."""
    file = run / RECORD
    found: dict[str, list[float]] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return found


def add_seconds(run: Path, name: str, seconds: float) -> None:
    """Notes how long one process took for the "training" of a run, or for a report of some name."""
    noted = read_seconds(run)
    noted.setdefault(name, []).append(round(seconds, 1))
    write_atomically(run / RECORD, json.dumps(noted, indent=1).encode())


def value_of(pattern: str) -> Callable[[Measured], float]:
    """The measure that reads the value whose key matches; NaN where there is none."""

    def measure(run: Measured) -> float:
        found = run.find(pattern)
        return math.nan if found is None else found[1]

    return measure


def unevenness(run: Measured) -> float:
    """|log| of the ratio of two 95th percentiles of Jacobian norms: near real images, near generated images."""
    real, fake = (value_of(rf"jacobian/{where}_near/p95")(run) for where in ("real", "fake"))
    return abs(math.log(real / fake))


def steadiness(run: Measured) -> float:
    """Standard deviation of the discriminator's logged losses around their line, in the last half of a run."""
    if "d_loss" not in run.curves:
        return math.nan
    steps, losses = run.curves["d_loss"]
    late = steps > steps[-1] * (1 - LAST_PART)
    line = np.polyval(np.polyfit(steps[late], losses[late], 1), steps[late])
    return float(np.std(losses[late] - line))
