"""Result of an evaluation: values, arrays and protocols, saved to a folder and loaded from one."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from evaluation.errors import EvaluationError
from evaluation.images.checks import check_images, check_labels
from evaluation.reporting import histograms, plots
from evaluation.reporting.document import document_text, read_values
from evaluation.reporting.html import report_page
from evaluation.reporting.tables import class_table, value_table
from evaluation.reporting.value import Value
from evaluation.runtime.drawing import can_draw
from evaluation.runtime.files import read_arrays, replacing, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Report:
    """Result of `evaluate`.

    Attributes:
        values: numbers by key, such as "fid", "fid/classifier-1a2b3c4d" or "nd_short/srn2020/softplus_fake".
        arrays: "samples", "reference_samples" and their labels ("sample_labels", "reference_sample_labels") if known,
            the arrays of `sample_neighbours`, and arrays of metrics, such as losses.
        protocol: "title", "subject", "machine", "class_names", "neighbours" (the method), and "values": for each key
            std, interval, count, better, hash, fields, record.
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
        """Builds a report from the values that the metrics returned."""
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
        """Writes report.json, .html and .txt, arrays.npz, plots and, if there are values by class, classes.csv.

        Each file is replaced atomically. Creates the folder.

        Args:
            training_log: metrics.jsonl of the run, whose curves the page shows.

        Returns:
            The folder.

        Raises:
            EvaluationError: the folder cannot be written.
        """
        folder = Path(folder)
        try:
            with replacing(folder / "arrays.npz") as partial:
                # A slash would create folders inside the archive.
                arrays = {name.replace("/", "|"): array for name, array in self.arrays.items()}
                np.savez_compressed(partial, **arrays)  # type: ignore[arg-type]
            self._save_images(folder)
            for name, figure in self._figures() if can_draw() else ():
                plots.save_figure(figure, folder / f"{name}.png")
            write_text(folder / "report.json", document_text(self))
            write_text(folder / "report.txt", self.table() + "\n")
            if classes := class_table(self):
                text = io.StringIO()
                csv.writer(text, lineterminator="\n").writerows(classes)
                write_text(folder / "classes.csv", text.getvalue())
            write_text(folder / "report.html", report_page(self, training_log=training_log))
        except OSError as error:
            raise EvaluationError(f"report: cannot be written into {folder} ({error})") from error
        return folder

    def _save_images(self, folder: Path) -> None:
        arrays = self.arrays
        if "samples" in arrays:
            labels = torch.from_numpy(arrays["sample_labels"]) if "sample_labels" in arrays else None
            plots.save_grid(torch.from_numpy(arrays["samples"]), folder / "samples.png", labels=labels)
        if "neighbours" in arrays:
            plots.save_neighbours(arrays["neighbour_samples"], arrays["neighbours"], folder / "neighbours.png")

    def _figures(self) -> "Iterator[tuple[str, Figure]]":
        """Yields figures with their file names, without extension."""
        for name in self.arrays:
            if name.endswith("/losses"):
                yield name.removesuffix("/losses").replace("/", "-"), plots.critics_figure(self, name)
        for family in histograms.families(self):
            yield family, histograms.kinds_figure(self, family)
        if layers := plots.layer_curves(self.arrays):
            yield "layers", plots.layers_figure({self.protocol["title"]: layers})

    @classmethod
    def load(cls, folder: str | Path) -> "Report":
        """Reads a saved report of this schema or an older one; without arrays.npz, values only.

        Raises:
            EvaluationError: the folder has no report, a damaged one, or one of a newer schema.
        """
        values, protocol = read_values(folder)
        file = Path(folder) / "arrays.npz"
        try:
            stored = read_arrays(file) if file.exists() else {}
            arrays = {name.replace("|", "/"): array for name, array in stored.items()}
            _check_arrays(arrays)
        except (OSError, ValueError) as error:
            raise EvaluationError(
                f"{file}: got a damaged file ({error}), expected one written by Report.save"
            ) from error
        return cls(values, arrays, protocol)

    def table(self) -> str:
        """Formats the values, followed by values by class, for a terminal."""
        return value_table(self)


def _check_arrays(arrays: dict[str, np.ndarray]) -> None:
    """Raises ValueError for an array that cannot be drawn."""
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
    for name in ("sample", "reference_sample"):
        samples, labels = arrays.get(f"{name}s"), arrays.get(f"{name}_labels")
        if samples is not None:
            check_images(torch.from_numpy(samples), name)
            if labels is not None:
                check_labels(torch.from_numpy(labels), len(samples), name)
