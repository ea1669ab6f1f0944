"""Registry of measures of a classifier. A measure is a function that computes values from a case."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from evaluation.errors import check_names
from evaluation.generalization import values
from evaluation.generalization.case import Case
from evaluation.reporting.value import Value


class Measure(NamedTuple):
    """A measure of a classifier.

    layers: whether the measure requires that all weights are in linear and convolution layers.
    """

    values: Callable[[Case], list[Value]]
    layers: bool = False


MEASURES: dict[str, Measure] = {
    "accuracy": Measure(values.accuracy),
    "margin": Measure(values.margin),
    "complexity": Measure(values.complexity, layers=True),
    "noise": Measure(values.noise),
    "local": Measure(values.local_constants),
    "global": Measure(values.global_constants),
    "spectra": Measure(values.spectra, layers=True),
}


def check_measures(names: Sequence[str]) -> None:
    """Raises EvaluationError for an empty list or an unknown measure."""
    check_names("measures", names, MEASURES)
