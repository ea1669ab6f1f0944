"""Nearest reference images of a few samples, which show whether a generator copies its training set."""

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from evaluation.context import Context
from evaluation.errors import EvaluationError

NUM_SAMPLES = 16
NUM_NEIGHBOURS = 5
CHUNK = 4096  # reference rows converted to float64 at a time


class Neighbours(NamedTuple):
    """The k nearest rows of a set, nearest first."""

    distances: Tensor  # Euclidean, float64 (N, k)
    rows: Tensor  # int64 (N, k)


class View(NamedTuple):
    """Samples and reference images, as an extractor's features or as pixels."""

    name: str
    samples: Tensor  # (N, D)
    reference: Tensor  # (M, D)
    unit: float  # factor from feature units to the unit of reported distances


def nearest_neighbours(queries: Tensor, references: Tensor, k: int = NUM_NEIGHBOURS) -> Neighbours:
    """Finds the k nearest rows of `references` (M, D) for each of `queries` (N, D), of any dtype; fewer if M < k.

    Distances are computed from q - r, not from |q|^2 + |r|^2 - 2 qr, so that a copy has distance 0.

    Raises:
        EvaluationError: no rows, or different D.
    """
    if queries.ndim != 2 or references.ndim != 2 or queries.shape[1] != references.shape[1] or not len(references):
        raise EvaluationError(
            f"nearest_neighbours: got shapes {tuple(queries.shape)} and {tuple(references.shape)}, "
            "expected (N, D) and (M, D) with M > 0"
        )
    queries = queries.double().cpu()
    parts = [
        torch.cdist(queries, chunk.double().cpu(), compute_mode="donot_use_mm_for_euclid_dist")
        for chunk in references.split(CHUNK)
    ]
    distances, rows = torch.cat(parts, dim=1).sort(dim=1, stable=True)  # (N, M)
    return Neighbours(distances[:, :k], rows[:, :k])


def copy_ratios(found: Neighbours, references: Tensor) -> Tensor:
    """Computes the copy ratios of queries, float64 (N,).

    A ratio is the distance of a query to its nearest reference row, over the distance of that row to its own nearest
    row. It is about 1 or more for a query from the same distribution, near 0 for a copy, and NaN if the nearest
    reference row has a duplicate.

    Args:
        found: `nearest_neighbours` of the queries.

    Raises:
        EvaluationError: fewer than two reference rows.
    """
    if len(references) < 2:
        raise EvaluationError(f"copy_ratios: got {len(references)} reference rows, expected at least 2")
    nearest = references[found.rows[:, 0].to(references.device)]
    apart = nearest_neighbours(nearest, references, 2).distances[:, 1]
    return torch.where(apart > 0, found.distances[:, 0] / apart, torch.nan)


def sample_neighbours(context: Context) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns arrays for a report and a record of the method; both empty without generated or reference images.

    Distances are between features already extracted from both sets, else between pixels in [0, 1]. Extracts no
    features.

    Returns:
        neighbour_samples uint8 (n, C, H, W) and, if known, neighbour_labels (n,); neighbours uint8 (n, 5, C, H, W),
        neighbour_rows (n, 5) in the reference images as given, neighbour_distances (n, 5), neighbour_ratios (n,).
    """
    if context.generated is None or context.reference is None:
        return {}, {}
    view = _view(context)
    reference = context.image_set("reference")
    labels = None if context.generated_labels is None else context.labels("generated", len(view.samples))
    chosen = _choose(len(view.samples), labels)
    found = nearest_neighbours(view.samples[chosen], view.reference)
    rows = found.rows if reference.order is None else reference.order[found.rows]
    arrays = {
        "neighbour_samples": context.generated[chosen.to(context.generated.device)].cpu().numpy(),
        "neighbours": context.reference[rows.to(context.reference.device)].cpu().numpy(),
        "neighbour_rows": rows.numpy(),
        "neighbour_distances": (found.distances * view.unit).numpy(),
    }
    if labels is not None:
        arrays["neighbour_labels"] = labels[chosen].numpy()
    record = {"features": view.name, "num_reference": len(view.reference), "reference": context.reference_name}
    if len(view.reference) > 1:
        ratios = copy_ratios(found, view.reference)
        arrays["neighbour_ratios"] = ratios.numpy()
        record["median_ratio"] = None if bool(ratios.isnan().all()) else float(ratios.nanmedian())
    return arrays, record


def _view(context: Context) -> View:
    """Returns the features of the first extractor that has them for both sets, else pixels."""
    for extractor in context.extractors:
        seen = {role: context.image_set(role).num_seen(extractor) for role in ("generated", "reference")}
        if all(seen.values()):
            samples, known = (context.seen_by(extractor).features(role, count) for role, count in seen.items())
            return View(extractor.name, samples, known, 1.0)
    generated, reference = context.image_set("generated"), context.image_set("reference")
    count = min(context.num_real, len(reference))
    return View(
        "whole images, pixels in [0, 1]",
        generated.first(len(generated)).flatten(1),
        reference.first(count).flatten(1),
        1 / 255,
    )


def _choose(count: int, labels: Tensor | None) -> Tensor:
    """Returns the rows of the first samples; with labels equally many of each class, ordered by class."""
    if labels is None:
        return torch.arange(min(NUM_SAMPLES, count), device="cpu")
    seen: Counter[int] = Counter()
    places = []
    for row, label in enumerate(labels.tolist()):
        places.append((seen[label], label, row))
        seen[label] += 1
    first = sorted(places)[:NUM_SAMPLES]
    return torch.tensor([row for _, _, row in sorted(first, key=lambda place: (place[1], place[0]))], device="cpu")
