"""Printing that never ends a program: progress lines and notes are less important than what they describe.

Imports no torch.
"""

import io
import os
import sys
from contextlib import suppress
from pathlib import Path


def prepare_terminal() -> None:
    """Replaces closed standard streams by the null device; escapes characters that a stream's encoding lacks."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell, as in `command >&-`
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """Prints a line on stderr; does nothing if it cannot be written."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)
