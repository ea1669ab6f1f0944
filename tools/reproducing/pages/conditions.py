"""Conditions of numbers, such as data, settings, seeds and machine; those equal in all rows are shown once."""

import math
from collections.abc import Iterable, Mapping, Sequence

from evaluation.reporting.tables import markdown_table
from gan.config import Config
from gan.config.classifier import ClassifierConfig
from reproducing.measured import MeasuredRun
from reproducing.results import Spread

PAPER, OURS = "paper", "ours"
VARIES = "see the rows"


def describe_data(config: Config | ClassifierConfig) -> str:
    """Name of a configuration's data, with the path of a folder or archive that has no title."""
    data = config.data
    return data.title or (f"{data.name} {data.root}" if data.name == "folder" else data.name)


def describe_time(runs: Sequence[MeasuredRun]) -> str:
    """Mean minutes of training and of evaluation; training is averaged over the runs that this tool trained."""
    training = Spread.of([run.training_seconds / 60 for run in runs if run.training_seconds]).mean
    evaluation = Spread.of([run.evaluation_seconds / 60 for run in runs]).mean
    return f"{'not noted' if math.isnan(training) else f'{training:.1f} min'} + {evaluation:.1f} min"


def describe_devices(runs: Sequence[MeasuredRun]) -> str:
    """Devices on which runs trained."""
    return ", ".join(sorted({run.device for run in runs}))


def joined(texts: Iterable[str], separator: str) -> str:
    """Distinct non-empty texts in order."""
    return separator.join(dict.fromkeys(filter(None, texts)))


class Conditions:
    """Conditions of a table's rows, split into those equal in all rows and those that vary.

    Args:
        rows: conditions of every row by name, for the paper's side and ours.
    """

    def __init__(self, rows: Mapping[str, Sequence[Mapping[str, str]]]) -> None:
        self._names = dict.fromkeys(name for each in rows.values() for row in each for name in row)
        self._values = {
            side: {name: {row.get(name, "") for row in each} for name in self._names} for side, each in rows.items()
        }

    def cell(self, side: str, row: Mapping[str, str]) -> str:
        """Conditions of one row that vary between the rows of its side."""
        own = [f"{name}: {row[name]}" for name in row if row[name] and len(self._values[side][name]) > 1]
        return "<br>".join(own)

    def markdown(self) -> str:
        """Table of the conditions that are equal in all rows."""
        rows = [[name, *(self._shared(side, name) for side in (PAPER, OURS))] for name in self._names]
        return markdown_table([["conditions", "the paper's", "ours"], *(row for row in rows if any(row[1:]))])

    def _shared(self, side: str, name: str) -> str:
        values = self._values[side][name]
        return VARIES if len(values) > 1 else "".join(values)
