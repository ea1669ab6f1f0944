"""Gradients, variances and stable ranks of a discriminator's layers along its training, from the training log.

Gradients are those of the weights that the network uses: the size of a stored weight that is normalized is arbitrary.
"""

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from torch import nn

from evaluation.reporting.plots import Curves
from gan.build import build_discriminator
from gan.config import load_config
from gan.errors import UserError
from gan.normalization.layers import layers
from gan.runs.finding import read_log
from gan.runs.gradients import read_gradients
from reproducing.measured import MeasuredRun

NONE = 1e-12
"""Stands for a gradient of zero, which has no logarithm; the hinge loss has it if it is saturated for all images."""
LAST = 0.25  # last share of the steps, over which values are those of the end
WHOLE, SMALLEST = "used/all", "used/smallest"
PANELS = {
    "gradients": {
        WHOLE: "gradient of the loss, all weights in use",
        SMALLEST: "the same, of the layer where it is smallest",
        "slopes/real_mean": "gradient of D(x) in x, real images",
        "slopes/fake_mean": "gradient of D(x) in x, generated images",
        "saturated/real": "share of real images without gradient",
        "saturated/fake": "share of generated images without gradient",
    },
    "gradients by layer": {"gradients_used/": "gradient of the loss, "},
    "variances by layer": {"lecun/": "variance * fan_in, "},
    "stable ranks by layer": {"share/": "stable rank as a share of the original, "},
}
"""Titles of panels by tag, or by the beginning of the tags of layers, by the kind of a figure."""


@cache
def training_curves(run: Path) -> Curves:
    """Curves of a run by tag, see `gan.runs.gradients.read_gradients`; empty for a run without them.

    Added, all of weights in use: WHOLE and SMALLEST, the norm of the loss's gradient in all of them and in that where
    it is smallest; lecun/LAYER, the variance in units of LeCun's 1 / fan_in; share/LAYER, the stable rank as a share of
    the initial weight's before normalization, for layers where that is above 1.
    """
    try:
        found = read_gradients(run)
    except UserError:
        return {}
    used = by_layer(found, "gradients_used")
    steps = next(iter(used.values()))[0]
    norms = np.stack([values for _, values in used.values()])  # (layers, steps)
    curves = {**found, WHOLE: (steps, np.linalg.norm(norms, axis=0)), SMALLEST: (steps, norms.min(axis=0))}
    inputs = fan_ins(run)
    for name, (steps, values) in by_layer(found, "variance").items():
        curves[f"lecun/{name}"] = steps, values * inputs[name]
    initial = by_layer(found, "stable_rank")
    for name, (steps, values) in by_layer(found, "stable_rank_normalized").items():
        if initial[name][1][0] > 1:
            curves[f"share/{name}"] = steps, values / initial[name][1][0]
    return curves


def by_layer(curves: Curves, beginning: str) -> Curves:
    """Curves of the layers whose tags begin with a word, by layer."""
    found = {
        tag.removeprefix(f"{beginning}/"): curve for tag, curve in curves.items() if tag.startswith(f"{beginning}/")
    }
    return {name: curve for name, curve in found.items() if (beginning, name) != ("gradients", "whole")}


def fan_ins(run: Path) -> dict[str, int]:
    """Number of inputs of an output unit, by layer of a run's unconditional discriminator."""
    network = build_discriminator(load_config(run / "config.yaml"), 0)
    return {name: _fan_in(layer) for name, layer in layers(network)}


def _fan_in(layer: nn.Module) -> int:
    if isinstance(layer, nn.Linear):
        return layer.in_features
    assert isinstance(layer, nn.Conv2d), layer
    return layer.in_channels // layer.groups * math.prod(layer.kernel_size)


def log10(value: float) -> float:
    """Decimal logarithm of a norm; that of `NONE` for smaller ones."""
    return math.log10(max(value, NONE))


def largest_gradient(run: MeasuredRun) -> float:
    """Decimal logarithm of the largest norm of the whole gradient at any logged step; NaN without one."""
    curves = training_curves(run.folder)
    return log10(curves[WHOLE][1].max()) if curves else math.nan


def smallest_at_start(run: MeasuredRun) -> float:
    """Decimal logarithm of the smallest layer's gradient at the first logged step; NaN without one."""
    curves = training_curves(run.folder)
    return log10(curves[SMALLEST][1][0]) if curves else math.nan


def smallest_at_end(run: MeasuredRun) -> float:
    """Decimal logarithm of the smallest layer's gradient, median over the last quarter; NaN without a log of it."""
    curves = training_curves(run.folder)
    if not curves:
        return math.nan
    steps, values = curves[SMALLEST]
    return log10(float(np.median(values[steps >= (1 - LAST) * steps[-1]])))


def fall(run: MeasuredRun) -> float:
    """Orders of magnitude by which the smallest layer's gradient falls from the start to the last quarter."""
    return smallest_at_start(run) - smallest_at_end(run)


def distance_from_lecun(run: MeasuredRun) -> float:
    """Mean over layers of |log2(variance * fan_in)| at the first logged step; NaN without one."""
    return _mean_over_layers(run, "lecun", lambda values: abs(math.log2(values[0])))


def drift_of_variance(run: MeasuredRun) -> float:
    """Mean over layers of |log2(variance at the last logged step / at the first)|; NaN without one."""
    return _mean_over_layers(run, "variance", lambda values: abs(math.log2(values[-1] / values[0])))


def rank_at(place: int) -> Callable[[MeasuredRun], float]:
    """Measure of the layers' mean stable rank as a share of the original, in per cent.

    Args:
        place: 0 for the first logged step, -1 for the last.
    """
    return lambda run: 100 * _mean_over_layers(run, "share", lambda values: float(values[place]))


def _mean_over_layers(run: MeasuredRun, beginning: str, of: Callable[[np.ndarray], float]) -> float:
    found = by_layer(training_curves(run.folder), beginning).values()
    return float(np.mean([of(values) for _, values in found])) if found else math.nan


def bound_at(place: int) -> Callable[[MeasuredRun], float]:
    """Measure of the number of layers whose stable rank a bound lowers; NaN without a log of it.

    Args:
        place: 0 for the first logged step, -1 for the last.
    """

    def measure(run: MeasuredRun) -> float:
        counts = [
            sum(row["active"] for row in record["layers"]) for record in read_log(run.folder) if "layers" in record
        ]
        return counts[place] if counts else math.nan

    return measure
