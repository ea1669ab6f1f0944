"""Tests that gan.runtime.memory keeps freed memory with glibc."""

import os
import platform
import subprocess
import sys
from collections.abc import Callable

import pytest
from click.testing import Result

from gan.runtime import memory

FAULTS = """
import ctypes, resource, sys
from gan.runtime.memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
malloc, free = ctypes.CDLL(None).malloc, ctypes.CDLL(None).free
malloc.restype, free.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
def use(size=64 * 2**20):
    place = malloc(size)
    ctypes.memset(place, 1, size)
    free(place)
use()
before = faults()
for _ in range(5):
    use()
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")
def test_memory_that_was_freed_is_not_mapped_again() -> None:
    """64 MiB are 16,384 pages of 4 KiB or 32 of 2 MiB; kept pages cause no page faults."""
    environment = {name: value for name, value in os.environ.items() if name not in memory.CHOSEN_BY_USER}

    def faults(how: str) -> int:
        command = [sys.executable, "-c", FAULTS, how]
        return int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)

    assert faults("kept") < 16
    assert faults("returned") >= 5 * 32


def test_the_environment_and_other_libraries_are_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: pytest.fail("must not be called"))
    monkeypatch.setattr(memory.platform, "libc_ver", lambda: ("", ""))
    assert not memory.keep_freed_memory()
    monkeypatch.setattr(memory.platform, "libc_ver", lambda: ("glibc", "2.36"))
    for name in memory.CHOSEN_BY_USER:
        with monkeypatch.context() as inner:
            inner.setenv(name, "1")
            assert not memory.keep_freed_memory()


def test_training_on_a_cpu_keeps_freed_memory(train: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr("gan.runtime.device.keep_freed_memory", lambda: calls.append(1))
    assert train("run", "--set", "train.steps=1").exit_code == 0
    assert calls == [1]
