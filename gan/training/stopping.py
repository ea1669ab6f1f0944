"""Reasons to stop a run before its end: a step, a time limit or a signal."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

from gan.runtime.distributed import is_connection_lost

Limits = AbstractContextManager[Callable[[int], str]]
"""Context that yields a function of the step: the reason to stop, or ""."""


@contextmanager
def stopping(stop_after: int | None, max_minutes: float | None, spent: float = 0.0) -> Iterator[Callable[[int], str]]:
    """Yields a function of the step that returns the reason to stop, or "".

    The first Ctrl-C or SIGTERM is a reason; the second ends the program at once.

    Args:
        stop_after: step to stop after.
        max_minutes: time limit.
        spent: seconds that count towards the time limit already.
    """
    received: list[int] = []
    deadline = time.monotonic() + 60 * max_minutes - spent if max_minutes is not None else None

    def receive(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    def reason(step: int) -> str:
        if received:
            return f"signal {received[0]}"
        if stop_after is not None and step >= stop_after:
            return f"--stop-after {stop_after}"
        if deadline is not None and time.monotonic() >= deadline:
            return f"--max-minutes {max_minutes:g}"
        return ""

    previous = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield reason
    except Exception as error:
        if is_connection_lost(error):
            del previous[signal.SIGTERM]  # torchrun sends it to the remaining processes: they print their error first
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def exit_after(reason: str) -> None:
    """Ends the program with the exit status of a signal if that was the reason to stop."""
    if reason.startswith("signal"):
        raise SystemExit(128 + int(reason.split()[1]))
