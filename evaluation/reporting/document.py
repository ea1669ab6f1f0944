"""Writes, reads, checks and upgrades report.json."""

import json
import math
from pathlib import Path
from typing import Any

from evaluation.errors import EvaluationError
from evaluation.reporting.value import ReportData

# 2: "machine.extractors" replaces "machine.extractor"; values have "interval"; "class_names" and "neighbours" are new
SCHEMA = 2


def document_text(report: ReportData) -> str:
    """Formats report.json."""
    entries = report.protocol["values"]
    values = {key: {"value": value, **entries[key]} for key, value in report.values.items()}
    document = {"schema": SCHEMA, **report.protocol, "values": values}
    return json.dumps(encoded(document), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def read_values(folder: str | Path) -> tuple[dict[str, float], dict[str, Any]]:
    """Reads `Report.values` and `Report.protocol` of a saved report.

    Raises:
        EvaluationError: the folder has no report, a damaged one, or one of a newer schema.
    """
    file = Path(folder) / "report.json"
    try:
        document = _upgraded(json.loads(file.read_text(encoding="utf-8")), file)
        entries = _decoded(document["values"])
        _check_document(document)
        protocol = {name: document[name] for name in ("title", "subject", "machine", "class_names", "neighbours")}
        return {key: entry.pop("value") for key, entry in entries.items()}, {**protocol, "values": entries}
    except EvaluationError:
        raise
    except FileNotFoundError as error:
        raise EvaluationError(f"{file}: not found, expected a folder written by Report.save") from error
    except Exception as error:  # a damaged document can raise almost any error
        raise EvaluationError(
            f"{file}: got a damaged report ({error!r}), expected one written by Report.save"
        ) from error


def _upgraded(document: dict[str, Any], file: Path) -> dict[str, Any]:
    """Converts a document of schema 1 to schema 2."""
    schema = document["schema"]
    if schema not in range(1, SCHEMA + 1):
        raise EvaluationError(
            f"{file}: got schema {schema}, expected at most {SCHEMA}; read it with the newer version that wrote it"
        )
    if schema == 1:
        machine = document["machine"]
        extractor = machine.pop("extractor", None)
        machine.setdefault("extractors", [] if extractor is None else [extractor])
        for entry in document["values"].values():
            entry.setdefault("interval", None)
        document |= {"class_names": [], "neighbours": {}}
    return document


def _check_document(document: dict[str, Any]) -> None:
    """Raises ValueError, TypeError or KeyError for an entry of another type than `Report.save` writes."""
    _check_kinds(document, title=str, subject=dict, machine=dict, class_names=list, neighbours=dict)
    step = document["subject"].get("step")
    if not all(isinstance(name, str) for name in document["class_names"]) or not isinstance(step, int | None):
        raise ValueError("wrong type of class_names or step")
    for entry in document["values"].values():
        _check_kinds(entry, value=float, count=int, better=str, hash=str, fields=dict, record=dict)
        if entry["interval"] is not None and len(entry["interval"]) != 2:
            raise ValueError(f"interval: {len(entry['interval'])} bounds")


def _check_kinds(entry: dict[str, Any], **kinds: type) -> None:
    for name, kind in kinds.items():
        if not isinstance(entry[name], kind):
            raise ValueError(f"{name}: {type(entry[name]).__name__}, expected {kind.__name__}")


def encoded(item: Any) -> Any:
    """Replaces NaN and infinities, which JSON lacks, by the strings "NaN", "Infinity" and "-Infinity"."""
    if isinstance(item, dict):
        return {str(key): encoded(value) for key, value in item.items()}
    if isinstance(item, list | tuple):
        return [encoded(value) for value in item]
    if isinstance(item, float) and not math.isfinite(item):
        return "NaN" if math.isnan(item) else "Infinity" if item > 0 else "-Infinity"
    return item


def _decoded(entries: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Converts numbers that `encoded` replaced back to floats."""
    for entry in entries.values():
        for name in ("value", "std"):
            entry[name] = float(entry[name]) if entry[name] is not None else None
        if entry["interval"] is not None:
            entry["interval"] = [float(bound) for bound in entry["interval"]]
    return entries
