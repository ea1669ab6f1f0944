"""Evaluation of a GAN during training: writes a report each time and keeps the best checkpoint."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from evaluation import METRICS, Context, Report
from evaluation.metrics.needs import ranked
from evaluation.reporting import ranking
from evaluation.reporting.histograms import histograms
from gan.config import Config
from gan.measuring.checks import parse_metrics, user_errors
from gan.measuring.gans import Evaluation, evaluate_state
from gan.runs.best import Best
from gan.runs.checkpoint import save_best
from gan.runs.finding import JSONL, list_checkpoints, step_of
from gan.runtime.distributed import Processes
from gan.runtime.files import remove_parts, writing
from gan.training.state import TrainState

Measured = tuple[dict[str, float], dict[str, np.ndarray]]


def evaluator(
    config: Config, run: Path, state: TrainState, processes: Processes
) -> Callable[[Callable[[str], None]], Measured]:
    """Returns a function that measures eval.metrics of the state and returns values and histograms.

    The function also writes the report and, if train.keep_best is set, keeps the best checkpoint. Its argument prints a
    line of the log. Extractors and reference images are loaded and checked here, so that what is missing, does not fit,
    or is not what the run began with is reported before training.

    Raises:
        UserError: see `Evaluation.ready`; or train.keep_best names no value of these metrics and extractors.
    """
    names = parse_metrics(config.eval.metrics)
    evaluation = Evaluation(config, state.totals.device, processes)
    evaluation.real.expect(state, run, run)
    with user_errors():
        context = evaluation.ready(names, state)
    best = _best(config, run, state) if config.train.keep_best and processes.is_first else None
    context = context.of(None, protocol=evaluation.generation(state))
    known = {key: fields for name in names for key, fields in _ranked(name, context)}
    processes.first(lambda: None if best is None else best.check(known))

    def measure(say: Callable[[str], None]) -> Measured:
        report = evaluate_state(names, evaluation, state, None)
        processes.first(lambda: keep(report, say))
        return report.values, histograms(report)

    def keep(report: Report, say: Callable[[str], None]) -> None:
        folder = run / "reports" / f"{state.step:08d}"
        with writing(folder):  # without parents=True, so that a deleted run folder is not created again
            folder.parent.mkdir(exist_ok=True)
            folder.mkdir(exist_ok=True)
            remove_parts(folder)
        with user_errors():
            report.save(folder, training_log=run / JSONL)
        if best is not None:
            save = partial(save_best, run, config.model_dump(), state.state_dict())
            entries = report.protocol["values"]
            best.consider(report.values, entries, state.step, save)
            say(f"best {best}; now {report.values[best.key(entries)]:.4g}")

    return measure


def _ranked(name: str, context: Context) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the keys of the values of a metric that will be ranked, with protocol fields that are known before."""
    metric = METRICS[name]
    keys = ranked(name, metric, context.settings)
    fields = {"num_generated": context.required(metric.images["generated"]), **context.generation_fields()}
    if metric.images.get("reference") == "num_real":
        fields |= context.reference_fields()
    if not metric.extractor:
        yield from ((key, fields) for key in keys)
    for extractor in context.extractors if metric.extractor else ():
        if extractor.has_logits or metric.extractor != "logits":
            seen = context.seen_by(extractor)
            yield from ((seen.key(key), fields | seen.extractor_fields()) for key in keys)


def _best(config: Config, run: Path, state: TrainState) -> Best:
    """Returns the run's `Best`, which keeps earlier checkpoints too as long as a retry may roll back to them."""

    def back_to() -> list[int]:
        may_retry = len(state.retries) < config.train.retries
        return [step_of(path) for path in list_checkpoints(run)] if may_retry else []

    metric, better, differences = config.train.keep_best, ranking.is_better, ranking.differences
    return Best(run, metric, state.step, back_to=back_to, is_better=better, differences=differences)


__all__ = ["evaluator"]
