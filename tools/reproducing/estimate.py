"""How long runs will take: by what like runs took, or by a few units of training and images tried here."""

import statistics
from collections.abc import Iterable

import torch

from reproducing.measured import read_seconds
from reproducing.runs import Run
from reproducing.work import Costs


class Estimates:
    """Seconds of training and of evaluation of runs.

    Args:
        runs: those that are planned; what is noted of them counts for all that are like them.
        device: where they will train; there is tried what is not known, on one thread, as several runs at once have.
    """

    def __init__(self, runs: Iterable[Run], device: torch.device) -> None:
        self.device = device
        self._per_unit: dict[str, float] = {}
        self._reports: dict[tuple[str, str], list[float]] = {}
        self._tried: dict[str, Costs] = {}
        for run in runs:
            noted, done = read_seconds(run.folder), run.progress.done
            if done and "training" in noted:
                self._per_unit[_work(run)] = sum(noted["training"]) / done
            for name, seconds in noted.items():
                self._reports.setdefault((_work(run), name), []).append(sum(seconds))

    def training(self, run: Run) -> float:
        """Of the units that a run lacks; where it may stop earlier, at most."""
        missing = 0.0 if run.is_trained else max(0.0, run.length - run.progress.done)
        per_unit = self._per_unit.get(_work(run)) if missing else 0.0
        return missing * (self._costs(run).unit if per_unit is None else per_unit)

    def evaluation(self, run: Run, metrics: tuple[str, ...]) -> tuple[float, bool]:
        """Of some metrics, and whether that is all: before a like run is measured, images' time alone is."""
        found = self._reports.get((_work(run), run.report(metrics).name))
        if found:
            return statistics.fmean(found), True
        return run.kind.num_images(run.config, metrics) * self._costs(run).image, False

    def _costs(self, run: Run) -> Costs:
        work = _work(run)
        if work not in self._tried:
            self._tried[work] = run.kind.tried(run.config, self.device)
        return self._tried[work]


def _work(run: Run) -> str:
    return run.kind.work(run.config)
