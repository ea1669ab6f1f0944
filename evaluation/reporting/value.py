"""Values that metrics return, with the protocols that make them comparable."""

import hashlib
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from evaluation.errors import EvaluationError
from evaluation.images.cache import canonical


class ReportData(Protocol):
    """Interface of a report for tables, figures and pages; see `Report`."""

    @property
    def values(self) -> dict[str, float]: ...

    @property
    def arrays(self) -> dict[str, np.ndarray]: ...

    @property
    def protocol(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Value:
    """A measured number with its key, spread and protocol.

    `fields` hold all settings that decide the value, and are hashed; `record` holds further facts. `better` is "higher"
    or "lower", or "" if neither is better. `std` is over splits, subsets or critics, None without a spread. `interval`
    is a 95 % interval (low, high) if one is defined; `record["interval"]` then names its method.
    """

    key: str
    value: float
    std: float | None
    count: int  # images in the mean, or the unit in record["counted"], such as "layers"
    better: str
    fields: dict[str, Any]
    record: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    interval: tuple[float, float] | None = None

    def entry(self) -> dict[str, Any]:
        """Returns the entry of `Report.protocol["values"]`: everything but the number and the arrays."""
        return {
            "std": self.std,
            "interval": None if self.interval is None else list(self.interval),
            "count": self.count,
            "better": self.better,
            "hash": protocol_hash(self.key, self.fields),
            "fields": self.fields,
            "record": self.record,
        }


def protocol_hash(key: str, fields: dict[str, Any]) -> str:
    """Returns the SHA-256 of the canonical JSON of a value's key and fields.

    Values with different hashes must not be compared.

    Raises:
        EvaluationError: fields of a type that JSON cannot represent.
    """
    try:
        text = canonical({"key": key, **fields})
    except (TypeError, ValueError) as error:
        raise EvaluationError(
            f"protocol of {key}: {error}; expected text, numbers, true, false, null, lists"
        ) from error
    return hashlib.sha256(text.encode()).hexdigest()
