"""Plan of the runs and evaluations that tables and figures need, each once."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from evaluation.reporting.tables import text_table
from reproducing.example import LinearExample
from reproducing.paper import classifiers, gans
from reproducing.paper.appendix import APPENDIX
from reproducing.paper.bssn import BSSN_PAPER
from reproducing.paper.columns import COLUMNS
from reproducing.paper.content import Model, PaperContent
from reproducing.results import Seeds
from reproducing.runs import ModelRun
from reproducing.scales import Scale

Metrics = tuple[str, ...]


def _in_order(*parts: Mapping[str, PaperContent]) -> dict[str, PaperContent]:
    """Joins tables or figures and sorts them by number."""
    joined = {number: content for part in parts for number, content in part.items()}
    return {number: joined[number] for number in sorted(joined, key=int)}


TABLES = _in_order(gans.TABLES, classifiers.TABLES)
FIGURES = _in_order(gans.FIGURES, classifiers.FIGURES)


class ArtefactKind(NamedTuple):
    """One kind of artefacts.

    word: first word of their names.
    contents: contents by number or word.
    about: beginning of the option's help.
    """

    word: str
    contents: Mapping[str, PaperContent]
    about: str


KINDS = {
    "table": ArtefactKind("Table", TABLES, "Tables"),
    "figure": ArtefactKind("Figure", FIGURES, "Figures"),
    "bssn": ArtefactKind("BSSN", BSSN_PAPER, "Claims of the BSSN paper"),
    "srn_appendix": ArtefactKind("SRN", APPENDIX, "Claims of the SRN paper's appendices and section 3"),
}
"""Kinds of artefacts by option."""


class Artefact(NamedTuple):
    """A table or figure of the SRN paper, or a page on claims of either paper.

    name: name such as "Table 2" or "BSSN gradients".
    needs: its models, each with the groups of metrics to evaluate.
    """

    name: str
    content: PaperContent
    needs: Sequence[tuple[Model | LinearExample, tuple[Metrics, ...]]]


def artefact(kind: str, number: str) -> Artefact:
    """Artefact by its kind, a key of KINDS, and its number or word."""
    word, contents, _ = KINDS[kind]
    content = contents[number]
    wanted: dict[Model | LinearExample, dict[str, None]] = {}
    for line in content.lines:
        metrics = [COLUMNS[name].metric for name in content.measured(line)]
        wanted.setdefault(line.model, {}).update(dict.fromkeys(metrics))
    needs = [(model, model.groups(metrics)) for model, metrics in wanted.items()]
    return Artefact(f"{word} {number}", content, needs)


class Plan:
    """Runs that some tables and figures need, each once, with the metrics to evaluate.

    Args:
        overrides: overrides of the settings of all runs.
        root: folder of all runs.
        architectures: classifier architectures to include; empty: all.
        trained_only: whether to leave out runs whose training is not complete.
    """

    def __init__(
        self,
        artefacts: Sequence[Artefact],
        seeds: Sequence[int],
        scale: Scale,
        overrides: tuple[str, ...],
        root: Path,
        architectures: Sequence[str] = (),
        trained_only: bool = False,
    ) -> None:
        self.seeds, self.scale, self.overrides, self.root = seeds, scale, overrides, root
        self.architectures = architectures
        self.refused: set[str] = set()
        """Identities of runs whose results are not shown."""
        self._runs: dict[Model, list[ModelRun]] = {}
        self.groups: dict[ModelRun, dict[Metrics, None]] = {}
        known: dict[tuple[str, str], ModelRun] = {}
        for model, groups in (need for each in artefacts for need in each.needs):
            if isinstance(model, LinearExample):
                continue
            for run in () if self._is_left_out(model) else self.runs_of(model):
                if trained_only and not run.is_trained:
                    continue
                same = known.setdefault((run.identity, run.protocol), run)
                self.groups.setdefault(same, {}).update(dict.fromkeys(groups))

    def runs_of(self, model: Model) -> list[ModelRun]:
        """Runs of a model, one for each seed."""
        if model not in self._runs:
            self._runs[model] = [ModelRun.of(model, seed, self.scale, self.overrides, self.root) for seed in self.seeds]
        return self._runs[model]

    def _is_left_out(self, model: Model) -> bool:
        """Whether a model is a classifier of an architecture that is not included."""
        classifier = getattr(self.runs_of(model)[0].config, "classifier", None)
        return bool(self.architectures) and classifier is not None and classifier.name not in self.architectures

    def seeds_of(self, model: Model | LinearExample, groups: Iterable[Metrics]) -> Seeds:
        """The model's runs that are trained and have all metrics."""
        if isinstance(model, LinearExample):
            return Seeds(None, [model.measured(seed) for seed in self.seeds])
        groups, runs = list(groups), () if self._is_left_out(model) else self.runs_of(model)
        measured = (run.measured(groups) for run in runs if run.identity not in self.refused)
        return Seeds(self.runs_of(model)[0].config, [run for run in measured if run is not None])

    def describe(self) -> str:
        """Table of all runs with their state of training and missing metrics."""
        rows = [("run", "training", "metrics")]
        for run, groups in self.groups.items():
            training = "done" if run.is_trained else "" if run.step is None else f"resumes at step {run.step}"
            missing = [metrics for metrics in groups if not run.is_measured(metrics)]
            rows.append((run.folder.name, training or "to do", "; ".join(",".join(metrics) for metrics in missing)))
        untrained = sum(training != "done" for _, training, _ in rows[1:])
        return "\n".join([*text_table(rows), f"{len(self.groups)} runs, {untrained} to train"])
