"""Evaluation by several processes: whole batches are dealt out, and what comes of them is gathered in order.

All processes evaluate the same images in the same order, so every value is one process's. Whoever calls has connected
them (`torch.distributed.init_process_group`); where nobody has, there is one, and nothing here does anything.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from evaluation.errors import EvaluationError

T = TypeVar("T")


def several() -> bool:
    """Whether this process is one of several."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def is_first() -> bool:
    """Whether this process is the one that writes and tells."""
    return not several() or dist.get_rank() == 0


def own_part(count: int, batch_size: int) -> slice:
    """Which of `count` rows are this process's: whole batches, the same as one process's; maybe none."""
    if not several():
        return slice(0, count)
    batches, rank, processes = -(-count // batch_size), dist.get_rank(), dist.get_world_size()
    start, stop = (batches * position // processes * batch_size for position in (rank, rank + 1))
    return slice(min(start, count), min(stop, count))


def gathered(part: Tensor | None) -> Tensor | None:
    """The rows of all processes in their order, in each of them; None where none has any.

    Args:
        part: this process's rows (n, ...), on the CPU; None for no rows. Images with channels last stay so: the order
            in memory decides the last bits of what is computed of them.
    """
    if not several():
        return part
    forms: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(forms, None if part is None else (part.shape, part.dtype, _has_channels_last(part)))
    pieces = []
    for source, form in enumerate(forms):
        if form is None:
            continue
        shape, dtype, channels_last = form
        piece = torch.empty(shape, dtype=dtype, device="cpu")
        if part is not None and source == dist.get_rank():
            piece.copy_(part)
        dist.broadcast(piece, src=source)
        pieces.append(piece.contiguous(memory_format=torch.channels_last) if channels_last else piece)
    return torch.cat(pieces) if pieces else None


def _has_channels_last(part: Tensor) -> bool:
    return part.ndim == 4 and part.is_contiguous(memory_format=torch.channels_last)


def by_the_first(compute: Callable[[], T]) -> T:
    """What the first process computes, in all of them, by way of pickle; the others wait.

    Raises:
        EvaluationError, OSError: in all of them, what `compute` raised in the first.
    """
    if not several():
        return compute()
    outcome: list[Any] = [None, None]
    if is_first():
        try:
            outcome[0] = compute()
        except (EvaluationError, OSError) as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1]
    result: T = outcome[0]
    return result
