"""Ranking of values, and protocol differences as text."""

import json
import math
from typing import Any

DIRECTIONS = ("higher", "lower")
DIGITS = 8  # digits shown of a hash
FIELDS = 3  # differing fields named in a message


def is_better(value: float, other: float, better: str) -> bool:
    """Tells whether a value is better than another; `better` is "higher" or "lower". Any number is better than NaN."""
    assert better in DIRECTIONS, better
    if math.isnan(value) or math.isnan(other):
        return not math.isnan(value)
    return value > other if better == "higher" else value < other


def differences(one: dict[str, Any], other: dict[str, Any]) -> str:
    """Describes how two protocols differ, such as "num_reference (10000, 5000) and generation.seed (0, absent)"."""
    first, second = _flat(one["fields"]), _flat(other["fields"])
    names = [name for name in first | second if first.get(name, ...) != second.get(name, ...)]
    if not names:
        return f"nothing but the hash ({shown(one['hash'])}, {shown(other['hash'])}), so one report was edited"
    parts = [f"{name} ({shown(first.get(name, ...))}, {shown(second.get(name, ...))})" for name in names[:FIELDS]]
    more = [f"{len(names) - FIELDS} more"] if len(names) > FIELDS else []
    return " and ".join(parts + more)


def shown(item: Any) -> str:
    """Formats the value of a field: the first digits of a hash, "absent" for `...`."""
    if item is ...:
        return "absent"
    if isinstance(item, str) and len(item) == 64 and not set(item) - set("0123456789abcdef"):
        return item[:DIGITS]
    return item if isinstance(item, str) else json.dumps(item)


def _flat(fields: Any, place: str = "") -> dict[str, Any]:
    """Flattens nested fields to dotted names, with the types of JSON."""
    if isinstance(fields, dict) and fields:
        parts = (_flat(item, f"{place}.{name}" if place else str(name)) for name, item in fields.items())
        return {name: item for part in parts for name, item in part.items()}
    return {place: json.loads(json.dumps(fields))}
