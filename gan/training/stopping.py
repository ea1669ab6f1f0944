"""Why a run stops before its end: a step, a time, a signal."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

from gan.runtime.distributed import is_connection_lost

Limits = AbstractContextManager[Callable[[int], str]]
"""Inside, a function of the step that says why to stop, or ""."""


@contextmanager
def stopping(stop_after: int | None, max_minutes: float | None, spent: float = 0.0) -> Iterator[Callable[[int], str]]:
    """A function of the step that says why to stop, or "".

    `spent` seconds count as if they had passed inside.
    The first Ctrl-C or SIGTERM is a reason, the second ends the program at once.
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
            del previous[signal.SIGTERM]  # torchrun sends it to those that are left: they say their sentence first
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def exit_after(reason: str) -> None:
    """Ends the program with the status of a signal, where that was the reason to stop."""
    if reason.startswith("signal"):
        raise SystemExit(128 + int(reason.split()[1]))
