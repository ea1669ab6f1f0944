"""The kinds of runs by name."""

from pathlib import Path
from typing import Any

from gan.measuring.exported import begin_from
from gan.runs.kinds import AnyConfig, Kind
from gan.runs.kinds.classifier import ClassifierRuns
from gan.runs.kinds.gan import GanRuns

KINDS: dict[str, type[Any]] = {"gan": GanRuns, "classifier": ClassifierRuns}
"""Maps the `kind` of a configuration to its kind of run."""


def kind_of(config: AnyConfig, start: Path | None = None) -> Kind:
    """Returns the kind of run that trains this configuration.

    Args:
        start: run folder, checkpoint or folder of gan-export whose networks the run begins with.

    Raises:
        UserError: the networks cannot be loaded.
    """
    kind: Kind = KINDS[config.kind](config)
    return kind if start is None else kind.begun_from(begin_from(start))


__all__ = ["KINDS", "kind_of"]
