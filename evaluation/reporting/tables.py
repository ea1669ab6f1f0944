"""Numbers and tables as text."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np

from evaluation.reporting.names import extractors_of, ordered, plain_names, real_key
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
    """Formats a report's values, the most important first, for a terminal.

    Columns: name, mean ± std, 95 % interval, the same value of real images, images, direction, 8 digits of the protocol
    hash. Values by class follow in a second table.
    """
    first, others = ordered(report.values)
    names, entries = plain_names(report.values), report.protocol["values"]
    beside = {real_key(key) for key in report.values}
    shown = [key for key in (*first, *others) if key not in beside]
    rows = [("metric", "value", "95 % interval", "real images", "images", "better", "protocol")]
    for key in shown:
        entry, real = entries[key], report.values.get(real_key(key))
        texts = with_spread(report.values[key], entry["std"]), interval_text(entry["interval"])
        real_text = "" if real is None else f"{real:.6g}"
        rows.append((names[key], *texts, real_text, count_text(entry), entry["better"], entry["hash"][:8]))
    extractors = extractors_of(report.values)
    lines = [heading(report), *([f"extractor: {extractors[0]}"] if len(extractors) == 1 else []), ""]
    lines += parted(text_table(rows), len(first))
    lines += [f"note: {note}" for note in notes(report)]
    by_class = class_table(report)
    return "\n".join([*lines, *(["", *text_table(by_class)] if by_class else [])])


def heading(report: ReportData) -> str:
    """Returns title, experiment and step, if known, such as "CIFAR-10, srn70, step 4000"."""
    subject = report.protocol["subject"]
    parts = [report.protocol["title"] or "Report", subject.get("experiment")]
    parts += [f"step {subject['step']}"] if subject.get("step") is not None else []
    return ", ".join(str(part) for part in parts if part)


def parted(lines: Sequence[str], num_first: int) -> list[str]:
    """Returns the lines of a text table with an empty line between the first rows and the others, if there are both."""
    end = 2 + num_first  # after the header and its rule
    return [*lines[:end], "", *lines[end:]] if num_first and len(lines) > end else list(lines)


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
    """Returns notes on the measured model and on the reliability of values, without repetitions."""
    found = [*report.protocol["subject"].get("notes", ())]
    found += [entry["record"].get("note") for entry in report.protocol["values"].values()]
    return list(dict.fromkeys(note for note in found if note))
