"""The table of all runs: settings that differ, and values of equal protocols; by each column it can be sorted."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from evaluation.reporting.names import plain_names
from evaluation.reporting.ranking import DIGITS
from evaluation.reporting.tables import count_text

MOST_SETTINGS, MOST_VALUES = 6, 6
"""Most columns of settings, and of values; other settings and values are in the sections of the runs."""

MISSING = "–"


class ListedRun(Protocol):
    """A run of any kind.

    Attributes:
        folder: its folder.
        name: shown name.
        kind: only runs of one kind have their settings compared.
        progress: text such as "GAN, step 2000 of 5000".
        notes: what is missing or wrong, a sentence each.
        settings: values of the settings that change training, by place.
        alarms: names of the alarms that have not ended.
        updated: time of the last log line, in seconds, if known.
    """

    @property
    def folder(self) -> Path: ...
    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def progress(self) -> str: ...
    @property
    def notes(self) -> Sequence[str]: ...
    @property
    def settings(self) -> Mapping[str, Any]: ...
    @property
    def alarms(self) -> Sequence[str]: ...
    @property
    def updated(self) -> float | None: ...


class ListedReport(NamedTuple):
    """The newest report of a run: values, protocol, and the keys to show; empty without one."""

    values: Mapping[str, float]
    protocol: Mapping[str, Any]
    shown: Sequence[str]


class ListColumn(NamedTuple):
    """A column of the table.

    Attributes:
        title: its name.
        about: small lines below the title.
        cells: text and small text of each run.
        ranks: place of each run if the table is sorted by this column.
    """

    title: str
    about: Sequence[str]
    cells: Sequence[tuple[str, str]]
    ranks: Sequence[int]


def differing(runs: Sequence[ListedRun]) -> dict[str, list[str]]:
    """Returns the settings that are not equal in all runs of a kind, by kind; those with most exceptions first."""
    found = {}
    for kind in dict.fromkeys(run.kind for run in runs):
        settings = [run.settings for run in runs if run.kind == kind and run.settings]
        places = dict.fromkeys(place for each in settings for place in each)
        counts = {place: Counter(repr(each.get(place, MISSING)) for each in settings) for place in places}
        exceptions = {place: len(settings) - max(count.values()) for place, count in counts.items()}
        found[kind] = sorted((place for place in places if exceptions[place]), key=lambda place: -exceptions[place])
    return found


def columns_of(
    runs: Sequence[ListedRun], measured: Sequence[ListedReport], differences: Mapping[str, Sequence[str]]
) -> list[ListColumn]:
    """Returns the columns after the names: values by protocol, settings that differ, time of the last log line."""
    times = [None if run.updated is None else datetime.fromtimestamp(run.updated, timezone.utc) for run in runs]
    shown = [MISSING if time is None else f"{time:%Y-%m-%d %H:%M}" for time in times]
    newest = _ranks([None if time is None else time.timestamp() for time in times], highest_first=True)
    return [
        *_values(measured),
        *_settings(runs, differences),
        ListColumn("last line, UTC", (), [(text, "") for text in shown], newest),
    ]


def _settings(runs: Sequence[ListedRun], differences: Mapping[str, Sequence[str]]) -> list[ListColumn]:
    places = list(dict.fromkeys(place for kind in differences.values() for place in kind[:MOST_SETTINGS]))
    columns = []
    for place in places[:MOST_SETTINGS]:
        values = [run.settings.get(place, ...) for run in runs]
        cells = [(MISSING if value is ... else text_of(value), "") for value in values]
        columns.append(ListColumn(place, (), cells, _ranks([None if value is ... else value for value in values])))
    return columns


def _values(measured: Sequence[ListedReport]) -> list[ListColumn]:
    """Returns a column for each value and protocol: values of different protocols are never in one column."""
    found: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for row, report in enumerate(measured):
        for key in report.shown:
            entry = report.protocol["values"][key]
            found.setdefault((key, entry["hash"]), {})[row] = entry
    names = plain_names(dict.fromkeys(key for key, _ in found))
    columns = []
    for (key, digest), entries in sorted(found.items(), key=lambda item: -len(item[1]))[:MOST_VALUES]:
        steps = {row: measured[row].protocol["subject"].get("step") for row in entries}
        mixed = len(set(steps.values())) > 1
        cells = [(MISSING, "")] * len(measured)
        for row, step in steps.items():
            cells[row] = (f"{measured[row].values[key]:.4g}", f"step {step}" if mixed else "")
        entry = next(iter(entries.values()))
        better = {"lower": "↓ ", "higher": "↑ "}.get(entry["better"], "")
        images = "" if "counted" in entry["record"] else " images"
        ranks = _ranks(
            [measured[row].values[key] if row in entries else None for row in range(len(measured))],
            highest_first=entry["better"] == "higher",
        )
        about = [f"{better}{count_text(entry)}{images}", f"protocol {digest[:DIGITS]}"]
        columns.append(ListColumn(names[key], about, cells, ranks))
    return columns


def text_of(value: Any) -> str:
    """Returns a setting as it is written in YAML, in short."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _ranks(values: Sequence[Any], *, highest_first: bool = False) -> list[int]:
    """Returns the place of each value in ascending order: numbers, texts, numbers that are NaN, None."""

    def order(row: int) -> tuple[int, float, str]:
        value = values[row]
        if isinstance(value, int | float) and not isinstance(value, bool):
            return (2, 0.0, "") if math.isnan(value) else (0, -value if highest_first else value, "")
        return (3, 0.0, "") if value is None else (1, 0.0, text_of(value))

    ranks = {row: rank for rank, row in enumerate(sorted(range(len(values)), key=order))}
    return [ranks[row] for row in range(len(values))]


__all__ = ["ListColumn", "ListedReport", "ListedRun", "columns_of", "differing", "text_of"]
