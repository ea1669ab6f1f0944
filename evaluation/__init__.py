"""Metrics of generative image models on uint8 images, each value with the protocol that makes it comparable."""

from evaluation.context import Context, Settings
from evaluation.errors import EvaluationError
from evaluation.extractors import EXTRACTORS, Sources, build_extractor
from evaluation.frechet import Moments, frechet_distance, frechet_distance_of_features
from evaluation.metrics import METRICS
from evaluation.metrics.inception_score import inception_score
from evaluation.metrics.lipschitz import empirical_lipschitz, jacobian_norms
from evaluation.metrics.neural_divergence import NeuralDivergence, neural_divergence
from evaluation.report import Report
from evaluation.runner import evaluate

__all__ = [
    "EXTRACTORS",
    "METRICS",
    "Context",
    "EvaluationError",
    "Moments",
    "NeuralDivergence",
    "Report",
    "Settings",
    "Sources",
    "build_extractor",
    "empirical_lipschitz",
    "evaluate",
    "frechet_distance",
    "frechet_distance_of_features",
    "inception_score",
    "jacobian_norms",
    "neural_divergence",
]
