"""Kernel launches and arithmetic of one call; on a GPU each launch costs microseconds."""

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

FREE = ("empty", "new_empty", "resize_", "set_", "_unsafe_view", "_local_scalar_dense")
"""Prefixes of operations that compute nothing: they allocate, rename or read a single number."""


def count_launches(run: Callable[[], Any], device: str) -> dict[str, int]:
    """Number of "kernels" in one call of `run` on a GPU, or of "operations" elsewhere.

    Kernels include copies. Operations are torch's operations that compute or copy values, each of which is one or a few
    kernels on a GPU; compiled code is not counted.
    """
    if torch.device(device).type == "cuda":
        return {"kernels": _kernels(run)}
    with _Operations() as operations:
        run()
    return {"operations": operations.count}


def count_flops(run: Callable[[], Any]) -> int:
    """Floating-point operations of convolutions and matrix products, two per multiply-add.

    torch's FlopCounterMode asks each operation for its module, which fails where a loss takes a gradient.
    """
    with _Flops() as flops:
        run()
    return flops.count


def _kernels(run: Callable[[], Any]) -> int:
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        run()
        torch.cuda.synchronize()
    return sum(event.device_type == DeviceType.CUDA for event in seen.events() or ())


class _Operations(TorchDispatchMode):
    """Counts the operations in its context that are neither views nor `FREE`."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        self.count += not (function.is_view or name.startswith(FREE))
        return function(*args, **(kwargs or {}))


class _Flops(TorchDispatchMode):
    """Sums the floating-point operations in its context, by torch's registry."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        counted = flop_registry.get(function.overloadpacket)
        self.count += counted(*args, **(kwargs or {}), out_val=out) if counted else 0
        return out
