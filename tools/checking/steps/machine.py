"""Step "machine": versions, and the rates of products and copies."""

import importlib.metadata
import os
import shutil
import statistics
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import torch
from benchmarks.sizes import SIZES
from benchmarks.timing import calls_in_a_row, interleave
from benchmarks.timing import machine as named_machine
from benchmarks.training import measured_rates

from checking.conditions import Conditions, Record

PACKAGES = ("torch", "torchvision", "triton", "numpy", "pydantic", "torch-fidelity", "torch-mimicry", "pytest")


def machine(conditions: Conditions) -> Iterator[Record]:
    """Yields versions, GFLOP/s of products, GB/s of a copy (bytes read and written), and the GPU."""
    yield {"machine": named_machine(conditions.device) | {"cores": os.cpu_count()}}
    yield {"packages": {name: _version(name) for name in PACKAGES}}
    yield {"GFLOP/s": measured_rates(SIZES[conditions.size], ["fp32", "tf32", "bf16"], conditions.device)}
    source = torch.randint(0, 255, (conditions.choose(2**32, 2**22),), dtype=torch.uint8, device=conditions.device)
    copied = torch.empty_like(source)
    copy: dict[str, Callable[[], Any]] = {"copy": lambda: copied.copy_(source)}
    seconds = interleave(copy, 5, conditions.device, calls=calls_in_a_row(conditions.device))["copy"]
    yield {"copy, GB/s": round(2 * source.numel() / statistics.median(seconds) / 1e9, 1)}
    if conditions.device == "cuda":
        yield {"gpu": _gpu()}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _gpu() -> Record:
    properties = torch.cuda.get_device_properties(0)
    found: Record = {
        "CUDA": torch.version.cuda,
        "cuDNN": torch.backends.cudnn.version(),
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "GiB": round(properties.total_memory / 2**30, 1),
    }
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=driver_version,clocks.sm,clocks.mem,power.limit", "--format=csv,noheader"]
        found["driver, clocks, power"] = subprocess.run(
            query, capture_output=True, text=True, check=False
        ).stdout.strip()
    return found
