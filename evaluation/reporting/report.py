"""Values with the protocol that makes them comparable, as a file, arrays, plots and a table."""

import csv
import hashlib
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from evaluation.errors import EvaluationError
from evaluation.images.reader import check_images, check_labels
from evaluation.reporting import histograms, plots
from evaluation.reporting.html import report_page
from evaluation.reporting.tables import class_name, interval_text, text_table, with_spread
from evaluation.runtime.files import read_arrays, replacing

# 2: "machine.extractors" instead of "machine.extractor"; values have "interval"; "class_names" and "neighbours" are new
SCHEMA = 2


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
    count: int  # generated or real images in the mean, or what record["counted"] says, such as "layers"
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
        arrays: "samples", "sample_labels", "neighbours" and its like, and what metrics add, such as critics' losses.
        protocol: "title", "subject", "machine", "class_names", "neighbours" (how they were found), and "values": for
            each key std, interval, count, better, hash, fields, record.
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
        class_names: Sequence[str] = (),
        neighbours: dict[str, Any] | None = None,
    ) -> "Report":
        """From what the metrics returned."""
        joined = dict(arrays)
        for value in values:
            joined |= value.arrays
        protocol = {
            "title": title,
            "subject": subject,
            "machine": machine,
            "class_names": list(class_names),
            "neighbours": neighbours or {},
            "values": {value.key: value.entry() for value in values},
        }
        return cls(values={value.key: value.value for value in values}, arrays=joined, protocol=protocol)

    def save(self, folder: str | Path, *, training_log: str | Path | None = None) -> Path:
        """Writes report.json, .html and .txt, arrays.npz, plots and, where there are values by class, classes.csv.

        The folder is made if missing, and returned.

        Each file is written beside and renamed, so a report is whole or as it was.

        Args:
            training_log: metrics.jsonl of the run, whose curves the page then shows.

        Raises:
            EvaluationError: the folder cannot be written.
        """
        folder = Path(folder)
        values = {key: {"value": value, **self.protocol["values"][key]} for key, value in self.values.items()}
        document = {"schema": SCHEMA, **{name: item for name, item in self.protocol.items() if name != "values"}}
        text = json.dumps(encoded({**document, "values": values}), indent=2, allow_nan=False, ensure_ascii=False)
        try:
            with replacing(folder / "arrays.npz") as beside:
                np.savez_compressed(beside, **_file_names(self.arrays))  # type: ignore[arg-type]
            self._plot(folder)
            with replacing(folder / "report.json") as beside:
                beside.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
            with replacing(folder / "report.txt") as beside:
                beside.write_text(self.table() + "\n", encoding="utf-8", errors="backslashreplace")
            if classes := self.by_class():
                with replacing(folder / "classes.csv") as beside:
                    beside.write_text(_csv(classes), encoding="utf-8", errors="backslashreplace", newline="")
            with replacing(folder / "report.html") as beside:
                page = report_page(self, training_log=training_log)
                beside.write_text(page, encoding="utf-8", errors="backslashreplace")
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
        if "neighbours" in self.arrays:
            plots.save_neighbours(
                self.arrays["neighbour_samples"], self.arrays["neighbours"], folder / "neighbours.png"
            )
        for name, losses in self.arrays.items():
            if name.endswith("/losses"):
                label = name.removesuffix("/losses")
                steps, chance = self.critic_run(label)
                file = folder / f"{label.replace('/', '-')}.png"
                plots.plot_critics(losses, steps, label, file, chance=chance)
        for family in histograms.families(self):
            histograms.plot_kinds(self, family, folder / f"{family}.png")
        if layers := plots.layer_curves(self.arrays):
            plots.save_figure(plots.layers_figure({self.protocol["title"]: layers}), folder / "layers.png")

    def critic_run(self, label: str) -> tuple[int, float]:
        """Updates of the critics whose terms are called "label/...", and the loss of one that says nothing."""
        entries = self.protocol["values"].items()
        entry = next(entry for key, entry in entries if key.startswith(f"{label}/"))
        return int(entry["fields"]["steps"]), float(entry["record"].get("chance", 2 * math.log(2)))

    @classmethod
    def load(cls, folder: str | Path) -> "Report":
        """Reads what `save` wrote, of this schema or an older one; without arrays.npz there are values only.

        Raises:
            EvaluationError: no report there, a damaged one, or one of a newer schema.
        """
        values, protocol = read_values(folder)
        file = Path(folder) / "arrays.npz"
        try:
            stored = read_arrays(file) if file.exists() else {}
            arrays = {name.replace("|", "/"): array for name, array in stored.items()}
            _check_arrays(arrays)
        except (OSError, ValueError) as error:
            raise EvaluationError(f"{file}: got a damaged file ({error}), expected what Report.save wrote") from error
        return cls(values, arrays, protocol)

    def table(self) -> str:
        """The values for a terminal: mean ± std, 95 % interval, images, direction, 8 digits of the protocol hash.

        Values by class follow in a table of their own.
        """
        rows = [("metric", "value", "95 % interval", "images", "better", "protocol")]
        for key, value in self.values.items():
            entry = self.protocol["values"][key]
            shown = with_spread(value, entry["std"]), interval_text(entry["interval"])
            rows.append((key, *shown, self.counted(key), entry["better"], entry["hash"][:8]))
        title = [self.protocol["title"]] if self.protocol["title"] else []
        by_class = self.by_class()
        classes = ["", *text_table(by_class)] if by_class else []
        return "\n".join([*title, *text_table(rows), *(f"note: {note}" for note in self.notes), *classes])

    def counted(self, key: str) -> str:
        """How many images are in a value, such as "5,000"; "21 layers" where others than images are counted."""
        entry = self.protocol["values"][key]
        return f"{entry['count']:,} {entry['record'].get('counted', '')}".rstrip()

    def by_class(self) -> list[list[str]]:
        """A header, a row for each class and one of their means; a column for each value that has one by class.

        What a metric leaves out of a class is an empty cell. Empty where no value has one by class.
        """
        columns: dict[str, dict[int, float]] = {}
        for name, values in self.arrays.items():
            if name.endswith("/per_class") and len(values):
                key = name.removesuffix("/per_class")
                labels = self.arrays.get(f"{key}/classes", np.arange(len(values)))
                columns[key] = dict(zip(labels.tolist(), values.tolist(), strict=True))
        if not columns:
            return []
        names, found = self.protocol["class_names"], columns.values()
        rows = [
            [class_name(label, names), *(f"{one[label]:.6g}" if label in one else "" for one in found)]
            for label in sorted(set().union(*found))
        ]
        return [["class", *columns], *rows, ["mean", *(f"{fmean(one.values()):.6g}" for one in found)]]

    @property
    def notes(self) -> list[str]:
        """What metrics say of how far their values can be trusted, each once."""
        notes = [entry["record"].get("note") for entry in self.protocol["values"].values()]
        return list(dict.fromkeys(note for note in notes if note))


def read_values(folder: str | Path) -> tuple[dict[str, float], dict[str, Any]]:
    """`Report.values` and `Report.protocol` of a folder that `Report.save` wrote.

    Raises:
        EvaluationError: no report there, a damaged one, or one of a newer schema.
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
        raise EvaluationError(f"{file}: not found, expected a folder that Report.save wrote") from error
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        OverflowError,
        RecursionError,
    ) as error:
        raise EvaluationError(f"{file}: got a damaged report ({error!r}), expected what Report.save wrote") from error


def _upgraded(document: dict[str, Any], file: Path) -> dict[str, Any]:
    """A document of schema 1 in the form of schema 2."""
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
    """Raises ValueError where an entry is of another kind than `Report.save` writes; TypeError, KeyError too."""
    _check_kinds(document, title=str, subject=dict, machine=dict, class_names=list, neighbours=dict)
    step = document["subject"].get("step")
    if not all(isinstance(name, str) for name in document["class_names"]) or not isinstance(step, int | None):
        raise ValueError("class_names or step of another kind")
    for entry in document["values"].values():
        _check_kinds(entry, value=float, count=int, better=str, hash=str, fields=dict, record=dict)
        if entry["interval"] is not None and len(entry["interval"]) != 2:
            raise ValueError(f"interval: {len(entry['interval'])} bounds")


def _check_kinds(entry: dict[str, Any], **kinds: type) -> None:
    for name, kind in kinds.items():
        if not isinstance(entry[name], kind):
            raise ValueError(f"{name}: {type(entry[name]).__name__}, expected {kind.__name__}")


def _check_arrays(arrays: dict[str, np.ndarray]) -> None:
    """Raises ValueError where an array cannot be drawn."""
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{name}: {array.dtype}, expected numbers")
        if name.endswith("/per_class"):
            classes = arrays.get(f"{name.removesuffix('/per_class')}/classes")
            if array.ndim != 1 or (classes is not None and classes.shape != array.shape):
                raise ValueError(f"{name}: {array.shape}, expected a number for each class")
    layers = [arrays[name] for name in plots.LAYERS.values() if name in arrays]
    if any(array.ndim != 1 or len(array) != len(layers[0]) or not len(array) for array in layers):
        raise ValueError(f"spectra: {[array.shape for array in layers]}, expected a number for each layer")
    samples, labels = arrays.get("samples"), arrays.get("sample_labels")
    if samples is not None:
        check_images(torch.from_numpy(samples), "sample")
        if labels is not None:
            check_labels(torch.from_numpy(labels), len(samples), "sample")


def _csv(rows: list[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _file_names(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A slash would make folders inside the archive."""
    return {name.replace("/", "|"): array for name, array in arrays.items()}


def encoded(item: Any) -> Any:
    """JSON has no NaN and no infinity: they become the strings "NaN", "Infinity" and "-Infinity"."""
    if isinstance(item, dict):
        return {str(key): encoded(value) for key, value in item.items()}
    if isinstance(item, list | tuple):
        return [encoded(value) for value in item]
    if isinstance(item, float) and not math.isfinite(item):
        return "NaN" if math.isnan(item) else "Infinity" if item > 0 else "-Infinity"
    return item


def _decoded(entries: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The numbers of `encoded` values back as floats."""
    for entry in entries.values():
        for name in ("value", "std"):
            entry[name] = float(entry[name]) if entry[name] is not None else None
        if entry["interval"] is not None:
            entry["interval"] = [float(bound) for bound in entry["interval"]]
    return entries
