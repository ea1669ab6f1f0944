"""What one call launches: on a GPU a launch costs microseconds, whatever it computes."""

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

FREE = ("empty", "new_empty", "resize_", "set_", "_unsafe_view", "_local_scalar_dense")
"""Beginnings of names of operations that compute nothing: they allocate, rename or read one number."""


def count_launches(run: Callable[[], Any], device: str) -> dict[str, int]:
    """What one call of `run` does, under the name of what is counted.

    "kernels": on a GPU, all that it ran, copies included. "operations": elsewhere, those of torch that compute or copy
    values, each of which is a kernel or a few on a GPU; what a compiler made is not seen.
    """
    if torch.device(device).type == "cuda":
        return {"kernels": _kernels(run)}
    with _Operations() as operations:
        run()
    return {"operations": operations.count}


def _kernels(run: Callable[[], Any]) -> int:
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        run()
        torch.cuda.synchronize()
    return sum(event.device_type == DeviceType.CUDA for event in seen.events() or ())


class _Operations(TorchDispatchMode):
    """Counts the operations inside that are neither views nor `FREE`."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        self.count += not (function.is_view or name.startswith(FREE))
        return function(*args, **(kwargs or {}))
