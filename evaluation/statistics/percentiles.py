"""Percentiles of a sample, with bootstrap intervals."""

from typing import NamedTuple

import numpy as np

PERCENTILES = (50, 90, 95, 99)
RESAMPLES = 1_000
BLOCK = 100  # resamples in memory at a time


class Statistic(NamedTuple):
    """A statistic of a sample, with a 95 % interval where one is defined."""

    value: float
    interval: tuple[float, float] | None


def summarize(values: np.ndarray, *, seed: int = 0) -> dict[str, Statistic]:
    """Computes percentiles p50, p90, p95, p99 (linearly interpolated), mean and maximum of values (N,).

    Intervals are the 2.5th and 97.5th percentiles of the statistic over resamples with replacement (Efron & Tibshirani
    1993). The maximum has none, because resamples never exceed it.
    """
    values = np.sort(values.astype(np.float64))  # makes resamples independent of the given order
    random = np.random.default_rng(seed)
    rows = (random.integers(len(values), size=(BLOCK, len(values))) for _ in range(RESAMPLES // BLOCK))
    resampled = np.concatenate([_statistics(values[block]) for block in rows], axis=1)  # (5, RESAMPLES)
    low, high = np.percentile(resampled, (2.5, 97.5), axis=1).tolist()
    names = (*(f"p{percentile}" for percentile in PERCENTILES), "mean")
    found = {
        name: Statistic(value, interval)
        for name, value, interval in zip(names, _statistics(values).tolist(), zip(low, high, strict=True), strict=True)
    }
    return {**found, "max": Statistic(float(values[-1]), None)}


def _statistics(values: np.ndarray) -> np.ndarray:
    """Computes percentiles and mean (5, ...) of values (..., N)."""
    return np.stack([*np.percentile(values, PERCENTILES, axis=-1), values.mean(axis=-1)])
