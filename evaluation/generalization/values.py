"""Registry of measures. A measure computes values of a case, with their protocols and arrays over all images."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from evaluation.generalization.case import Case
from evaluation.generalization.lipschitz import global_lipschitz, local_lipschitz
from evaluation.generalization.measures import complexity_of, log_jac_norm
from evaluation.generalization.noise import noise_sensitivity
from evaluation.reporting.value import Value
from evaluation.statistics.pairs import pairs_within
from evaluation.statistics.percentiles import RESAMPLES, Statistic, summarize

MARGIN = "f(x)[y] - max over j != y of f(x)[j]"
EXACT = {
    "layers": "linear and convolution layers; without biases, batch normalization, shortcuts that have no weight",
    "matrix": "(output units, everything else)",
    "singular_values": "exact, float64",
}
COMPLEXITIES: dict[str, dict[str, Any]] = {
    "spec_fro": EXACT,
    "spec_l1": {**EXACT, "norm_21": "sum of the norms of rows", "over_spectral_norm": True},
    "jac_norm": {
        "hidden": "inputs of linear and convolution layers, but of the first called; an input that is shared, once",
        "gradients": "of the margin, along all paths",
    },
}


def accuracy(case: Case) -> list[Value]:
    """Measures the accuracy, overall and per class, and the mean cross-entropy."""
    logits, labels = case.logits, case.points[1].cpu()
    correct = (logits.argmax(1) == labels).double()
    losses = F.cross_entropy(logits, labels, reduction="none")
    classes, counts = labels.unique(return_counts=True)
    per_class = torch.stack([correct[labels == label].mean() for label in classes])
    fields = case.fields(case.settings.num_points, labels=True)
    return [
        *_values(
            case,
            "accuracy",
            {"": _mean(case, correct)},
            len(correct),
            {**fields, "right": "the largest logit, the first of equals, is the label's"},
            better="higher",
            record={"classes": [{"images": count} for count in counts.tolist()]},
            arrays={"per_class": per_class, "classes": classes},
        ),
        *_values(
            case,
            "loss",
            {"": _mean(case, losses)},
            len(losses),
            {**fields, "loss": "mean cross-entropy of softmax, natural logarithm, in float64"},
            better="lower",
            arrays={"by_image": losses},
        ),
    ]


def margin(case: Case) -> list[Value]:
    """Measures the mean and percentiles of margins, which scale with the logits, and the fraction of margins <= 0."""
    margins = case.margins
    fields = {**case.fields(case.settings.num_points, labels=True), "margin": MARGIN}
    found = _summary(case, margins, "mean", "p50", "p90")
    statistics = {"mean": found.pop("mean"), "p10": _negated(_summary(case, -margins, "p90")["p90"]), **found}
    wrong = {"not_positive": _mean(case, (margins <= 0).double())}
    return [
        *_values(case, "margin", statistics, len(margins), fields, arrays={"value": margins}),
        *_values(case, "margin", wrong, len(margins), fields, better="lower"),
    ]


def complexity(case: Case) -> list[Value]:
    """Measures 90th percentiles of the logarithms of Spec-Fro, Spec-L1, Jac-Norm, and the fraction without a value."""
    images, labels = case.points
    jac_norm = log_jac_norm(case.network, images, labels, batch_size=case.settings.batch_size)
    found = complexity_of(case.margins, case.layers, jac_norm)
    common = {
        **case.fields(case.settings.num_points, labels=True),
        "margin": MARGIN,
        "margin_not_positive": "left out",
        "logarithm": "natural",
    }
    values: list[Value] = []
    for name, definition in COMPLEXITIES.items():
        kind, logs = f"complexity/{name}", getattr(found, name)
        kept = logs[logs.isfinite()]
        record = {"left_out": len(logs) - len(kept), "note": "" if len(kept) else f"{kind}: no image has a value"}
        statistics, fields = _summary(case, kept, "p90"), {**common, **definition}
        values += _values(
            case, kind, statistics, len(kept), fields, better="lower", record=record, arrays={"log": logs}
        )
    excluded = {"excluded": _mean(case, (found.margin <= 0).double())}
    return [*values, *_values(case, "complexity", excluded, len(images), common, better="lower")]


def noise(case: Case) -> list[Value]:
    """Measures the maximum, mean and 90th percentile of the noise sensitivity over images."""
    settings = case.settings
    images, _ = case.some(settings.num_noise)
    found = noise_sensitivity(
        case.network, images, draws=settings.draws, seed=settings.seed, batch_size=settings.batch_size
    )
    finite = found.sensitivity.isfinite()
    kept, zero = found.sensitivity[finite], int((~finite).sum())
    fields = {
        **case.fields(settings.num_noise, labels=False),
        "sensitivity": "E |f(x + eta |x|) - f(x)|^2 / |f(x)|^2",
        "eta": "standard normal",
        "draws": settings.draws,
        "noise_seed": settings.seed,
    }
    record = {
        "bias": "as a maximum of estimates, the maximum is biased upwards",
        "mean_standard_error": float(found.standard_error[finite].mean()) if settings.draws > 1 else None,
        "note": f"noise: {zero} images are left out because their logits are 0" if zero else "",
    }
    statistics = _summary(case, kept, "max", "mean", "p90")
    return _values(case, "noise", statistics, len(kept), fields, better="lower", record=record, arrays=found._asdict())


def local_constants(case: Case) -> list[Value]:
    """Measures local Lipschitz constants, the spectral and Frobenius norms of the logits' Jacobian at each image."""
    settings = case.settings
    images, _ = case.some(settings.num_local)
    found = local_lipschitz(case.network, images, batch_size=settings.batch_size)
    fields = {**case.fields(settings.num_local, labels=False), "jacobian": "of the logits by the image, Euclidean"}
    values: list[Value] = []
    for name, norms in found._asdict().items():
        statistics = _summary(case, norms, "mean", "p95", "max")
        values += _values(case, f"local/{name}", statistics, len(norms), fields, arrays={"norm": norms})
    return values


def global_constants(case: Case) -> list[Value]:
    """Measures empirical Lipschitz constants of random pairs of images."""
    settings, count = case.settings, len(case.images)
    generator = torch.Generator("cpu").manual_seed(settings.seed)
    one_class = torch.zeros(settings.num_pairs, dtype=torch.int64, device="cpu")
    rows = pairs_within([torch.arange(count, device="cpu")], one_class, generator)  # (P, 2)
    x, y = (case.images[side.to(case.images.device)] for side in rows.unbind(1))
    found = global_lipschitz(case.network, x, y, batch_size=settings.batch_size)
    kept = found.ratio[found.ratio.isfinite()]
    equal = len(rows) - len(kept)
    fields = {
        **case.network_fields,
        **case.data,
        "num_images": count,
        "num_pairs": settings.num_pairs,
        "pairs": "two images out of all, at random; none again before all have come",
        "pairs_seed": settings.seed,
        "ratio": "|f(x) - f(y)|_2 / |x - y|_2",
    }
    note = f"global: {equal} pairs are left out because their images are equal" if equal else ""
    record, statistics = {"counted": "pairs", "note": note}, _summary(case, kept, "mean", "p95", "max")
    return _values(case, "global", statistics, len(kept), fields, record=record, arrays=found._asdict(), over="pairs")


def spectra(case: Case) -> list[Value]:
    """Measures sums over layers of stable ranks and of log spectral norms, and the mean of stable rank over rank."""
    layers = case.layers
    norms = np.array([layer.spectral_norm for layer in layers])
    ranks = np.array([layer.stable_rank for layer in layers])
    shapes = np.array([layer.shape for layer in layers])  # (L, 2)
    normalized = ranks / shapes.min(axis=1)
    totals = {
        "stable_rank_sum": ranks.sum(),
        "log_spectral_norm_sum": np.log(norms).sum(),
        "normalized_stable_rank_mean": normalized.mean(),
    }
    statistics = {name: Statistic(float(total), None) for name, total in totals.items()}
    arrays = {"spectral_norm": norms, "stable_rank": ranks, "normalized_stable_rank": normalized, "shape": shapes}
    fields = {**case.network_fields, **EXACT, "normalized": "over min(rows, columns)"}
    record = {"counted": "layers", "layers": [layer.name for layer in layers]}
    return _values(case, "spectra", statistics, len(layers), fields, record=record, arrays=arrays)


def _summary(case: Case, values: Tensor, *names: str) -> dict[str, Statistic]:
    """Returns the named statistics of finite values (n,); NaN if there are none."""
    found = summarize(values.numpy(), seed=case.settings.seed) if len(values) else {}
    return {name: found.get(name, Statistic(math.nan, None)) for name in names}


def _mean(case: Case, values: Tensor) -> Statistic:
    return _summary(case, values, "mean")["mean"]


def _negated(statistic: Statistic) -> Statistic:
    """Converts the 90th percentile of negated values to the 10th percentile of the values."""
    low, high = statistic.interval or (math.nan, math.nan)
    return Statistic(-statistic.value, (-high, -low))


def _values(
    case: Case,
    kind: str,
    statistics: Mapping[str, Statistic],
    count: int,
    fields: Mapping[str, Any],
    *,
    better: str = "",
    record: Mapping[str, Any] | None = None,
    arrays: Mapping[str, Tensor | np.ndarray] | None = None,
    over: str = "images",
) -> list[Value]:
    """Builds the values of one sample and adds their arrays.

    Values are named "kind/statistic", or "kind" for the statistic "", and arrays "kind/array".
    """
    named = {f"{kind}/{name}": np.asarray(array) for name, array in (arrays or {}).items()}
    method = f"95 %, percentile bootstrap over {over}, {RESAMPLES:,} resamples, seed {case.settings.seed}"
    return [
        Value(
            key=f"{kind}/{name}" if name else kind,
            value=value,
            std=None,
            count=count,
            better=better,
            fields=dict(fields),
            record={**(record or {}), **({"interval": method} if interval else {})},
            arrays=named,
            interval=interval,
        )
        for name, (value, interval) in statistics.items()
    ]


class Measure(NamedTuple):
    """A measure of a classifier.

    layers: whether all weights must be in linear and convolution layers.
    fewest: smallest number of images.
    """

    values: Callable[[Case], list[Value]]
    layers: bool = False
    fewest: int = 1


MEASURES: dict[str, Measure] = {
    "accuracy": Measure(accuracy),
    "margin": Measure(margin),
    "complexity": Measure(complexity, layers=True),
    "noise": Measure(noise),
    "local": Measure(local_constants),
    "global": Measure(global_constants, fewest=2),
    "spectra": Measure(spectra, layers=True),
}
