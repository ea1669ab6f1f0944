"""Warning about weights that are trained while their singular vectors stay the same."""

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

PATIENCE = 10
"""Changes of a weight, counted at forward passes in training mode, after which it is taken to train without updates."""
PASSES = 16
"""Forward passes after which values are compared, and after twice, four times, ... as many."""


class Watch:
    """Whether weights train without updates and whether the warning was given; shared by the weights of a network."""

    def __init__(self) -> None:
        self.trains = False
        self.warned = False

    def warn(self) -> None:
        """Gives the warning, once."""
        if not self.warned:
            self.warned = True
            warnings.warn(
                'weights normalized with update="step" are trained while their singular vectors stay the same, so '
                "their norms are not bounded any more: call gan.normalization.update_(network) once per optimizer "
                'step, or normalize with update="forward"',
                stacklevel=4,
            )


_latest = Watch()


def new_watch() -> Watch:
    """Returns the watch of the weights that are normalized next, until one of them trains."""
    global _latest
    _latest = Watch()
    return _latest


class History:
    """Counts the changes of a weight since the last change of its singular vectors.

    It compares the version counters that torch increments at changes in place, so nothing is read from the device, and
    any change of the vectors counts as an update: `update_`, loading a checkpoint, copying buffers. Fused optimizers
    and assignments to `weight.data` leave the counter as it is, so a few values are compared too, ever more seldom.
    Passes of compiled code are not noticed.
    """

    def __init__(self) -> None:
        self._watch = new_watch() if _latest.trains else _latest
        self._weight, self._vectors, self._changes = -1, -1, 0
        self._passes, self._due = 0, PASSES
        self._values: Tensor | None = None

    def look(self, weight: Tensor, vectors: Mapping[str, Tensor | None]) -> None:
        """Called at forward passes in training mode, with the buffers that hold the singular vectors."""
        try:
            version = weight._version
        except RuntimeError:  # tensors of inference mode have no counter, and are not trained
            return
        if version != self._weight:
            self._weight = version
            self._changes += 1
            self._restart_if_moved(vectors)
            self._watch.trains |= self._changes > 0
            if self._changes >= PATIENCE:
                self._watch.warn()
        else:
            self._passes += 1
            if self._passes >= self._due:
                self._compare(weight, vectors)

    def _restart_if_moved(self, vectors: Mapping[str, Tensor | None]) -> None:
        u = vectors["_u"]
        if u is not None and u._version != self._vectors:
            self._vectors = u._version
            self._changes, self._passes, self._due, self._values = 0, 0, PASSES, None

    def _compare(self, weight: Tensor, vectors: Mapping[str, Tensor | None]) -> None:
        self._restart_if_moved(vectors)
        if self._passes == 0 or (weight.is_cuda and torch.cuda.is_current_stream_capturing()):
            return
        self._due *= 2
        before, self._values = self._values, weight.detach()[0].flatten()[:PASSES].clone()
        if before is not None and not torch.equal(before, self._values.to(before)):
            self._watch.trains = True
            self._watch.warn()
