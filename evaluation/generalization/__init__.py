"""Measures of a classifier's generalization: margins, complexities, noise sensitivity, Lipschitz constants.

Sanyal et al. 2020, sections 3 and 5.2. All functions accept any torch classifier, a module that maps images to logits
(N, K), and do not change it.
"""

from evaluation.generalization.classifier import Margin
from evaluation.generalization.lipschitz import JacobianNorms, global_lipschitz, local_lipschitz
from evaluation.generalization.measures import (
    Complexity,
    complexity,
    log_jac_norm,
    log_spec_fro,
    log_spec_l1,
    margins,
)
from evaluation.generalization.noise import NoiseSensitivity, noise_sensitivity, sensitivity_to
from evaluation.generalization.plots import plot_complexity
from evaluation.generalization.report import check_measures, measure
from evaluation.generalization.spectra import LayerSingularValues, layer_spectra
from evaluation.generalization.values import MEASURES, Measure
from evaluation.settings import MeasureSettings

__all__ = [
    "MEASURES",
    "Complexity",
    "JacobianNorms",
    "LayerSingularValues",
    "Margin",
    "Measure",
    "MeasureSettings",
    "NoiseSensitivity",
    "check_measures",
    "complexity",
    "global_lipschitz",
    "layer_spectra",
    "local_lipschitz",
    "log_jac_norm",
    "log_spec_fro",
    "log_spec_l1",
    "margins",
    "measure",
    "noise_sensitivity",
    "plot_complexity",
    "sensitivity_to",
]
