"""Metrics of generative image models on uint8 images, each value with the protocol that makes it comparable."""

from evaluation.context import Context, Settings
from evaluation.errors import EvaluationError
from evaluation.extractors import EXTRACTORS, Sources, build_extractor, build_extractors
from evaluation.images.cache import Cache
from evaluation.metrics import METRICS
from evaluation.metrics.fid_infinity import fid_infinity
from evaluation.metrics.inception_score import inception_score
from evaluation.metrics.intra_fid import intra_fid
from evaluation.metrics.intra_kid import intra_kid
from evaluation.metrics.intra_prdc import intra_prdc
from evaluation.metrics.kid import kid, kid_of_all_pairs
from evaluation.metrics.lipschitz import empirical_lipschitz, jacobian_norms
from evaluation.metrics.neural_divergence.divergence import NeuralDivergence, neural_divergence
from evaluation.metrics.precision_recall import prdc
from evaluation.presets import PROTOCOLS
from evaluation.reporting.report import Report
from evaluation.runner import evaluate
from evaluation.statistics.frechet import Moments, frechet_distance, frechet_distance_of_features
from evaluation.statistics.moments_file import Statistics, read_statistics

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
    "fid_infinity",
    "frechet_distance",
    "frechet_distance_of_features",
    "inception_score",
    "intra_fid",
    "intra_kid",
    "intra_prdc",
    "jacobian_norms",
    "kid",
    "kid_of_all_pairs",
    "neural_divergence",
    "prdc",
    "read_statistics",
]
