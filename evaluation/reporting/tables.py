"""Numbers and tables as text."""

from collections.abc import Sequence


def with_spread(value: float, std: float | None) -> str:
    """ "19.57 ± 0.12", or the value alone where there is no spread."""
    return f"{value:.6g}" if std is None else f"{value:.6g} ± {std:.4g}"


def interval_text(interval: Sequence[float] | None) -> str:
    """ "[19.3, 19.9]", or nothing."""
    return "" if interval is None else "[{:.5g}, {:.5g}]".format(*interval)


def class_name(label: int, class_names: Sequence[str]) -> str:
    """The name of a class, or its number."""
    return class_names[label] if label < len(class_names) else f"class {label}"


def text_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of aligned columns under an underlined header, the first row; columns with an empty body are left out."""
    used = [column for column, cells in enumerate(zip(*rows, strict=True)) if column == 0 or any(cells[1:])]
    widths = [max(len(row[column]) for row in rows) for column in used]
    lines = ["  ".join(row[column].ljust(width) for column, width in zip(used, widths, strict=True)) for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return [line.rstrip() for line in lines]


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """A table whose first row is the header; vertical bars in cells are escaped."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines)
