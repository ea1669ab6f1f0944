"""Numbers and tables as text."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np

from evaluation.reporting.value import ReportData


def with_spread(value: float, std: float | None) -> str:
    """Formats a value with its spread, such as "19.57 ± 0.12", or the value alone."""
    return f"{value:.6g}" if std is None else f"{value:.6g} ± {std:.4g}"


def interval_text(interval: Sequence[float] | None) -> str:
    """Formats an interval, such as "[19.3, 19.9]"; empty for None."""
    return "" if interval is None else "[{:.5g}, {:.5g}]".format(*interval)


def class_name(label: int, class_names: Sequence[str]) -> str:
    """Returns the name of a class, or "class" and its number if it has none."""
    return class_names[label] if label < len(class_names) else f"class {label}"


def text_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Formats a text table as lines; the first row is the header. Columns with an empty body are left out."""
    used = [column for column, cells in enumerate(zip(*rows, strict=True)) if column == 0 or any(cells[1:])]
    widths = [max(len(row[column]) for row in rows) for column in used]
    lines = ["  ".join(row[column].ljust(width) for column, width in zip(used, widths, strict=True)) for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return [line.rstrip() for line in lines]


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Formats a Markdown table; the first row is the header. Vertical bars in cells are escaped."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines)


def value_table(report: ReportData) -> str:
    """Formats a report's values: mean ± std, 95 % interval, images, direction, 8 digits of the protocol hash.

    Values by class follow in a second table.
    """
    rows = [("metric", "value", "95 % interval", "images", "better", "protocol")]
    for key, value in report.values.items():
        entry = report.protocol["values"][key]
        texts = with_spread(value, entry["std"]), interval_text(entry["interval"])
        rows.append((key, *texts, count_text(entry), entry["better"], entry["hash"][:8]))
    title = [report.protocol["title"]] if report.protocol["title"] else []
    by_class = class_table(report)
    classes = ["", *text_table(by_class)] if by_class else []
    return "\n".join([*title, *text_table(rows), *(f"note: {note}" for note in notes(report)), *classes])


def count_text(entry: dict[str, Any]) -> str:
    """Formats the number of images in a value, such as "5,000"; names other units, such as "21 layers"."""
    return f"{entry['count']:,} {entry['record'].get('counted', '')}".rstrip()


def class_table(report: ReportData) -> list[list[str]]:
    """Returns the table of values by class: a header, a row for each class and a row of means.

    Each value that was measured by class has a column; a class without that value has an empty cell. The table is empty
    if nothing was measured by class.
    """
    columns = values_by_class(report)
    if not columns:
        return []
    names, found = report.protocol["class_names"], columns.values()
    rows = [
        [class_name(label, names), *(f"{one[label]:.6g}" if label in one else "" for one in found)]
        for label in sorted(set().union(*found))
    ]
    return [["class", *columns], *rows, ["mean", *(f"{fmean(one.values()):.6g}" for one in found)]]


def values_by_class(report: ReportData) -> dict[str, dict[int, float]]:
    """Returns, for each key that was measured by class, its values by class number."""
    found = {}
    for name, values in report.arrays.items():
        if name.endswith("/per_class") and len(values):
            key = name.removesuffix("/per_class")
            labels = report.arrays.get(f"{key}/classes", np.arange(len(values)))
            found[key] = dict(zip(labels.tolist(), values.tolist(), strict=True))
    return found


def notes(report: ReportData) -> list[str]:
    """Returns the metrics' notes on the reliability of their values, without repetitions."""
    found = [entry["record"].get("note") for entry in report.protocol["values"].values()]
    return list(dict.fromkeys(note for note in found if note))
