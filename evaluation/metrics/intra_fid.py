"""Intra-FID: FID within each class, and its mean over classes. Miyato and Koyama 2018."""

import torch
from torch import Tensor

from evaluation.context import Context
from evaluation.reporting.value import Value
from evaluation.statistics.classes import ByClass, check_context
from evaluation.statistics.frechet import frechet_distance_of_features

FEWEST = 2  # images of a class that have a covariance


def intra_fid(features: Tensor, labels: Tensor, reference: Tensor, reference_labels: Tensor) -> tuple[float, Tensor]:
    """Fréchet distance of generated and reference features of one class: the mean over classes, and each.

    Args:
        features, labels: of generated images, (N, D) and (N,).
        reference, reference_labels: of real images, (M, D) and (M,).

    Returns:
        mean, distances float64 (K,) in the order of the class numbers.

    Raises:
        EvaluationError: labels of another shape, a class that one side has no or only one image of, or features that
            are not finite.
    """
    pairs = ByClass(features, labels, reference, reference_labels).pairs("intra_fid", fewest=FEWEST)
    distances = torch.tensor([frechet_distance_of_features(y, x) for x, y in pairs], dtype=torch.float64)
    return float(distances.mean()), distances


def check(context: Context) -> None:
    """Refuses a class that one side has too few images of.

    Raises:
        EvaluationError: naming the class.
    """
    check_context(context, "intra_fid", fewest=FEWEST)


def measure(context: Context) -> list[Value]:
    """Intra-FID of the first `num_intra` generated images of each class against all reference images of it."""
    images = ByClass.of(context)
    return [images.value(context, "intra_fid", *intra_fid(*images), better="lower")]
