"""Warning about weights that are trained while their singular vectors stay the same."""

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

PATIENCE = 10
"""Changes of a weight, counted at forward passes, after which it is taken to train without updates."""
PASSES = 16
"""Forward passes without a counted change after which values are compared, and after twice, four times, ... as many."""
SAMPLE = 16
"""Number of entries that are compared."""


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
    """Counts the changes of a weight since the last update of its singular vectors.

    Changes are noticed by the counter that torch increments at a change in place, so nothing is read from the device.
    Fused optimizers and assignments to `weight.data` leave the counter as it is, and others than `SpectralNorm.update_`
    may set the vectors (averages, checkpoints), or only write their values again (DistributedDataParallel). So a few
    values are compared before the warning, and after many passes without a counted change. Passes of compiled code are
    not noticed.

    In eval mode only passes after a gradient of the weight are counted, since copies that are evaluated may change
    without being trained: by averaging, or by loading.
    """

    def __init__(self) -> None:
        self._watch = new_watch() if _latest.trains else _latest
        self._version = -1
        self._before: list[Tensor] | None = None
        self.restart()

    def restart(self) -> None:
        """Called after an update of the vectors."""
        self._changes, self._passes, self._due, self._before = 0, 0, PASSES, None
        self.learns = False

    def await_gradient(self, normalized: Tensor) -> None:
        """Called with the normalized weight of a forward pass in eval mode; sets `learns` when it gets a gradient."""
        if normalized.requires_grad and not torch._C._are_functorch_transforms_active():
            normalized.register_hook(self._learn)

    def _learn(self, gradient: Tensor) -> None:
        self.learns = True

    def look(self, weight: Tensor, vectors: Mapping[str, Tensor | None]) -> None:
        """Called at forward passes in training mode or after a gradient, with the buffers that hold the vectors."""
        self.learns = False
        try:
            version = weight._version
        except RuntimeError:  # tensors of inference mode have no counter, and are not trained
            return
        if version != self._version:
            self._changes += self._version >= 0
            self._version = version
            if self._changes >= PATIENCE or (self._changes > 1 and self._before is None):
                self._compare(weight, vectors["_u"])
        else:
            self._passes += 1
            if self._passes >= self._due:
                self._due *= 2
                self._compare(weight, vectors["_u"])

    def _compare(self, weight: Tensor, u: Tensor | None) -> None:
        if u is None or (weight.is_cuda and torch.cuda.is_current_stream_capturing()):
            return
        self._watch.trains = True
        before, now = self._before, [u[:SAMPLE].clone(), weight.detach()[0].flatten()[:SAMPLE].clone()]
        if before is None:
            self._before = now
        elif not torch.equal(before[0].to(now[0]), now[0]):
            self.restart()
        elif self._changes >= PATIENCE or not torch.equal(before[1].to(now[1]), now[1]):
            self._watch.warn()
