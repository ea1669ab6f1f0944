"""A critic's update as a CUDA graph: one launch instead of dozens, which would take longer than the arithmetic."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from evaluation.runtime.files import first_lines

WARMUP = 3  # ordinary updates before the capture, in which libraries choose kernels and Adam creates its state


class Batch(NamedTuple):
    """Inputs of a critic update."""

    images: Tensor  # uint8 (2B, C, H, W), real images first
    uniforms: Tensor | None  # float32 of the images' shape in [0, 1), for dequantization
    shares: Tensor | None  # float32 (B, 1, 1, 1) in [0, 1), interpolation weights of the gradient penalty

    def copy(self) -> "Batch":
        """Copies all tensors."""
        uniforms, shares = (None if part is None else part.clone() for part in (self.uniforms, self.shares))
        return Batch(self.images.clone(), uniforms, shares)


class PlainUpdate:
    """An update that runs operation by operation and returns the loss on the device; `name` gives the reason."""

    def __init__(self, update: Callable[[Batch], Tensor], reason: str) -> None:
        self.update, self.name = update, f"plain updates: {reason}"

    def __call__(self, batch: Batch) -> Tensor:
        return self.update(batch)


class CapturedUpdate:
    """An update captured as a CUDA graph and replayed; batches of another shape run operation by operation.

    After WARMUP updates the next one is captured. Its tensors must keep their addresses from then on; batches are
    copied to the captured addresses. If the capture fails, updates run operation by operation.
    """

    def __init__(self, update: Callable[[Batch], Tensor], device: torch.device) -> None:
        self.update, self.device = update, device
        self.name = "plain updates: too few to capture one"
        self.warmed_up = 0
        self._stream = torch.cuda.Stream(device)  # the warm-up needs the same stream, because gradients stay on it
        self._record: Record | None = None
        self._failed = False

    def __call__(self, batch: Batch) -> Tensor:
        with torch.cuda.device(self.device):
            if self.warmed_up < WARMUP:
                return self._warm_up(batch)
            if self._record is None and not self._failed:
                self._capture(batch)
            if self._record is None or self._record.inputs.images.shape != batch.images.shape:
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
            # The outer context restores the stream even if ending the capture fails.
            with torch.cuda.stream(self._stream), torch.cuda.graph(graph, stream=self._stream):
                loss = self.update(inputs)
        except RuntimeError as error:
            self._failed = True
            self.name = f"plain updates: the capture failed ({first_lines(error)})"
            return
        self._record = Record(graph, inputs, loss)
        self.name = "one CUDA graph per update"


class Record(NamedTuple):
    """A captured update with the tensors that it reads its batch from and writes its loss to."""

    graph: torch.cuda.CUDAGraph
    inputs: Batch
    loss: Tensor

    def replay(self, batch: Batch) -> Tensor:
        """Runs the update on the batch; returns the loss, which the next call overwrites."""
        for held, part in zip(self.inputs, batch, strict=True):
            if held is not None and part is not None:
                held.copy_(part)
        self.graph.replay()
        return self.loss


def choose_update(update: Callable[[Batch], Tensor], device: torch.device) -> PlainUpdate | CapturedUpdate:
    """Returns the update as a CUDA graph on CUDA devices, as an ordinary function on others."""
    if device.type == "cuda":
        return CapturedUpdate(update, device)
    return PlainUpdate(update, f"a CUDA graph needs a CUDA device, this is {device.type}")
