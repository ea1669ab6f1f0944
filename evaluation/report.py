"""Values with the protocol that makes them comparable, as a file, arrays, plots and a table."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evaluation import plots
from evaluation.errors import EvaluationError
from evaluation.files import read_arrays, replacing

SCHEMA = 1


@dataclass(frozen=True)
class Value:
    """One number, under the key it is known by.

    `fields` are exactly what decides the value and are hashed; `record` is what is worth knowing besides. `better` is
    "higher", "lower" or "" where neither is. `std` is over splits or critics, None where there is no spread.
    `interval` is a 95 % interval (low, high) where one is defined; `record["interval"]` then says how it was obtained.
    """

    key: str
    value: float
    std: float | None
    count: int  # generated or real images in the mean
    better: str
    fields: dict[str, Any]
    record: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    interval: tuple[float, float] | None = None

    def entry(self) -> dict[str, Any]:
        """Everything but the number itself and the arrays, for `Report.protocol`."""
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
    """SHA-256 of the canonical JSON of a value's key and fields. Values of different hashes must not be compared.

    Raises:
        EvaluationError: fields that JSON does not know, whose hash would not be the same tomorrow.
    """
    try:
        text = json.dumps({"key": key, **fields}, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise EvaluationError(
            f"protocol of {key}: {error}; expected text, numbers, true, false, null, lists"
        ) from error
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Report:
    """What `evaluate` returns.

    Attributes:
        values: by key, such as "fid", "fid/classifier-1a2b3c4d" or "nd_short/srn2020/softplus_fake".
        arrays: "samples", "sample_labels" and what metrics add, such as the critics' losses.
        protocol: "title", "subject", "machine", and "values": for each key std, count, better, hash, fields, record.
    """

    values: dict[str, float]
    arrays: dict[str, np.ndarray]
    protocol: dict[str, Any]

    @classmethod
    def of(
        cls,
        values: Sequence[Value],
        *,
        arrays: dict[str, np.ndarray],
        title: str,
        subject: dict[str, Any],
        machine: dict[str, Any],
    ) -> "Report":
        """From what the metrics returned."""
        joined = dict(arrays)
        for value in values:
            joined |= value.arrays
        entries = {value.key: value.entry() for value in values}
        return cls(
            values={value.key: value.value for value in values},
            arrays=joined,
            protocol={"title": title, "subject": subject, "machine": machine, "values": entries},
        )

    def save(self, folder: str | Path) -> Path:
        """Writes report.json, report.txt (the table), arrays.npz and plots into a folder, made if missing; returns it.

        Each file is written beside and renamed, so a report is whole or as it was.

        Raises:
            EvaluationError: the folder cannot be written.
        """
        folder = Path(folder)
        values = {key: {"value": value, **self.protocol["values"][key]} for key, value in self.values.items()}
        document = {"schema": SCHEMA, **{name: self.protocol[name] for name in ("title", "subject", "machine")}}
        text = json.dumps(_encoded({**document, "values": values}), indent=2, allow_nan=False, ensure_ascii=False)
        try:
            with replacing(folder / "arrays.npz") as beside:
                np.savez_compressed(beside, **_file_names(self.arrays))  # type: ignore[arg-type]
            self._plot(folder)
            with replacing(folder / "report.json") as beside:
                beside.write_text(text + "\n", encoding="utf-8")
            with replacing(folder / "report.txt") as beside:
                beside.write_text(self.table() + "\n", encoding="utf-8")
        except OSError as error:
            raise EvaluationError(f"report: cannot be written into {folder} ({error})") from error
        return folder

    def _plot(self, folder: Path) -> None:
        if "samples" in self.arrays:
            labels = self.arrays.get("sample_labels")
            plots.save_grid(
                torch.from_numpy(self.arrays["samples"]),
                folder / "samples.png",
                labels=None if labels is None else torch.from_numpy(labels),
            )
        for name, losses in self.arrays.items():
            if name.endswith("/losses"):
                label = name.removesuffix("/losses")
                entry = self.protocol["values"][f"{label}/softplus_fake"]
                plots.plot_critics(
                    losses,
                    entry["fields"]["steps"],
                    label,
                    folder / f"{label.replace('/', '-')}.png",
                    chance=entry["record"]["chance"],
                )

    @classmethod
    def load(cls, folder: str | Path) -> "Report":
        """Reads what `save` wrote.

        Raises:
            EvaluationError: no report there, a damaged one, or one of another schema.
        """
        file = Path(folder) / "report.json"
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
            if document["schema"] != SCHEMA:
                raise EvaluationError(f"{file}: got schema {document['schema']}, expected {SCHEMA}; evaluate again")
            entries = _decoded(document["values"])
            values = {key: entry.pop("value") for key, entry in entries.items()}
            stored = read_arrays(Path(folder) / "arrays.npz")
            arrays = {name.replace("|", "/"): array for name, array in stored.items()}
            protocol = {name: document[name] for name in ("title", "subject", "machine")}
        except EvaluationError:
            raise
        except FileNotFoundError as error:
            raise EvaluationError(f"{error.filename}: not found, expected a folder that Report.save wrote") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise EvaluationError(
                f"{file}: got a damaged report ({error!r}), expected what Report.save wrote"
            ) from error
        return cls(values=values, arrays=arrays, protocol={**protocol, "values": entries})

    def table(self) -> str:
        """The values for a terminal: mean ± std, images, direction, the first 8 digits of the protocol hash."""
        rows = [("metric", "value", "images", "better", "protocol")]
        notes = []
        for key, value in self.values.items():
            entry = self.protocol["values"][key]
            spread = "" if entry["std"] is None else f" ± {entry['std']:.4g}"
            rows.append((key, f"{value:.6g}{spread}", f"{entry['count']:,}", entry["better"], entry["hash"][:8]))
            notes += [note for note in (entry["record"].get("note"),) if note and note not in notes]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines.insert(1, "  ".join("-" * width for width in widths))
        title = [self.protocol["title"]] if self.protocol["title"] else []
        return "\n".join([*title, *lines, *(f"note: {note}" for note in notes)])


def _file_names(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A slash would make folders inside the archive."""
    return {name.replace("/", "|"): array for name, array in arrays.items()}


def _encoded(item: Any) -> Any:
    """JSON has no NaN and no infinity: they become the strings "NaN", "Infinity" and "-Infinity"."""
    if isinstance(item, dict):
        return {str(key): _encoded(value) for key, value in item.items()}
    if isinstance(item, list | tuple):
        return [_encoded(value) for value in item]
    if isinstance(item, float) and not math.isfinite(item):
        return "NaN" if math.isnan(item) else "Infinity" if item > 0 else "-Infinity"
    return item


def _decoded(entries: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The numbers of `_encoded` values back as floats."""
    for entry in entries.values():
        for name in ("value", "std"):
            entry[name] = float(entry[name]) if entry[name] is not None else None
    return entries
