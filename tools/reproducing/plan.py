"""What tables and figures need: every run once, and what of it is to be measured."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from reproducing.catalogue import COLUMNS, FIGURES, TABLES
from reproducing.content import AnyModel, Bars, Classifier, Figure, Histograms, Table
from reproducing.estimate import Estimates
from reproducing.kinds import kind_of
from reproducing.runs import Run
from reproducing.scales import Scale

Metrics = tuple[str, ...]


class Artefact(NamedTuple):
    """A table or figure: its file's name and the models it shows, each with the groups of metrics it needs."""

    name: str
    content: Table | Figure
    needs: Sequence[tuple[AnyModel, tuple[Metrics, ...]]]


def artefact(kind: str, number: str) -> Artefact:
    """Table or figure of a number."""
    content: Table | Figure = TABLES[number] if kind == "table" else FIGURES[number]
    wanted: dict[AnyModel, dict[str, None]] = {}
    if isinstance(content, Table | Bars):
        for line in content.lines:
            shown = line.printed if isinstance(content, Table) else content.columns
            wanted.setdefault(line.model, {}).update(dict.fromkeys(COLUMNS[name].metric for name in shown))
    else:
        metrics = dict.fromkeys(content.metrics if isinstance(content, Histograms) else ())
        wanted = {model: metrics for members in content.panels.values() for model in members}
    needs = [(model, kind_of(model).groups_of(metrics, model)) for model, metrics in wanted.items()]
    return Artefact(f"{kind}-{number}", content, needs)


class Plan:
    """Every run that some tables and figures need, once, and what of it is to be measured.

    Args:
        overrides: of the settings of all runs.
        root: where runs are kept.
        architectures: of classifiers; others are left out, unless there is none.
    """

    def __init__(
        self,
        artefacts: Sequence[Artefact],
        seeds: Sequence[int],
        scale: Scale,
        overrides: tuple[str, ...],
        root: Path,
        architectures: Sequence[str] = (),
    ) -> None:
        self.seeds, self.scale, self.overrides, self.root = seeds, scale, overrides, root
        self.architectures = architectures
        self._runs: dict[AnyModel, list[Run]] = {}
        self.groups: dict[Run, dict[Metrics, None]] = {}
        known: dict[tuple[str, str], Run] = {}
        for model, groups in (need for each in artefacts for need in each.needs):
            for run in () if self.is_left_out(model) else self.runs_of(model):
                same = known.setdefault((run.identity, run.protocol), run)
                self.groups.setdefault(same, {}).update(dict.fromkeys(groups))

    def runs_of(self, model: AnyModel) -> list[Run]:
        """One for each seed."""
        if model not in self._runs:
            self._runs[model] = [Run.of(model, seed, self.scale, self.overrides, self.root) for seed in self.seeds]
        return self._runs[model]

    def is_left_out(self, model: AnyModel) -> bool:
        """A classifier of another architecture than those that are asked for."""
        if not (self.architectures and isinstance(model, Classifier)):
            return False
        return self.runs_of(model)[0].config.classifier.name not in self.architectures

    def rows(self, estimates: Estimates) -> Sequence[tuple[str, ...]]:
        """The plan as a table, with an estimate of the time for each run."""
        rows = [("run", "state", "training", "to be measured", "evaluation")]
        for run, groups in self.groups.items():
            missing = _missing(run, groups)
            parts = [estimates.evaluation(run, metrics) for metrics in missing]
            known = "" if all(whole for _, whole in parts) else "over "
            done = f"{round(run.progress.done, 1):.10g}"
            state = "trained" if run.is_trained else f"{run.kind.UNIT} {done} of {run.length}"
            training = "" if run.is_trained else minutes(estimates.training(run))
            names = "; ".join(",".join(metrics) for metrics in missing)
            evaluation = known + minutes(sum(seconds for seconds, _ in parts)) if missing else ""
            rows.append((run.folder.name, state, training, names, evaluation))
        return rows

    def seconds(self, estimates: Estimates) -> tuple[float, float]:
        """Of training and of evaluation that are missing, one run after the other."""
        training = sum(estimates.training(run) for run in self.groups)
        parts = (
            estimates.evaluation(run, part) for run, groups in self.groups.items() for part in _missing(run, groups)
        )
        return training, sum(seconds for seconds, _ in parts)


def _missing(run: Run, groups: Iterable[Metrics]) -> list[Metrics]:
    """What of a run is not measured yet."""
    return [metrics for metrics in groups if not run.is_measured(metrics)]


def minutes(seconds: float) -> str:
    """ "2.5 min"."""
    return f"{seconds / 60:.1f} min"
