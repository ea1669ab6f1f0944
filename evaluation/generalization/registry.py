"""What can be measured of a classifier, by name. A measure is a function of a case that returns values."""

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
from evaluation.pairs import pairs_within
from evaluation.percentiles import RESAMPLES, Statistic, summarize
from evaluation.report import Value

MARGIN = "f(x)[y] - max over j != y of f(x)[j]"
MATRIX = "(output units, everything else)"  # how a weight is read
LAYERS = "linear and convolution layers; without biases, batch normalization, shortcuts that have no weight"


class Measure(NamedTuple):
    """How to measure, and whether weights outside of linear and convolution layers leave it undefined."""

    values: Callable[[Case], list[Value]]
    layers: bool = False


def accuracy(case: Case) -> list[Value]:
    """The share of images whose largest logit is that of their label, with the share of each class, and the loss."""
    logits, labels = case.logits, case.points[1].cpu()
    right = (logits.argmax(1) == labels).double()
    losses = F.cross_entropy(logits, labels, reduction="none")
    classes = labels.unique()
    counts = [int((labels == label).sum()) for label in classes]
    by_class = {
        "accuracy/per_class": np.array([float(right[labels == label].mean()) for label in classes]),
        "accuracy/classes": classes.numpy(),
    }
    fields = case.fields(case.settings.num_points, labels=True)
    share, loss = (_summary(case, one)["mean"] for one in (right, losses))
    return [
        Value(
            "accuracy",
            share.value,
            None,
            len(right),
            "higher",
            {**fields, "right": "the largest logit, the first of equals, is the label's"},
            {"interval": _obtained(case), "classes": [{"images": count} for count in counts]},
            by_class,
            share.interval,
        ),
        Value(
            "loss",
            loss.value,
            None,
            len(losses),
            "lower",
            {**fields, "loss": "mean cross-entropy of softmax, natural logarithm, in float64"},
            {"interval": _obtained(case)},
            {"loss/by_image": losses.numpy()},
            loss.interval,
        ),
    ]


def margin(case: Case) -> list[Value]:
    """Its mean and percentiles, which scale with the logits, and the share of images where it is not positive."""
    margins = case.margins
    fields = {**case.fields(case.settings.num_points, labels=True), "margin": MARGIN}
    upper, lower = _summary(case, margins), _summary(case, -margins)["p90"]
    low, high = lower.interval or (math.nan, math.nan)
    statistics = {
        "mean": upper["mean"],
        "p10": Statistic(-lower.value, (-high, -low)),  # the 90th percentile of the negated
        "p50": upper["p50"],
        "p90": upper["p90"],
    }
    wrong = (margins <= 0).double()
    return [
        *_values(case, "margin", statistics, len(margins), fields, arrays={"value": margins}),
        *_values(case, "margin", {"not_positive": _summary(case, wrong)["mean"]}, len(margins), fields, better="lower"),
    ]


def complexity(case: Case) -> list[Value]:
    """The 90th percentiles of the logarithms of Spec-Fro, Spec-L1 and Jac-Norm, and the fraction without a value."""
    images, labels = case.points
    layers = case.layers
    jac_norm = log_jac_norm(case.network, images, labels, batch_size=case.settings.batch_size)
    found = complexity_of(case.margins, layers, jac_norm)
    common = {
        **case.fields(case.settings.num_points, labels=True),
        "margin": MARGIN,
        "margin_not_positive": "left out",
        "logarithm": "natural",
    }
    product = {**common, "layers": LAYERS, "matrix": MATRIX, "singular_values": "exact, float64"}
    fields = {
        "spec_fro": product,
        "spec_l1": {**product, "norm_21": "sum of row norms", "over_spectral_norm": True},
        "jac_norm": {
            **common,
            "hidden": "inputs of linear and convolution layers but the first called; a shared one once",
            "gradients": "of the margin, along all paths",
        },
    }
    values = []
    for name in ("spec_fro", "spec_l1", "jac_norm"):
        logs = getattr(found, name)
        kept = logs[logs.isfinite()]
        statistics = {"p90": _summary(case, kept)["p90"]}
        kind = f"complexity/{name}"
        record = {"note": "" if len(kept) else f"{kind}: no image has a value"}
        values += _values(
            case, kind, statistics, len(kept), fields[name], better="lower", record=record, arrays={"log": logs}
        )
    excluded = Value(
        "complexity/excluded", found.excluded, None, len(images), "lower", common, {"is": "share of margins <= 0"}
    )
    return [*values, excluded]


def noise(case: Case) -> list[Value]:
    """The noise sensitivity: its maximum, mean and 90th percentile over images."""
    settings = case.settings
    images, _ = case.some(settings.num_noise)
    found = noise_sensitivity(
        case.network, images, draws=settings.draws, seed=settings.seed, batch_size=settings.batch_size
    )
    kept = found.sensitivity[found.sensitivity.isfinite()]
    summary = _summary(case, kept)
    fields = {
        **case.fields(settings.num_noise, labels=False),
        "sensitivity": "E |f(x + eta |x|) - f(x)|^2 / |f(x)|^2",
        "eta": "standard normal",
        "draws": settings.draws,
        "noise_seed": settings.seed,
    }
    record = {
        "bias": "a maximum of estimates grows with their errors",
        "mean_standard_error": float(found.standard_error[found.sensitivity.isfinite()].mean()),
        "note": "" if len(kept) == len(images) else f"noise: {len(images) - len(kept)} images have logits of 0",
    }
    statistics = {name: summary[name] for name in ("max", "mean", "p90")}
    arrays = {"sensitivity": found.sensitivity, "standard_error": found.standard_error}
    return _values(case, "noise", statistics, len(kept), fields, better="lower", record=record, arrays=arrays)


def local_constants(case: Case) -> list[Value]:
    """Local Lipschitz constants: the spectral and the Frobenius norm of the logits' Jacobian at each image."""
    settings = case.settings
    images, _ = case.some(settings.num_local)
    found = local_lipschitz(case.network, images, batch_size=settings.batch_size)
    fields = {**case.fields(settings.num_local, labels=False), "jacobian": "of the logits by the images, Euclidean"}
    values = []
    for name, norms in found._asdict().items():
        summary = _summary(case, norms)
        statistics = {one: summary[one] for one in ("mean", "p95", "max")}
        values += _values(case, f"local/{name}", statistics, len(norms), fields, arrays={"norm": norms})
    return values


def global_constants(case: Case) -> list[Value]:
    """Empirical Lipschitz constants of pairs of different images."""
    settings = case.settings
    generator = torch.Generator("cpu").manual_seed(settings.seed)
    classes = torch.zeros(settings.num_pairs, dtype=torch.int64, device="cpu")
    rows = pairs_within([torch.arange(len(case.images), device="cpu")], classes, generator)
    x, y = (case.images[side.to(case.images.device)] for side in rows.unbind(1))
    found = global_lipschitz(case.network, x, y, batch_size=settings.batch_size)
    kept = found.ratio[found.ratio.isfinite()]
    summary = _summary(case, kept)
    fields = {
        **case.network_fields,
        **case.data,
        "num_pairs": settings.num_pairs,
        "pairs": "two images of all; none comes again before all have come",
        "pairs_seed": settings.seed,
        "ratio": "|f(x) - f(y)|_2 / |x - y|_2",
    }
    record = {"note": "" if len(kept) == len(rows) else f"global: {len(rows) - len(kept)} pairs are of equal images"}
    statistics = {name: summary[name] for name in ("mean", "p95", "max")}
    return _values(case, "global", statistics, len(kept), fields, record=record, arrays=found._asdict())


def spectra(case: Case) -> list[Value]:
    """Sums over layers of stable ranks and of logarithms of spectral norms, and the mean share of the possible rank."""
    layers = case.layers
    ranks = np.array([layer.stable_rank for layer in layers])
    norms = np.array([layer.spectral_norm for layer in layers])
    shapes = np.array([layer.shape for layer in layers])  # (L, 2)
    shares = ranks / shapes.min(axis=1)
    totals = {
        "stable_rank_sum": float(ranks.sum()),
        "log_spectral_norm_sum": float(np.log(norms).sum()),
        "normalized_stable_rank_mean": float(shares.mean()),
    }
    fields = {**case.network_fields, "layers": LAYERS, "matrix": MATRIX, "singular_values": "exact, float64"}
    fields["normalized"] = "over min(rows, columns)"
    arrays = {"spectra/spectral_norm": norms, "spectra/stable_rank": ranks, "spectra/shape": shapes}
    values: list[Value] = []
    for name, total in totals.items():
        first = name == "stable_rank_sum"
        record = {"layers": [layer.name for layer in layers]} if first else {}
        values.append(Value(f"spectra/{name}", total, None, len(layers), "", fields, record, arrays if first else {}))
    return values


MEASURES: dict[str, Measure] = {
    "accuracy": Measure(accuracy),
    "margin": Measure(margin),
    "complexity": Measure(complexity, layers=True),
    "noise": Measure(noise),
    "local": Measure(local_constants),
    "global": Measure(global_constants),
    "spectra": Measure(spectra, layers=True),
}


def _summary(case: Case, values: Tensor) -> dict[str, Statistic]:
    """Mean, maximum and percentiles of finite values (n,), NaN where there are none."""
    if not len(values):
        return dict.fromkeys(("mean", "max", "p50", "p90", "p95"), Statistic(math.nan, None))
    return summarize(values.numpy(), seed=case.settings.seed)


def _values(
    case: Case,
    kind: str,
    statistics: Mapping[str, Statistic],
    count: int,
    fields: Mapping[str, Any],
    *,
    better: str = "",
    record: Mapping[str, Any] | None = None,
    arrays: Mapping[str, Tensor] | None = None,
) -> list[Value]:
    """A value for each statistic, called "kind/statistic"; the first has the arrays, called "kind/array"."""
    values: list[Value] = []
    for name, (value, interval) in statistics.items():
        how = {"interval": _obtained(case)} if interval else {}
        given = {f"{kind}/{one}": array.numpy() for one, array in (arrays or {}).items()} if not values else {}
        values.append(
            Value(
                f"{kind}/{name}", value, None, count, better, dict(fields), {**(record or {}), **how}, given, interval
            )
        )
    return values


def _obtained(case: Case) -> str:
    return f"95 %, percentile bootstrap over images, {RESAMPLES:,} resamples, seed {case.settings.seed}"
