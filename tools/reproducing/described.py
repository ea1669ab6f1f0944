"""Words for conditions of numbers."""

from collections.abc import Iterable, Sequence

from reproducing.measured import MeasuredRun


def describe_devices(runs: Sequence[MeasuredRun]) -> str:
    """Devices on which runs trained."""
    return ", ".join(sorted({run.device for run in runs}))


def joined(texts: Iterable[str], separator: str) -> str:
    """Distinct non-empty texts in order."""
    return separator.join(dict.fromkeys(filter(None, texts)))
