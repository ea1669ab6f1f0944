"""Progress: a bar on a terminal, a line every half minute elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from evaluation.runtime.processes import is_first
from evaluation.runtime.terminal import say

SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """Progress towards a total, shown by `advance`."""

    def __init__(self, total: int, title: str, unit: str) -> None:
        self.bar = tqdm(total=total, desc=title, unit=unit, leave=False, disable=None if is_first() else True)
        self.total, self.title, self.unit = total, title, unit
        self.done = 0
        self.last_line = time.monotonic()

    def advance(self, count: int) -> None:
        """Adds to the finished count and updates the display."""
        self.done += count
        self.bar.update(count)
        now = time.monotonic()
        if is_first() and self.bar.disable and now - self.last_line > SECONDS_BETWEEN_LINES:
            self.last_line = now
            say(f"{self.title}: {self.done} of {self.total} {self.unit}")


@contextmanager
def progress(total: int, title: str, unit: str) -> Iterator[Progress]:
    """Opens a `Progress` for its body."""
    counter = Progress(total, title, unit)
    try:
        yield counter
    finally:
        counter.bar.close()
