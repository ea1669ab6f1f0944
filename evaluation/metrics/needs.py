"""What a metric is."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from evaluation.reporting.value import Value

if TYPE_CHECKING:
    from evaluation.context import Context


class Metric(NamedTuple):
    """How to measure, and what the context must hold, checked for all metrics before the first one is measured.

    images: image set -> the setting that says how many of it are used, "" for all there are. A sampler stands in for
        generated images of which no number is set.
    extractor: "features", "logits" or "" for none; with several extractors, `measure` is called for each.
    labels: image sets whose images must have classes.
    critic: whether the discriminator is what is measured.
    statistics: whether moments from a file can stand for the reference images.
    directed: how the keys of its values begin of which higher or lower is better, where not by the metric's own name.
    check: refuses what else the metric cannot work with; generated images may not be there yet.
    """

    measure: "Callable[[Context], list[Value]]"
    images: dict[str, str]
    extractor: str = ""
    labels: tuple[str, ...] = ()
    critic: bool = False
    statistics: bool = False
    directed: tuple[str, ...] | None = None
    check: "Callable[[Context], None]" = lambda _: None
