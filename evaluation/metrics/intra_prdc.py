"""Precision, recall, density and coverage within each class, and their means over classes.

A generator that ignores its labels may score high over all classes together, but not within them.
"""

import torch
from torch import Tensor

from evaluation.context import Context
from evaluation.metrics.precision_recall import prdc
from evaluation.reporting.value import Value
from evaluation.statistics.classes import ByClass, check_context

NAMES = ("precision", "recall", "f_score", "density", "coverage")


def intra_prdc(
    features: Tensor,
    labels: Tensor,
    reference: Tensor,
    reference_labels: Tensor,
    *,
    pr_neighbours: int = 3,
    dc_neighbours: int = 5,
) -> dict[str, Tensor]:
    """Computes `prdc` of generated and reference features for each class.

    Args:
        features, labels: features (N, D) and labels (N,) of generated images.
        reference, reference_labels: features (M, D) and labels (M,) of real images.
        pr_neighbours, dc_neighbours: see `prdc`.

    Returns:
        precision, recall, f_score, density, coverage: float64 (K,) each, in the order of the class numbers.

    Raises:
        EvaluationError: labels of a wrong shape, a class without more generated and reference images than neighbours,
            or features that are not finite.
    """
    fewest = max(pr_neighbours, dc_neighbours) + 1
    pairs = ByClass(features, labels, reference, reference_labels).pairs("intra_prdc", fewest=fewest)
    found = [prdc(real=y, fake=x, pr_neighbours=pr_neighbours, dc_neighbours=dc_neighbours) for x, y in pairs]
    return {name: torch.tensor([getattr(one, name) for one in found], dtype=torch.float64) for name in NAMES}


def check(context: Context) -> None:
    """Raises EvaluationError for a class with too few generated or reference images."""
    settings = context.settings
    check_context(context, "intra_prdc", fewest=max(settings.pr_neighbours, settings.dc_neighbours) + 1)


def measure(context: Context) -> list[Value]:
    """Measures means over classes, with the first `num_intra` generated and all reference images of each class."""
    images, settings = ByClass.of(context), context.settings
    k_pr, k_dc = settings.pr_neighbours, settings.dc_neighbours
    found = intra_prdc(*images, pr_neighbours=k_pr, dc_neighbours=k_dc)
    neighbours = {"density": k_dc, "coverage": k_dc}
    return [
        images.value(
            context,
            f"intra_{name}",
            float(per_class.mean()),
            per_class,
            better="higher",
            fields={"neighbours": neighbours.get(name, k_pr)},
        )
        for name, per_class in found.items()
    ]
