"""What can be measured, by name. A metric is one file with a pure function and `measure(context) -> values`."""

from evaluation.metrics import fid, inception_score, lipschitz, neural_divergence
from evaluation.metrics.needs import Metric

_COMPARED = {"generated": "num_fid", "reference": "num_real"}

METRICS: dict[str, Metric] = {
    "is": Metric(inception_score.measure, {"generated": "num_is"}, "logits"),
    "fid": Metric(fid.measure, _COMPARED, "features", statistics=True),
    "nd": Metric(neural_divergence.measure, {"generated": "", "test": ""}, values=("nd", "nd_short")),
    "elhist": Metric(
        lipschitz.measure,
        {"generated": "num_lipschitz", "reference": "num_lipschitz"},
        critic=True,
        values=("elhist", "jacobian"),
    ),
}
