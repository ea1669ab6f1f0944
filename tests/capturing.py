"""Checks without a GPU of the operations that a CUDA graph captures."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

META = torch.device("meta")
HOST_MEMORY = ("lift", "lift_fresh", "_pin_memory", "is_pinned")
REFUSED = {
    torch.Tag.nondeterministic_seeded: "draws random numbers, which each replay would repeat",
    torch.Tag.data_dependent_output: "reads a value on the host",
    torch.Tag.dynamic_output_shape: "has a result whose shape depends on values, which the host would read",
}


class Capturable(TorchDispatchMode):
    """Context manager that counts operations and refuses those that a CUDA graph cannot capture.

    Refuses random numbers, reads by the host, and tensors on another device than `device`. Each device shows what the
    other cannot. On the meta device, in place of a GPU, copies to the host, tensors made on the CPU and reads without
    an operation, such as `numpy()`, are errors. On the CPU, tensors made of host data are refused, and autocast casts.

    Args:
        host_scalars: allow tensors of shape () on the CPU, which kernels take as arguments without waiting; only for
            operations that are not captured, because a graph would keep the values.

    Attributes:
        counts: number of operations by name, without views, which launch no kernel.

    Raises:
        AssertionError: at the line that runs a refused operation.
    """

    def __init__(self, device: torch.device, *, host_scalars: bool = False) -> None:
        super().__init__()
        self.device, self.host_scalars, self.counts = device, host_scalars, Counter[str]()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name, values = function.overloadpacket.__name__, tree_leaves((args, kwargs))
        if self.host_scalars:
            tensors = [value for value in values if isinstance(value, Tensor)]
            values = [value for value in tensors if value.device.type != "cpu" or value.dim()]
            if tensors and not values:
                return function(*args, **kwargs)
        self._check_kind(function, name, values)
        self._check_device(name, kwargs.get("device"))
        missing = name == "_fused_adam_" and self.device == META  # torch has no meta kernel; it returns nothing
        result = None if missing else function(*args, **kwargs)
        for value in (*values, *tree_leaves(result)):
            self._check_device(name, value.device if isinstance(value, Tensor) else None)
        if function.namespace == "aten" and not function.is_view:
            self.counts[name] += 1
        return result

    def _check_device(self, name: str, device: torch.device | None) -> None:
        assert device in (None, self.device), f"{name} has a tensor on {device}, expected {self.device}"

    @staticmethod
    def _check_kind(function: Any, name: str, values: list[Any]) -> None:
        assert name not in HOST_MEMORY, f"{name} makes a tensor of host data"
        if name.startswith(("index", "_index_put", "_unsafe_index")):  # tagged as dynamic; only masks are
            masks = [value for value in values[1:] if isinstance(value, Tensor) and value.dtype == torch.bool]
            assert not masks or name in ("index_fill", "index_fill_"), f"{name} by a mask counts its elements"
            return
        for tag, reason in REFUSED.items():
            assert tag not in function.tags, f"{name} {reason}"


class Generator(torch.Generator):
    """CPU generator that reports another device; torch has no generator for the meta device."""

    device: torch.device  # type: ignore[assignment]

    def __new__(cls, device: torch.device | str = "cpu") -> "Generator":
        generator = super().__new__(cls, "cpu")
        generator._device = torch.device(device)
        return generator

    @property  # type: ignore[no-redef]
    def device(self) -> torch.device:
        """Device of its draws."""
        return self._device


@pytest.fixture
def meta_device(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """The meta device, which stands in for a GPU: torch.Generator and torch.autocast accept it; nothing is cast."""
    autocast = torch.autocast

    def accepting(device_type: str, *arguments: Any, **options: Any) -> torch.autocast:
        return autocast("cpu" if device_type == "meta" else device_type, *arguments, **options)

    monkeypatch.setattr(torch, "autocast", accepting)
    monkeypatch.setattr(torch, "Generator", Generator)
    return META
