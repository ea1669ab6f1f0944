"""Values of one model over several seeds: mean, spread and common protocol."""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from scipy.stats import t as student

from evaluation.errors import EvaluationError
from evaluation.reporting.ranking import DIGITS, differences
from reproducing.measured import Measure, MeasuredRun

CONFIDENCE = 0.75  # level of the paper's confidence intervals
VERDICTS = ("as in the paper", "reversed", "undecided, as in the paper", "undecided, reversed")


class Spread(NamedTuple):
    """Mean and standard deviation over seeds.

    std: sample standard deviation, with n - 1; NaN for one seed.
    """

    mean: float
    std: float
    num_seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Spread of some values; the mean of none is NaN."""
        std = statistics.stdev(values) if len(values) > 1 else math.nan
        return cls(statistics.fmean(values) if values else math.nan, std, len(values))

    def __str__(self) -> str:
        return self.text(deviation)

    def text(self, reach: "Reach") -> str:
        """Text such as "8.53 ± 0.12"; the mean alone for one seed."""
        if math.isnan(self.mean):
            return "–"
        return f"{self.mean:.4g}" + ("" if math.isnan(reach(self)) else f" ± {reach(self):.2g}")


Reach = Callable[[Spread], float]
"""Function that computes the number shown after ±."""


def deviation(spread: Spread) -> float:
    """Standard deviation over seeds."""
    return spread.std


def half_interval(spread: Spread) -> float:
    """Half of the mean's 75 % confidence interval by Student's t, t_{0.875, n - 1} std / sqrt(n); NaN for one seed."""
    if spread.num_seeds < 2:
        return math.nan
    quantile = float(student.ppf((1 + CONFIDENCE) / 2, spread.num_seeds - 1))
    return quantile * spread.std / math.sqrt(spread.num_seeds)


class Seeds(NamedTuple):
    """Trained and evaluated runs of one model, with their configuration apart from the seed."""

    config: Any
    runs: Sequence[MeasuredRun]


class Ours(NamedTuple):
    """One value over seeds.

    fields: fields of its protocol.
    protocol: first digits of the protocol's hash.
    """

    spread: Spread
    values: tuple[float, ...]
    key: str
    fields: dict[str, Any]
    protocol: str


def over_seeds(runs: Sequence[MeasuredRun], pattern: str) -> Ours | None:
    """Value whose key matches, over all seeds that have it; None if no seed has it.

    Raises:
        EvaluationError: seeds were measured by different protocols.
    """
    found = [value for value in (run.find(pattern) for run in runs) if value is not None and not math.isnan(value[1])]
    if not found:
        return None
    key, _, entry = found[0]
    for other, _, another in found[1:]:
        if (other, another["hash"]) != (key, entry["hash"]):
            raise EvaluationError(f"{key}: seeds were measured by different protocols: {differences(entry, another)}")
    values = tuple(value for _, value, _ in found)
    return Ours(Spread.of(values), values, key, entry["fields"], entry["hash"][:DIGITS])


def verdict(smaller: Spread, larger: Spread, reach: Reach = deviation) -> str:
    """One of VERDICTS on an order of the paper; the spread is the sum of both numbers after ±, unknown for one seed."""
    same = smaller.mean < larger.mean
    if abs(smaller.mean - larger.mean) > reach(smaller) + reach(larger):
        return VERDICTS[0] if same else VERDICTS[1]
    return VERDICTS[2] if same else VERDICTS[3]


def of_all(runs: Sequence[MeasuredRun], measure: Measure) -> list[float]:
    """Values of a measure for all runs that have it."""
    return [value for value in map(measure, runs) if not math.isnan(value)]
