"""Comparison of several reports: tables of values with equal protocols, and sentences on protocols that differ."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from evaluation.errors import EvaluationError
from evaluation.reporting.names import ordered, plain_names
from evaluation.reporting.ranking import DIGITS, DIRECTIONS, differences, is_better
from evaluation.reporting.tables import markdown_table, parted, text_table, with_spread
from evaluation.reporting.value import ReportData

MISSING = "–"
FOOTNOTE = "± is the standard deviation over splits, subsets or critics of one run, not over training runs."


@dataclass(frozen=True)
class Cell:
    """Value of one run."""

    value: float
    std: float | None
    interval: tuple[float, float] | None
    count: int

    def __str__(self) -> str:
        return with_spread(self.value, self.std)


@dataclass(frozen=True)
class ComparisonRow:
    """Values of one key: a cell for each run, None for a run without that value."""

    key: str
    better: str
    hash: str
    fields: dict[str, Any]
    cells: tuple[Cell | None, ...]

    @property
    def best(self) -> frozenset[int]:
        """Columns of the best value; empty without a direction, with one value, or if all are equal."""
        known = {column: cell.value for column, cell in enumerate(self.cells) if cell and not math.isnan(cell.value)}
        if len(set(known.values())) < 2 or self.better not in DIRECTIONS:
            return frozenset()
        return frozenset(
            column
            for column, value in known.items()
            if not any(is_better(other, value, self.better) for other in known.values())
        )


@dataclass(frozen=True)
class Comparison:
    """Result of `compare`.

    Attributes:
        labels: labels of the runs, in the order of the columns.
        subjects: "subject" of each report.
        rows: one row per key, the most important first, then in the order of the reports.
        left_out: a sentence for each value whose protocols differ.
    """

    labels: tuple[str, ...]
    subjects: tuple[dict[str, Any], ...]
    rows: tuple[ComparisonRow, ...]
    left_out: tuple[str, ...] = ()

    def table(self) -> str:
        """Formats a text table, with a star at the best of each row."""
        rows = self._rows("{}", "{} *")
        lines = parted(text_table(rows), len(self.first))
        return "\n".join([*lines, f"* best of the row; {FOOTNOTE}", *self.notes])

    def markdown(self) -> str:
        """Formats a Markdown table, with the best of each row in bold."""
        return "\n\n".join([markdown_table(self._rows("`{}`", "**{}**")), FOOTNOTE, *self.notes])

    def _rows(self, code: str, best: str) -> list[list[str]]:
        """Returns a header and rows; `code` is the format of hashes, `best` the format of best values."""
        rows = [["metric", "better", *self.labels, "protocol"]]
        for row in self.rows:
            texts = enumerate(str(cell or MISSING) for cell in row.cells)
            cells = (best.format(text) if column in row.best else text for column, text in texts)
            rows.append([self.names[row.key], row.better, *cells, code.format(row.hash[:DIGITS])])
        return rows

    @property
    def names(self) -> dict[str, str]:
        """Plain names by key."""
        return plain_names(row.key for row in self.rows)

    @property
    def first(self) -> tuple[ComparisonRow, ...]:
        """The most important rows, which come first."""
        keys = set(ordered(row.key for row in self.rows)[0])
        return tuple(row for row in self.rows if row.key in keys)

    def document(self) -> dict[str, Any]:
        """Returns the content of compare.json: subjects, and for each key better, hash, fields and the runs' values."""
        values = {
            row.key: {
                "better": row.better,
                "hash": row.hash,
                "fields": row.fields,
                "runs": {label: vars(cell) for label, cell in zip(self.labels, row.cells, strict=True) if cell},
            }
            for row in self.rows
        }
        subjects = dict(zip(self.labels, self.subjects, strict=True))
        return {"subjects": subjects, "values": values, "left_out": list(self.left_out)}

    @property
    def notes(self) -> list[str]:
        """Sentences on values that were left out, and on steps that differ."""
        return [*(f"left out: {sentence}" for sentence in self.left_out), *self._steps()]

    def _steps(self) -> list[str]:
        """Returns a sentence on the steps, "runs a and b are compared at steps 100 and 500", if they differ."""
        subjects = zip(self.labels, self.subjects, strict=True)
        steps = {label: subject["step"] for label, subject in subjects if subject.get("step") is not None}
        if len(set(steps.values())) < 2:
            return []
        return [f"runs {_listed(list(steps))} are compared at steps {_listed([str(step) for step in steps.values()])}"]


def compare(reports: Mapping[str, ReportData], *, skip_mixed: bool = False) -> Comparison:
    """Compares reports, given by label. Keeps values that only some reports have.

    Args:
        skip_mixed: leaves out values whose protocols differ, with a note, instead of raising.

    Raises:
        EvaluationError: fewer than two reports, or values of one key under different protocols.
    """
    if len(reports) < 2:
        raise EvaluationError(f"compare: got {len(reports)} report, expected at least two")
    keys = dict.fromkeys(key for report in reports.values() for key in report.values)
    found = {key: difference(key, reports) for key in keys}
    mixed = tuple(sentence for sentence in found.values() if sentence)
    if mixed and not skip_mixed:
        others = f" ({len(mixed) - 1} more values are mixed)" if len(mixed) > 1 else ""
        raise EvaluationError(
            f"compare: {mixed[0]}{others}; measure all by one protocol, or leave mixed values out with --skip-mixed"
        )
    alike = ordered(key for key, sentence in found.items() if not sentence)
    return Comparison(
        labels=tuple(reports),
        subjects=tuple(report.protocol["subject"] for report in reports.values()),
        rows=tuple(_row(key, reports) for part in alike for key in part),
        left_out=mixed,
    )


def difference(key: str, reports: Mapping[str, ReportData]) -> str:
    """Returns a sentence on the first two runs whose protocols of a key differ, with the fields; "" if none do."""
    entries = [(label, report.protocol["values"][key]) for label, report in reports.items() if key in report.values]
    for label, entry in entries[1:]:
        first, known = entries[0]
        if entry["hash"] != known["hash"]:
            return f"{key}: runs {first} and {label} differ in {differences(known, entry)}"
    return ""


def best(reports: Sequence[ReportData], key: str) -> int:
    """Returns the index of the report with the best value of a key: the first of equal ones, never NaN.

    Raises:
        EvaluationError: no report has the value, the value has no direction, or protocols differ.
    """
    mixed = difference(key, {str(number): report for number, report in enumerate(reports)})
    if mixed:
        raise EvaluationError(f"best: {mixed}; choose among values of one protocol")
    found = {
        number: report.values[key]
        for number, report in enumerate(reports)
        if key in report.values and not math.isnan(report.values[key])
    }
    if not found:
        known = ", ".join(dict.fromkeys(name for report in reports for name in report.values))
        raise EvaluationError(f"best: got no value called {key}, expected one of {known or 'some report'}")
    direction = reports[min(found)].protocol["values"][key]["better"]
    if direction not in DIRECTIONS:
        raise EvaluationError(f"best: got {key}, for which neither higher nor lower is better; choose another value")
    return reduce(lambda kept, number: number if is_better(found[number], found[kept], direction) else kept, found)


def _row(key: str, reports: Mapping[str, ReportData]) -> ComparisonRow:
    entries = [report.protocol["values"].get(key) for report in reports.values()]
    cells = (
        Cell(report.values[key], entry["std"], _pair(entry["interval"]), entry["count"]) if entry else None
        for report, entry in zip(reports.values(), entries, strict=True)
    )
    known = next(entry for entry in entries if entry)
    return ComparisonRow(key, known["better"], known["hash"], known["fields"], tuple(cells))


def _listed(names: Sequence[str]) -> str:
    """Joins names as "a, b and c"."""
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _pair(interval: Sequence[float] | None) -> tuple[float, float] | None:
    return None if interval is None else (interval[0], interval[1])
