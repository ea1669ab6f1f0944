"""What can be measured, by name. A metric is one file with a pure function and `measure(context) -> values`."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from evaluation.metrics import fid, inception_score, neural_divergence
from evaluation.report import Value

if TYPE_CHECKING:
    from evaluation.context import Context


class Metric(NamedTuple):
    """How to measure, and what the context must hold, checked for all metrics before the first one is measured.

    images: image set -> the setting that says how many of it are used, "" for all there are. A sampler stands in for
    generated images of which no number is set. extractor: "features", "logits" or "" for none.
    """

    measure: "Callable[[Context], list[Value]]"
    images: dict[str, str]
    extractor: str


METRICS: dict[str, Metric] = {
    "is": Metric(inception_score.measure, {"generated": "num_is"}, "logits"),
    "fid": Metric(fid.measure, {"generated": "num_fid", "reference": "num_real"}, "features"),
    "nd": Metric(neural_divergence.measure, {"generated": "", "test": ""}, ""),
}
