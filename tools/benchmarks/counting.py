"""Kernel launches, arithmetic and memory traffic of one call; on a GPU each launch costs microseconds."""

import ctypes
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
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


def count_nodes(run: Callable[[], Any], device: str) -> dict[str, int]:
    """Number of "nodes" (kernels, copies, fills) of the CUDA graph that captures `run`; empty elsewhere."""
    if torch.device(device).type != "cuda":
        return {}
    graph = torch.cuda.CUDAGraph(keep_graph=True)
    with torch.cuda.graph(graph):
        run()
    count, runtime = ctypes.c_size_t(), ctypes.CDLL(None)  # torch has loaded CUDA's runtime
    status = runtime.cudaGraphGetNodes(ctypes.c_void_p(graph.raw_cuda_graph()), None, ctypes.byref(count))
    assert status == 0, f"cudaGraphGetNodes returned {status}"
    return {"nodes": count.value}


def count_synchronisations(run: Callable[[], Any], device: str) -> dict[str, int]:
    """Number of "synchronisations", waits of the host for the device that torch knows of; empty elsewhere."""
    if torch.device(device).type != "cuda":
        return {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return {"synchronisations": sum("called a synchronizing" in str(warning.message) for warning in caught)}


def count_traffic(run: Callable[[], Any]) -> tuple[int, int]:
    """Number of operations that compute or copy values, and the bytes that their kernels read and write.

    Several kernels of an operation count apart: a convolution's bias reads and writes the output again, the gradients
    of its input, weight and bias each read that of the output, and batch normalization reads its input twice.
    """
    with _Operations() as operations:
        run()
    return operations.count, operations.bytes


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
    return kernels_among(seen.events() or ())


def kernels_among(events: Iterable[FunctionEvent]) -> int:
    """Number of kernels and copies; the profiler also lists named ranges, such as phases of an iteration, on a GPU."""
    return sum(event.device_type == DeviceType.CUDA and not event.is_user_annotation for event in events)


class _Operations(TorchDispatchMode):
    """Counts the operations in its context that are neither views nor `FREE`, and the bytes they read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.count = self.bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, out = function.overloadpacket.__name__, function(*args, **(kwargs or {}))
        if not (function.is_view or name.startswith(FREE)):
            self.count += 1
            self.bytes += _size((args, kwargs, out)) + _size(_read_again(name, args, out))
        return out


def _size(values: Any) -> int:
    return sum(value.nbytes for value in tree_leaves(values) if isinstance(value, Tensor))


def _read_again(name: str, args: Any, out: Any) -> list[Any]:
    """Tensors that the further kernels of an operation read and write, see `count_traffic`."""
    if name == "convolution":
        return [] if args[2] is None else [out, out]
    if name == "convolution_backward":
        return [args[0]] * (sum(args[-1]) - 1)
    if name.endswith("batch_norm_backward"):
        return [args[0], args[1]]
    return [args[0]] if name.endswith("batch_norm") else []


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
