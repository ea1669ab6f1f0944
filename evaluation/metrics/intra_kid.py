"""Intra-KID, the mean over classes of the KID within each class, over all pairs of images.

Unlike Intra-FID it is unbiased, so it does not depend on the number of images per class. Prefer it for small classes,
such as the 500 images per class of CIFAR-100.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from evaluation.context import Context
from evaluation.metrics.kid import FEWEST, kid_of_all_pairs
from evaluation.reporting.value import Value
from evaluation.statistics.classes import ByClass
from evaluation.statistics.intervals import normal_interval


class IntraKid(NamedTuple):
    """Mean over classes, its standard error, and the KID of each class, float64 (K,)."""

    mean: float
    standard_error: float
    per_class: Tensor


def intra_kid(features: Tensor, labels: Tensor, reference: Tensor, reference_labels: Tensor) -> IntraKid:
    """Computes KID between generated and reference features of each class.

    Args:
        features, labels: features (N, D) and labels (N,) of generated images.
        reference, reference_labels: features (M, D) and labels (M,) of real images.

    Raises:
        EvaluationError: labels of a wrong shape, a class with fewer than three generated or reference images, or
            features that are not finite.
    """
    pairs = ByClass(features, labels, reference, reference_labels).pairs("intra_kid", fewest=FEWEST)
    values, errors = torch.tensor([kid_of_all_pairs(x, y) for x, y in pairs], dtype=torch.float64).T
    return IntraKid(float(values.mean()), float(errors.square().sum().sqrt()) / len(errors), values.contiguous())


def measure(context: Context) -> list[Value]:
    """Measures Intra-KID of the first `num_intra` generated images of each class against all its reference images."""
    images = ByClass.of(context)
    result = intra_kid(*images)
    return [
        images.value(
            context,
            "intra_kid",
            result.mean,
            result.per_class,
            better="lower",
            record={"interval": "delete-one jackknife within each class, normal"},
            interval=normal_interval(result.mean, result.standard_error),
        )
    ]
