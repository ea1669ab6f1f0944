"""What the training loops report to: a run's log."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor

from gan.normalization import LayerSpectrum
from gan.training.health import Alarm


class Log(Protocol):
    """Log of a run; `gan.runs.logger.Logger` writes one into the run's folder."""

    def start(self, step: int) -> None:
        """Called right before the first training step."""

    def pause(self) -> AbstractContextManager[None]:
        """Inside, time does not count as training."""

    def line(
        self, step: int, scalars: dict[str, float], layers: Sequence[LayerSpectrum], data_seconds: float = 0.0
    ) -> None:
        """Means since the last line, spectra of the weights, and seconds spent on real images since the start."""

    def layers(self, step: int, layers: Sequence[LayerSpectrum]) -> None:
        """Spectra of the weights alone."""

    def grid(self, step: int, image: Tensor) -> None:
        """A grid of generated images, uint8 (3, H, W)."""

    def alarm(self, step: int, alarm: Alarm) -> None:
        """An alarm that begins or ends."""

    def alarms(self, step: int, active: Mapping[str, bool]) -> None:
        """State of the alarms after a step."""

    def metrics(self, step: int, values: dict[str, float], distributions: Mapping[str, np.ndarray]) -> None:
        """Results of an evaluation."""

    def evaluated(self, step: int) -> bool:
        """Whether the evaluation at a step is complete in the log."""

    def before_saving(self) -> None:
        """Called before a checkpoint is written."""

    def saved(self, path: Path) -> None:
        """Called after a checkpoint is written."""

    def advance(self, step: int) -> None:
        """Called after every step."""


__all__ = ["Log"]
