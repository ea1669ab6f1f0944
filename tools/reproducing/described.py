"""Words for conditions of numbers."""

from collections.abc import Iterable, Sequence

from gan.config import Config
from gan.config.classifier import ClassifierConfig
from reproducing.measured import MeasuredRun


def describe_data(config: Config | ClassifierConfig) -> str:
    """Name of a configuration's data, with the path of a folder or archive that has no title."""
    data = config.data
    return data.title or (f"{data.name} {data.root}" if data.name == "folder" else data.name)


def describe_devices(runs: Sequence[MeasuredRun]) -> str:
    """Devices on which runs trained."""
    return ", ".join(sorted({run.device for run in runs}))


def joined(texts: Iterable[str], separator: str) -> str:
    """Distinct non-empty texts in order."""
    return separator.join(dict.fromkeys(filter(None, texts)))
