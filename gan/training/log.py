"""Interface of the log that the training loops write."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor

from gan.normalization import LayerSpectrum
from gan.training.health import Alarm


class Log(Protocol):
    """Log of a run, such as `gan.runs.logger.Logger`, which describes its methods."""

    def start(self, step: int) -> None: ...

    def pause(self) -> AbstractContextManager[None]: ...

    def line(
        self, step: int, scalars: dict[str, float], layers: Sequence[LayerSpectrum], data_seconds: float = 0.0
    ) -> None: ...

    def layers(self, step: int, layers: Sequence[LayerSpectrum]) -> None: ...

    def grid(self, step: int, image: Tensor) -> None: ...

    def alarm(self, step: int, alarm: Alarm) -> None: ...

    def alarms(self, step: int, active: Mapping[str, bool]) -> None: ...

    def metrics(self, step: int, values: dict[str, float], distributions: Mapping[str, np.ndarray]) -> None: ...

    def evaluated(self, step: int) -> bool: ...

    def before_saving(self) -> None: ...

    def saved(self, path: Path) -> None: ...

    def advance(self, step: int) -> None: ...
