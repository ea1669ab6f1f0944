"""Work for a CUDA device that is queued before it is needed, so that neither host nor device waits for the other."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; through pinned memory, from which a copy is queued like any other operation."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def ahead(batches: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
    """The same batches; on a CUDA device each is made while the one before is in use.

    Whatever the iterator does for a batch is queued on a stream of its own, before the batch in front of it is handed
    out. It is never more than one batch ahead, so memory is that of two.
    """
    if device.type != "cuda":
        yield from batches
        return
    with torch.cuda.device(device):
        stream, batches = torch.cuda.Stream(), iter(batches)
        current = _queued(batches, stream)
    while current is not None:
        batch, made = current
        with torch.cuda.device(device):
            current = _queued(batches, stream)
            user = torch.cuda.current_stream()
            user.wait_event(made)
            batch.record_stream(user)  # else its memory could be written while it is read
        yield batch


def _queued(batches: Iterator[Tensor], stream: torch.cuda.Stream) -> tuple[Tensor, torch.cuda.Event] | None:
    """The next batch, being made after all that is queued on the current stream so far; and when it is done."""
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        batch = next(batches, None)
        return None if batch is None else (batch, stream.record_event())
