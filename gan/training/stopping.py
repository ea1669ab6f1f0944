"""Reasons to end a run before its last step: a step, a time limit or a signal."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

from gan.runtime.distributed import is_connection_lost

Limits = AbstractContextManager[Callable[[int], str]]
"""Context manager that yields a function (step) -> reason to stop, "" to continue."""


@contextmanager
def stopping(stop_after: int | None, max_minutes: float | None, spent: float = 0.0) -> Iterator[Callable[[int], str]]:
    """Yields a function (step) -> reason to stop, "" to continue.

    The first Ctrl-C or SIGTERM is a reason to stop; the second ends the program at once.

    Args:
        stop_after: step to stop after.
        max_minutes: time limit.
        spent: seconds of the time limit that are already used.
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
            # torchrun then sends SIGTERM to the other processes: keep handling it, so that they print their errors.
            del previous[signal.SIGTERM]
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def exit_after(reason: str) -> None:
    """Exits with status 128 + n if the reason to stop was signal n."""
    if reason.startswith("signal"):
        raise SystemExit(128 + int(reason.split()[1]))
