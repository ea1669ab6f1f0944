"""What tables and figures need: every run once, and what of it is to be measured."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from reproducing.estimate import Estimates
from reproducing.paper import COLUMNS, FIGURES, TABLES, Figure, Histograms, Model, Table
from reproducing.runs import Run, Scale

Metrics = tuple[str, ...]
SCORES = ("fid", "is")


class Artefact(NamedTuple):
    """A table or figure: its file's name and the models it shows, each with the groups of metrics it needs."""

    name: str
    content: Table | Figure
    needs: Sequence[tuple[Model, tuple[Metrics, ...]]]


def groups_of(metrics: Iterable[str], model: Model) -> tuple[Metrics, ...]:
    """Metrics that are measured together: scores share their images' features; the others stand alone."""
    scores = (*SCORES, "intra_fid") if "_cond_" in model.config else SCORES
    found = dict.fromkeys(scores if metric in scores else (metric,) for metric in metrics)
    return tuple(found)


def artefact(kind: str, number: str) -> Artefact:
    """Table or figure of a number."""
    content: Table | Figure = TABLES[number] if kind == "table" else FIGURES[number]
    if isinstance(content, Table):
        needs = [
            (line.model, groups_of([COLUMNS[name].metric for name in line.printed], line.model))
            for line in content.lines
        ]
    else:
        metrics = content.metrics if isinstance(content, Histograms) else ()
        models = dict.fromkeys(model for members in content.panels.values() for model in members)
        needs = [(model, groups_of(metrics, model)) for model in models]
    return Artefact(f"{kind}-{number}", content, needs)


class Plan:
    """Every run that some tables and figures need, once, and what of it is to be measured."""

    def __init__(
        self, artefacts: Sequence[Artefact], seeds: Sequence[int], scale: Scale, overrides: tuple[str, ...], root: Path
    ) -> None:
        self.seeds, self.scale, self.overrides, self.root = seeds, scale, overrides, root
        self.groups: dict[Run, dict[Metrics, None]] = {}
        known: dict[tuple[str, str], Run] = {}
        for model, groups in (need for each in artefacts for need in each.needs):
            for run in self.runs_of(model):
                same = known.setdefault((run.identity, run.protocol), run)
                self.groups.setdefault(same, {}).update(dict.fromkeys(groups))

    def runs_of(self, model: Model) -> list[Run]:
        """One for each seed."""
        return [Run.of(model, seed, self.scale, self.overrides, self.root) for seed in self.seeds]

    def rows(self, estimates: Estimates) -> Sequence[tuple[str, ...]]:
        """The plan as a table, with an estimate of the time for each run."""
        rows = [("run", "state", "training", "to be measured", "evaluation")]
        for run, groups in self.groups.items():
            missing = _missing(run, groups)
            parts = [estimates.evaluation(run, metrics) for metrics in missing]
            known = "" if all(whole for _, whole in parts) else "over "
            state = "trained" if run.is_trained else f"step {run.step or 0} of {run.config.train.steps}"
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
