"""What can be measured, by name. A metric is one file with a pure function and `measure(context) -> values`."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from evaluation.metrics import fid, inception_score, neural_divergence
from evaluation.report import Value

if TYPE_CHECKING:
    from evaluation.context import Context

METRICS: dict[str, "Callable[[Context], list[Value]]"] = {
    "is": inception_score.measure,
    "fid": fid.measure,
    "nd": neural_divergence.measure,
}
