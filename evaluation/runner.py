"""Measures the metrics of a context and builds the report."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from evaluation.context import Context
from evaluation.errors import check_names
from evaluation.metrics import METRICS
from evaluation.metrics.needs import Metric, check_extractors, check_images
from evaluation.reporting.neighbours import sample_neighbours
from evaluation.reporting.report import Report
from evaluation.reporting.value import Value
from evaluation.runtime.isolation import isolated
from evaluation.runtime.machine import machine, timed
from evaluation.runtime.processes import by_the_first

NUM_SAMPLES = 64
SAMPLES_PER_CLASS = 8


def evaluate(metrics: Sequence[str], context: Context) -> Report:
    """Measures the named metrics. Restores random states, precision flags and train/eval modes.

    Raises:
        EvaluationError: an unknown metric, or a context without the images or networks that a metric needs.
    """
    check_metrics(metrics)
    for name in metrics:
        check_images(name, METRICS[name], context)
    for name in metrics:
        check_extractors(name, METRICS[name], context)
    with isolated():
        values, seconds = timed(metrics, lambda name: _measured(METRICS[name], context))
        neighbours, found_by = sample_neighbours(context)
    return Report.of(
        values,
        arrays=_samples(context) | neighbours,
        title=context.title,
        subject={
            **context.subject,
            "generated_fingerprint": context.image_set("generated").fingerprint if context.has("generated") else None,
        },
        machine=machine(
            context.device,
            batch_size=context.settings.batch_size,
            seconds=seconds,
            extractors=[{"name": extractor.name, **extractor.record} for extractor in context.extractors],
        ),
        class_names=context.class_names,
        neighbours=found_by,
    )


def _measured(metric: Metric, context: Context) -> list[Value]:
    """Measures a metric with each extractor that provides the features or logits it needs.

    With several processes, all of them have all features; metrics without features run only in the first process.
    """
    if not metric.extractor:
        return by_the_first(lambda: metric.measure(context))
    able = [one for one in context.extractors if one.has_logits or metric.extractor != "logits"]
    return [value for extractor in able for value in metric.measure(context.seen_by(extractor))]


def check_metrics(metrics: Sequence[str]) -> None:
    """Raises EvaluationError for an empty list or an unknown metric."""
    check_names("metrics", metrics, METRICS)


def _samples(context: Context) -> dict[str, np.ndarray]:
    """Returns generated and reference images for the report: the first of each class where labels are known.

    Without labels, reference images are taken at equal distances, because data sets may be sorted by class.
    """
    if context.generated is None:
        return {}
    first = torch.arange(min(NUM_SAMPLES, len(context.generated)), device="cpu")
    arrays = _chosen(context.generated, context.generated_labels, first, "sample")
    if context.reference is not None:
        labels = context.reference_labels if context.generated_labels is not None else None
        count = len(context.reference)
        spread = torch.arange(min(NUM_SAMPLES, count), device="cpu") * count // min(NUM_SAMPLES, count)
        arrays |= _chosen(context.reference, labels, spread, "reference_sample")
    return arrays


def _chosen(images: Tensor, labels: Tensor | None, rows: Tensor, name: str) -> dict[str, np.ndarray]:
    """Returns the arrays "<name>s" and, with labels, "<name>_labels": of each class, else of these rows."""
    rows = rows if labels is None else _by_class(labels)
    arrays = {f"{name}s": images[rows.to(images.device)].cpu().numpy()}
    if labels is not None:
        arrays[f"{name}_labels"] = labels.cpu()[rows].numpy()
    return arrays


def _by_class(labels: Tensor) -> Tensor:
    labels = labels.cpu()
    rows = [(labels == label).nonzero()[:SAMPLES_PER_CLASS, 0] for label in labels.unique()[:NUM_SAMPLES]]
    return torch.cat(rows)
