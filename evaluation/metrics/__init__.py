"""Registry of metrics. A metric is one module with a pure function and `measure(context) -> values`."""

from functools import partial

from evaluation.metrics import (
    bounds,
    fid,
    fid_infinity,
    gan_test,
    inception_score,
    intra_fid,
    intra_kid,
    intra_prdc,
    kid,
    lipschitz,
    precision_recall,
)
from evaluation.metrics.needs import Metric
from evaluation.metrics.neural_divergence import divergence
from evaluation.statistics.classes import check_context

_COMPARED = {"generated": "num_fid", "reference": "num_real"}
_BY_CLASS = {"generated": "num_intra", "reference": ""}
_CLASSIFIED = {"generated": "num_is", "test": ""}
_BOTH = ("generated", "reference")

METRICS: dict[str, Metric] = {
    "is": Metric(inception_score.measure, {"generated": "num_is"}, "logits", check=inception_score.check),
    "fid": Metric(fid.measure, _COMPARED, "features", statistics=True, check=fid.check),
    "fid_infinity": Metric(fid_infinity.measure, _COMPARED, "features", statistics=True, check=fid_infinity.check),
    "intra_fid": Metric(
        intra_fid.measure,
        _BY_CLASS,
        "features",
        labels=_BOTH,
        check=partial(check_context, name="intra_fid", fewest=intra_fid.FEWEST),
    ),
    "kid": Metric(kid.measure, _COMPARED, "features", check=kid.check, directed=("kid", "kid_all_pairs")),
    "intra_kid": Metric(
        intra_kid.measure,
        _BY_CLASS,
        "features",
        labels=_BOTH,
        check=partial(check_context, name="intra_kid", fewest=kid.FEWEST),
    ),
    "prdc": Metric(
        precision_recall.measure,
        _COMPARED,
        "features",
        check=precision_recall.check,
        directed=("precision", "recall", "f_score", "density", "coverage"),
    ),
    "intra_prdc": Metric(
        intra_prdc.measure,
        _BY_CLASS,
        "features",
        labels=_BOTH,
        check=intra_prdc.check,
        directed=tuple(f"intra_{name}" for name in intra_prdc.NAMES),
    ),
    "gan_test": Metric(gan_test.measure, _CLASSIFIED, "logits", labels=("generated", "test"), check=gan_test.check),
    "gan_train": Metric(gan_test.measure_train, _CLASSIFIED, labels=("generated", "test"), check=gan_test.check_train),
    "nd": Metric(
        divergence.measure,
        {"generated": "", "test": ""},
        directed=divergence.directed,
        check=divergence.check,
        replaced=divergence.replaced,
    ),
    "elhist": Metric(
        lipschitz.measure,
        {"generated": "num_lipschitz", "reference": "num_lipschitz"},
        critic=True,
        directed=(),
        check=lipschitz.check,
    ),
    "bounds": Metric(
        bounds.measure,
        {"generated": "num_lipschitz", "reference": "num_lipschitz"},
        critic=True,
        directed=(),
        check=bounds.check,
    ),
}
