"""Chooses and prepares the device of a command."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from gan.errors import ConfigError
from gan.runtime.determinism import determinism
from gan.runtime.distributed import own_device
from gan.runtime.memory import keep_freed_memory

RUNS_PER_GPU = 4
"""Default number of runs that share a GPU, a guess: without a CUDA graph one small network is expected to leave most of
it idle. Of runs with the fast step, one."""


@contextmanager
def prepared_device(name: str, deterministic: bool) -> Iterator[torch.device]:
    """Yields the device of this process for --device and --deterministic.

    Raises:
        ConfigError: see `choose_device`, `determinism` and `own_device`.
    """
    with determinism(deterministic):
        device = choose_device(own_device(name))
        if device.type == "cpu":
            keep_freed_memory()
        yield device


def choose_device(name: str) -> torch.device:
    """Returns the device of this name; "auto" is the first CUDA device if there is one, else the CPU.

    Raises:
        ConfigError: this machine has no such device, or it cannot be used.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda") or (device.type == "cpu" and device.index):
            raise RuntimeError("no such device")
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"--device {name}: cannot be used here ({reason}); expected auto, cpu, cuda or cuda:N"
        ) from None
    return device


def devices_for_runs(name: str, *, fast: bool) -> tuple[list[str], int]:
    """Returns the devices that several runs share, and the default number of parallel runs; "auto": all GPUs.

    Args:
        fast: whether a run uses the fast step on a GPU, see gan/training/graph.py.

    Raises:
        ConfigError: see `choose_device`.
    """
    device = choose_device(name)
    if device.type == "cpu":
        return [str(device)], os.cpu_count() or 1
    devices = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if name == "auto" else [str(device)]
    return devices, (1 if fast else RUNS_PER_GPU) * len(devices)


def is_out_of_memory(error: Exception) -> bool:
    """Returns whether memory ran out. On a CPU torch raises a RuntimeError, which is recognized by its text."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


__all__ = ["choose_device", "devices_for_runs", "is_out_of_memory", "prepared_device"]
