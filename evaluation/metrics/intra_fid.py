"""Intra-FID, the mean over classes of the FID within each class (Miyato and Koyama 2018)."""

import torch
from torch import Tensor

from evaluation.context import Context
from evaluation.reporting.value import Value
from evaluation.statistics.classes import ByClass
from evaluation.statistics.frechet import frechet_distance_of_features

FEWEST = 2  # images per class that a covariance requires


def intra_fid(features: Tensor, labels: Tensor, reference: Tensor, reference_labels: Tensor) -> tuple[float, Tensor]:
    """Computes the Fréchet distance between generated and reference features of each class.

    Args:
        features, labels: features (N, D) and labels (N,) of generated images.
        reference, reference_labels: features (M, D) and labels (M,) of real images.

    Returns:
        The mean over classes, and the distances, float64 (K,), in the order of the class numbers.

    Raises:
        EvaluationError: labels of a wrong shape, a class with fewer than two generated or reference images, or features
            that are not finite.
    """
    pairs = ByClass(features, labels, reference, reference_labels).pairs("intra_fid", fewest=FEWEST)
    distances = torch.tensor([frechet_distance_of_features(y, x) for x, y in pairs], dtype=torch.float64)
    return float(distances.mean()), distances


def measure(context: Context) -> list[Value]:
    """Measures Intra-FID of the first `num_intra` generated images of each class against all its reference images."""
    images = ByClass.of(context)
    return [images.value(context, "intra_fid", *intra_fid(*images), better="lower")]
