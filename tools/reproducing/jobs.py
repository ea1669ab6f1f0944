"""Executes the commands of missing runs and evaluations in parallel, and records their times and errors."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import click

from gan.errors import UserError
from gan.launch.several import Planned, run_all
from reproducing.measured import add_seconds
from reproducing.plan import Metrics
from reproducing.reused import PresentImages
from reproducing.runs import ModelRun


class Jobs:
    """Executes commands, records their times, and keeps the last error of each run by its identity.

    Attributes:
        refused: identities of runs whose stored results must not be shown.
    """

    def __init__(self, at_once: int, devices: Sequence[str]) -> None:
        self.at_once, self.devices = at_once, devices
        self.errors: dict[str, str] = {}
        self.identities: dict[str, str] = {}  # by name of the run folder
        self.stopped = False
        self.refused: set[str] = set()

    def execute(self, jobs: Sequence[tuple[Path, str, Planned]], at_once: int) -> None:
        """Executes jobs, each a run folder, a name under which to record the time, and a command."""
        if self.stopped or not jobs:
            return
        ended = run_all([planned for _, _, planned in jobs], at_once, self._say)
        for (folder, name, planned), (status, seconds, stopped) in zip(jobs, ended, strict=True):
            if folder.is_dir() and seconds:
                add_seconds(folder, name, seconds)
            interrupted = stopped or status >= 128
            self.stopped |= interrupted
            if status and not interrupted:
                self.errors.setdefault(self.identities[folder.name], f"{planned.module} ended with status {status}")

    def usable(self, groups: Mapping[ModelRun, Iterable[Metrics]]) -> dict[ModelRun, Iterable[Metrics]]:
        """Returns the runs whose data, names and extractors are available; records an error for each of the others.

        Stored runs of other images than the present ones are added to `refused`.
        """
        self.identities |= {run.folder.name: run.identity for run in groups}
        answers: dict[tuple[str, ...], str] = {}
        present = PresentImages()
        for run, wanted in groups.items():
            try:
                present.check(run)
            except UserError as error:
                self.errors[run.identity] = str(error)
                self.refused.add(run.identity)
                continue
            missing = sorted({name for metrics in wanted if not run.is_measured(metrics) for name in metrics})
            if run.is_trained and not missing:
                continue
            data = run.config.model_dump_json(include={"data", "conditional"})
            needed = (run.model.evaluation_module, data, run.protocol, *missing)
            if needed not in answers:
                answers[needed] = self._obstacle(run, missing)
            if answers[needed]:
                self.errors[run.identity] = answers[needed]
                click.echo(f"{run.folder.name}: will be left out: {answers[needed]}", err=True)
        for reason in present.unreadable:
            click.echo(f"stored runs are not compared with the present images: {reason}", err=True)
        return {run: wanted for run, wanted in groups.items() if run.identity not in self.errors}

    def _obstacle(self, run: ModelRun, metrics: list[str]) -> str:
        """Reason why a run cannot be trained or measured; "" if it can."""
        try:
            run.model.check(run.config, metrics, self.devices[0])
        except (UserError, OSError) as error:
            return str(error)
        return ""

    def train(self, runs: Iterable[ModelRun]) -> None:
        """Trains all runs that are not yet trained."""
        missing = {run.identity: run for run in runs if not run.is_trained}.values()
        jobs = [(run.folder, "training", run.training(self._device(i))) for i, run in enumerate(missing)]
        self.execute(jobs, self.at_once)

    def measure(self, groups: Mapping[ModelRun, Iterable[Metrics]]) -> None:
        """Evaluates missing metrics, first of one run per group of metrics to fill the caches, then of all others."""
        alike: dict[Metrics, list[tuple[Path, str, Planned]]] = {}
        for run, wanted in groups.items():
            for metrics in wanted:
                if run.is_trained and not run.is_measured(metrics):
                    command = run.evaluation(metrics, self._device(len(alike.get(metrics, ()))))
                    alike.setdefault(metrics, []).append((run.folder, run.report(metrics).name, command))
        for jobs in alike.values():
            self.execute(jobs[:1], 1)
        self.execute([job for jobs in alike.values() for job in jobs[1:]], self.at_once)

    def _device(self, number: int) -> str:
        return self.devices[number % len(self.devices)]

    def _say(self, line: str) -> None:
        click.echo(line, err=True)
        name, _, text = line.partition("] ")
        if "error: " in text:
            self.errors[self.identities[name.removeprefix("[")]] = text.partition("error: ")[2]
