"""Machine, packages and run times of an evaluation."""

import platform
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

import torch

PACKAGES = ("torch", "torch-fidelity", "numpy", "pillow")
T = TypeVar("T")


def machine(
    device: torch.device | str, *, batch_size: int, seconds: dict[str, float], extractors: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """Returns the "machine" entry of a report.

    Args:
        seconds: run time of each metric, by name.
        extractors: name and record of each extractor.
    """
    device = torch.device(device)
    return {
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "batch_size": batch_size,
        "seconds": seconds,
        "extractors": list(extractors),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def timed(names: Iterable[str], compute: Callable[[str], Iterable[T]]) -> tuple[list[T], dict[str, float]]:
    """Computes the results for each name once, in order; returns them with the seconds that each name took."""
    results: list[T] = []
    seconds: dict[str, float] = {}
    for name in dict.fromkeys(names):
        start = time.monotonic()
        results += compute(name)
        seconds[name] = round(time.monotonic() - start, 3)
    return results, seconds


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
