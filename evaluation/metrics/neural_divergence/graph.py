"""A critic's update as a CUDA graph: one launch in the place of dozens that take longer than their arithmetic."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from evaluation.runtime.files import first_line

WARMUP = 3
"""Updates before the capture, in which libraries choose their kernels and Adam makes its state. They count."""


class Batch(NamedTuple):
    """What an update takes from outside the critic.

    images: uint8 (2B, 3, H, W), the real ones first.
    uniforms: float32 of that shape in [0, 1), for dequantization, or None.
    shares: float32 (B, 1, 1, 1) in [0, 1), of the points of the gradient penalty, or None.
    """

    images: Tensor
    uniforms: Tensor | None
    shares: Tensor | None

    def copy(self) -> "Batch":
        """The same numbers in tensors of their own."""
        uniforms, shares = (None if part is None else part.clone() for part in (self.uniforms, self.shares))
        return Batch(self.images.clone(), uniforms, shares)


class Update(Protocol):
    """One step of a critic; returns its loss, a scalar on the device. `name` says which way it takes and why."""

    name: str

    def __call__(self, batch: Batch) -> Tensor: ...


def choose_update(update: Callable[[Batch], Tensor], device: torch.device) -> Update:
    """As a graph on a CUDA device, else operation by operation."""
    if device.type == "cuda":
        return CapturedUpdate(update, device)
    return PlainUpdate(update, f"a CUDA graph needs a CUDA device, this is {device.type}")


class PlainUpdate:
    """The update itself."""

    def __init__(self, update: Callable[[Batch], Tensor], reason: str) -> None:
        self.update, self.name = update, f"plain updates: {reason}"

    def __call__(self, batch: Batch) -> Tensor:
        return self.update(batch)


class CapturedUpdate:
    """The same operations on the same numbers, recorded once and replayed; batches of another shape go without.

    After WARMUP plain updates the next one is recorded. What it reads and writes must stay where it is from then on,
    but for the batch, which is copied to where the record reads it. Where the capture fails, updates stay plain.
    """

    def __init__(self, update: Callable[[Batch], Tensor], device: torch.device) -> None:
        self.update, self.device = update, device
        self.name = "plain updates: too few to record one"
        self.warmed_up = 0
        self._stream = torch.cuda.Stream(device)  # for warming up too: gradients stay on the stream they began on
        self._record: Record | None = None
        self._failed = False

    def __call__(self, batch: Batch) -> Tensor:
        with torch.cuda.device(self.device):
            if self.warmed_up < WARMUP:
                return self._warm_up(batch)
            if self._record is None and not self._failed:
                self._capture(batch)
            if self._record is None or not self._record.takes(batch):
                return self.update(batch)
            return self._record.replay(batch)

    def _warm_up(self, batch: Batch) -> Tensor:
        self.warmed_up += 1
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            loss = self.update(batch).clone()
        torch.cuda.current_stream().wait_stream(self._stream)
        return loss

    def _capture(self, batch: Batch) -> None:
        graph, inputs = torch.cuda.CUDAGraph(), batch.copy()
        try:
            # The outer context leaves the stream also where a failed end of the capture would stay on it.
            with torch.cuda.stream(self._stream), torch.cuda.graph(graph, stream=self._stream):
                loss = self.update(inputs)
        except RuntimeError as error:
            self._failed = True
            self.name = f"plain updates: the capture failed ({first_line(error.__context__ or error)})"
            return
        self._record = Record(graph, inputs, loss)
        self.name = "one CUDA graph per update"


class Record(NamedTuple):
    """A recorded update, where it reads its batch, and where it writes its loss."""

    graph: torch.cuda.CUDAGraph
    inputs: Batch
    loss: Tensor

    def takes(self, batch: Batch) -> bool:
        """Whether the batch has the recorded one's shape."""
        return batch.images.shape == self.inputs.images.shape

    def replay(self, batch: Batch) -> Tensor:
        """Runs the update on the batch; the next one overwrites the loss."""
        for held, part in zip(self.inputs, batch, strict=True):
            if held is not None and part is not None:
                held.copy_(part)
        self.graph.replay()
        return self.loss
