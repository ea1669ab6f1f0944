"""Conditions of a step: device, size of the work, time and files. Imports no torch."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

Record = dict[str, Any]
Value = TypeVar("Value")
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Conditions:
    """Conditions of a step.

    Attributes:
        device: "cuda", or "cpu" in a rehearsal.
        small: tiny networks and few repetitions, which show that the step works and measure nothing.
        seconds: time limit of the step.
        out: folder of the files that are kept.
        images: folder, archive or packed data set of the training; "": random images, in a rehearsal.
    """

    device: str
    small: bool
    seconds: float
    out: Path
    images: str = ""

    def choose(self, full: Value, small: Value) -> Value:
        """Returns the value for full or for small sizes."""
        return small if self.small else full

    @property
    def size(self) -> str:
        """Key of `benchmarks.sizes.SIZES`."""
        return self.choose("full", "small")


Measured = Callable[[Conditions], Iterator[Record]]
"""A step: yields parts of its record."""
