"""The commands that are to be run, several at once, and what is remembered of them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import click

from gan.launch.several import Planned, run_all
from reproducing.measured import add_seconds
from reproducing.plan import Metrics
from reproducing.runs import Run


class Jobs:
    """Runs commands, notes how long they took, and keeps the last error of each run, by its identity."""

    def __init__(self, at_once: int, devices: Sequence[str]) -> None:
        self.at_once, self.devices = at_once, devices
        self.errors: dict[str, str] = {}
        self.stopped = False

    def do(self, jobs: Sequence[tuple[Path, str, Planned]], at_once: int) -> None:
        """Jobs: the run's folder, what its time is noted as, the command."""
        if self.stopped or not jobs:
            return
        ended = run_all([planned for _, _, planned in jobs], at_once, self._say)
        for (folder, name, planned), (status, seconds, stopped) in zip(jobs, ended, strict=True):
            if folder.is_dir() and seconds:
                add_seconds(folder, name, seconds)
            interrupted = stopped or status >= 128
            self.stopped |= interrupted
            if status and not interrupted:
                self.errors.setdefault(_identity(folder.name), f"{planned.module} ended with status {status}")

    def usable(self, groups: Mapping[Run, Iterable[Metrics]]) -> dict[Run, Iterable[Metrics]]:
        """Without runs that would lack something: why is known now, not after hours of training."""
        answers: dict[tuple[str, ...], str] = {}
        for run, wanted in groups.items():
            missing = sorted({name for metrics in wanted if not run.is_measured(metrics) for name in metrics})
            if run.is_trained and not missing:
                continue
            needed = (run.kind.needed(run.config), run.protocol, *missing)
            if needed not in answers:
                answers[needed] = run.obstacle(missing, self.devices[0])
            if answers[needed]:
                self.errors[run.identity] = answers[needed]
        return {run: wanted for run, wanted in groups.items() if run.identity not in self.errors}

    def train(self, runs: Iterable[Run]) -> None:
        missing = {run.identity: run for run in runs if not run.is_trained}.values()
        jobs = [(run.folder, "training", run.training(self._device(i))) for i, run in enumerate(missing)]
        self.do(jobs, self.at_once)

    def measure(self, groups: Mapping[Run, Iterable[Metrics]]) -> None:
        """The first of each kind alone: it fills the caches that the others then find."""
        alike: dict[Metrics, list[tuple[Path, str, Planned]]] = {}
        for run, wanted in groups.items():
            for metrics in wanted:
                if run.is_trained and not run.is_measured(metrics):
                    command = run.evaluation(metrics, self._device(len(alike.get(metrics, ()))))
                    alike.setdefault(metrics, []).append((run.folder, run.report(metrics).name, command))
        for jobs in alike.values():
            self.do(jobs[:1], 1)
        self.do([job for jobs in alike.values() for job in jobs[1:]], self.at_once)

    def _device(self, number: int) -> str:
        return self.devices[number % len(self.devices)]

    def _say(self, line: str) -> None:
        click.echo(line, err=True)
        name, _, text = line.partition("] ")
        if "error: " in text:
            self.errors[_identity(name)] = text.partition("error: ")[2]


def _identity(name: str) -> str:
    """Of a run, from its folder's name."""
    return name.rpartition("-")[2]
