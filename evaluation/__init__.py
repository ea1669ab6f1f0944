"""Metrics of generative image models on uint8 images, each value with the protocol that makes it comparable."""

from evaluation.context import Context, Settings
from evaluation.errors import EvaluationError
from evaluation.extractors import EXTRACTORS, Sources, build_extractor
from evaluation.frechet import Moments, frechet_distance, frechet_distance_of_features
from evaluation.metrics import METRICS
from evaluation.metrics.fid_infinity import fid_infinity
from evaluation.metrics.inception_score import inception_score
from evaluation.metrics.intra_fid import intra_fid
from evaluation.metrics.intra_kid import intra_kid
from evaluation.metrics.kid import kid, kid_of_all_pairs
from evaluation.metrics.neural_divergence import NeuralDivergence, neural_divergence
from evaluation.metrics.precision_recall import prdc
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
    "evaluate",
    "fid_infinity",
    "frechet_distance",
    "frechet_distance_of_features",
    "inception_score",
    "intra_fid",
    "intra_kid",
    "kid",
    "kid_of_all_pairs",
    "neural_divergence",
    "prdc",
]
