"""How much of a run's work is done, and what the rest of it costs."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

TRIED = 3  # times, of which the first does not count


class Progress(NamedTuple):
    """done: of the unit that training is counted in. is_whole: whether it has come to its end."""

    done: float
    is_whole: bool


class Costs(NamedTuple):
    """Seconds of one unit of training, and of one image in an evaluation."""

    unit: float
    image: float


@contextmanager
def one_thread() -> Iterator[None]:
    """As several runs at once have."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def mean_seconds(run: Callable[[], None], device: torch.device) -> float:
    """Of one call, the mean of all but the first. On a CPU the process's own time, whatever else the machine does."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    seconds = []
    for _ in range(TRIED):
        start = clock()
        run()
        seconds.append(clock() - start)
    return statistics.fmean(seconds[1:])
