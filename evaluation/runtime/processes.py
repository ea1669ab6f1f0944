"""Evaluation in several processes: each process extracts features of whole batches, which are gathered in order.

All processes have the same images in the same order, so values equal those of one process. The caller connects them
by `torch.distributed.init_process_group`; without it there is one process, and nothing is communicated.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from evaluation.errors import EvaluationError

T = TypeVar("T")


def several() -> bool:
    """Whether there are several processes."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def is_first() -> bool:
    """Whether this process writes files and messages."""
    return not several() or dist.get_rank() == 0


def own_part(count: int, batch_size: int) -> slice:
    """Returns this process's slice of `count` rows; it has the same batches as in a single process and may be empty."""
    if not several():
        return slice(0, count)
    batches, rank, processes = -(-count // batch_size), dist.get_rank(), dist.get_world_size()
    start, stop = (batches * position // processes * batch_size for position in (rank, rank + 1))
    return slice(min(start, count), min(stop, count))


def gathered(part: Tensor | None) -> Tensor | None:
    """Returns the concatenated rows of all processes, on the CPU, in every process; None if no process has rows.

    The channels-last layout is kept, because the last bits of results computed from images depend on it.
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
    """Computes in the first process and broadcasts the result, by pickle.

    Raises:
        EvaluationError, OSError: in all processes, if `compute` raised it in the first.
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
