"""Error messages for configurations: the setting, the given value, the expected one, the nearest valid name."""

import difflib
import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError

MAX_MISTAKES = 5
"""Largest number of mistakes listed in one message."""


def short(text: str, most: int = 80) -> str:
    """Returns a text fit for a one-line message: control characters escaped, at most `most` characters."""
    shown = repr(text)[1:-1]
    return shown if len(shown) <= most else shown[: most - 3] + "..."


def nearest(name: str, valid: Iterable[str]) -> str:
    """Returns "; did you mean ...?" with the closest valid name, or ""."""
    close = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def explain(schema: type[BaseModel], error: ValidationError, places: Iterable[str]) -> str:
    """Formats the first few mistakes of a validation error as one line.

    Args:
        places: names of all settings of the schema, such as "train.steps".
    """
    mistakes, places = error.errors(), list(places)
    lines = [_explain_one(schema, mistake, places) for mistake in mistakes[:MAX_MISTAKES]]
    lines += [f"{len(mistakes) - MAX_MISTAKES} more mistakes"] if len(mistakes) > MAX_MISTAKES else []
    return "; ".join(lines)


def _explain_one(schema: type[BaseModel], mistake: Any, places: list[str]) -> str:
    path = [str(part) for part in mistake["loc"]]
    where = short(".".join(path))
    if mistake["type"] == "extra_forbidden":
        return f"{where}: unknown setting{_nearest_setting(schema, path, places)}"
    got = mistake["input"]
    expected = mistake["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    expected = expected.replace("a valid dictionary or instance of ", "a section ")
    expected = expected.replace("a valid list", "a list, such as [4, 2, 1]")
    if got is None:
        expected = expected.replace("a valid string", "a valid string ('' for an empty one)")
    if isinstance(got, list):
        expected = expected.replace("a valid string", "text; separate several names by commas, as in 'a,b'")
    shown = repr(got) if isinstance(got, int | float | str | None) and len(repr(got)) < 80 else type(got).__name__
    hint = nearest(got, re.findall(r"'(\w+)'", expected)) if isinstance(got, str) else ""
    return f"{where}: got {shown}, expected {expected}{hint}"


def _nearest_setting(schema: type[BaseModel], path: list[str], places: list[str]) -> str:
    """Returns a hint for an unknown setting: the same name in another section, else the closest in its own."""
    elsewhere = next((place for place in places if place.rsplit(".", 1)[-1] == path[-1]), None)
    if elsewhere is not None:
        return f"; did you mean {elsewhere!r}?"
    section: Any = schema
    for part in path[:-1]:
        section = section.model_fields[part].annotation
    valid = list(section.model_fields)
    return nearest(path[-1], valid) or f", expected one of {', '.join(valid)}"
