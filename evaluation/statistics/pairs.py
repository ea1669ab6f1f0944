"""Pairs of images, drawn by class."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from evaluation.errors import EvaluationError


def rows_by_class(labels: Tensor, num_classes: int, name: str, advice: str = "give more") -> list[Tensor]:
    """Returns the rows of each class's images; raises EvaluationError with `advice` if a class has fewer than two."""
    rows = [(labels == label).nonzero()[:, 0] for label in range(num_classes)]
    for label, found in enumerate(rows):
        if len(found) < 2:
            raise EvaluationError(
                f"{name} images: got {len(found)} of class {label} among {len(labels)}, expected at least 2 of each "
                f"class for pairs within it; {advice}, or leave metric elhist out"
            )
    return rows


def pairs_across(
    first: Sequence[Tensor], second: Sequence[Tensor], classes: Tensor, generator: torch.Generator
) -> Tensor:
    """Draws pairs across two sets: rows (P, 2), both images of pair i from class `classes[i]`.

    The order is random, and an image repeats only after all images of its class have been drawn.

    Args:
        first, second: rows of each class's images in the two sets.
        classes: int64 (P,).
    """
    return _by_class(
        classes,
        lambda label, count: torch.stack([_singles(rows[label], count, generator) for rows in (first, second)], dim=1),
    )


def pairs_within(rows: Sequence[Tensor], classes: Tensor, generator: torch.Generator) -> Tensor:
    """Draws pairs of two different images of one set; for order and repetitions see `pairs_across`."""
    return _by_class(classes, lambda label, count: _couples(rows[label], count, generator))


def _by_class(classes: Tensor, draw: Callable[[int, int], Tensor]) -> Tensor:
    pairs = torch.empty(len(classes), 2, dtype=torch.int64, device="cpu")
    for label in classes.unique().tolist():
        chosen = classes == label
        pairs[chosen] = draw(label, int(chosen.sum()))
    return pairs


def _singles(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return torch.cat([_shuffled(rows, generator) for _ in range(0, count, len(rows))])[:count]


def _couples(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    even = len(rows) // 2 * 2  # of an odd number of images, each permutation leaves one out
    return torch.cat([_shuffled(rows, generator)[:even].view(-1, 2) for _ in range(0, count, even // 2)])[:count]


def _shuffled(rows: Tensor, generator: torch.Generator) -> Tensor:
    return rows[torch.randperm(len(rows), generator=generator, device="cpu")]
