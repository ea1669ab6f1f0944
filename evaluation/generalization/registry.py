"""What can be measured of a classifier, by name. A measure is a function of a case that returns values."""

import difflib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from evaluation.errors import EvaluationError
from evaluation.generalization import values
from evaluation.generalization.case import Case
from evaluation.reporting.value import Value


class Measure(NamedTuple):
    """How to measure.

    layers: whether it is undefined where there are weights outside of linear and convolution layers.
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
    """Refuses an unknown measure, or none.

    Raises:
        EvaluationError: naming the nearest valid name and all of them.
    """
    known = ", ".join(MEASURES)
    if isinstance(names, str) or not names:
        raise EvaluationError(f"measures: got {names!r}, expected a list of names out of {known}")
    for name in names:
        if name not in MEASURES:
            near = difflib.get_close_matches(name, MEASURES, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise EvaluationError(f"measures: got {name!r}, expected names out of {known}{hint}")
