"""Prefetching on a CUDA device: each batch is queued while the previous one is in use."""

from collections.abc import Iterable, Iterator
from functools import cache

import torch
from torch import Tensor


def upload(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Copies a tensor to the device; to a CUDA device asynchronously, through pinned memory."""
    device = torch.device(device)
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def ahead(batches: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Yields the same batches; on a CUDA device each is computed while the previous one is in use.

    The operations of the next batch are queued on a separate stream before a batch is yielded. The iterator is at most
    one batch ahead, so two batches are in memory.

    The separate stream reuses the memory of a batch that was used and freed only after it has waited for the current
    stream. So `Tensor.record_stream` is not needed; torch never reuses memory marked by it once a capture has failed.
    All iterations on a stream share its separate stream, because torch keeps freed memory for the stream that it was
    allocated on. So they must be in one thread.
    """
    if device.type != "cuda":
        yield from batches
        return
    with torch.cuda.device(device):
        stream, batches = _separate_stream(torch.cuda.current_stream()), iter(batches)
        current = _queued(batches, stream)
    while current is not None:
        batch, made = current
        with torch.cuda.device(device):
            current = _queued(batches, stream)
            torch.cuda.current_stream().wait_event(made)
        yield batch


@cache
def _separate_stream(current: torch.cuda.Stream) -> torch.cuda.Stream:
    """Stream on which batches for `current` are made, on the same device."""
    return torch.cuda.Stream(current.device)


def _queued(batches: Iterator[Tensor], stream: torch.cuda.Stream) -> tuple[Tensor, torch.cuda.Event] | None:
    """Queues the next batch after the current stream's operations; returns it with the event of its completion."""
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        batch = next(batches, None)
        return None if batch is None else (batch, stream.record_event())
