"""Interface of the log that the training loops write to."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
from torch import Tensor

from gan.normalization import LayerSpectrum
from gan.training.gradients import Gradients
from gan.training.health import Alarm


class Log:
    """Log that writes nothing, for processes other than the first; `gan.runs.logger.Logger` describes the methods."""

    def start(self, step: int) -> None: ...

    def say(self, text: str) -> None: ...

    def pause(self) -> AbstractContextManager[None]:
        return nullcontext()

    def line(
        self, step: int, scalars: dict[str, float], layers: Sequence[LayerSpectrum], data_seconds: float = 0.0
    ) -> None: ...

    def layers(self, step: int, layers: Sequence[LayerSpectrum]) -> None: ...

    def gradients(self, step: int, gradients: Gradients) -> None: ...

    def grid(self, step: int, image: Tensor) -> None: ...

    def alarm(self, step: int, alarm: Alarm) -> None: ...

    def alarms(self, step: int, active: Mapping[str, bool]) -> None: ...

    def metrics(self, step: int, values: dict[str, float], distributions: Mapping[str, np.ndarray]) -> None: ...

    def evaluated(self, step: int) -> bool:
        return False

    def before_saving(self) -> None: ...

    def saved(self, path: Path) -> None: ...

    def advance(self, step: int) -> None: ...

    def close(self) -> None: ...
