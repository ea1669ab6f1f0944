"""Metrics of generative image models on uint8 images, each value with the protocol that makes it comparable."""

from evaluation.cache import Cache
from evaluation.context import Context, Settings
from evaluation.errors import EvaluationError
from evaluation.extractors import EXTRACTORS, Sources, build_extractor, build_extractors
from evaluation.frechet import Moments, frechet_distance, frechet_distance_of_features
from evaluation.metrics import METRICS
from evaluation.metrics.inception_score import inception_score
from evaluation.metrics.lipschitz import empirical_lipschitz, jacobian_norms
from evaluation.metrics.neural_divergence import NeuralDivergence, neural_divergence
from evaluation.presets import PROTOCOLS
from evaluation.report import Report
from evaluation.runner import evaluate
from evaluation.statistics import Statistics, read_statistics

__all__ = [
    "EXTRACTORS",
    "METRICS",
    "PROTOCOLS",
    "Cache",
    "Context",
    "EvaluationError",
    "Moments",
    "NeuralDivergence",
    "Report",
    "Settings",
    "Sources",
    "Statistics",
    "build_extractor",
    "build_extractors",
    "empirical_lipschitz",
    "evaluate",
    "frechet_distance",
    "frechet_distance_of_features",
    "inception_score",
    "jacobian_norms",
    "neural_divergence",
    "read_statistics",
]
