"""Contexts that restore global random states, precision flags and modules' modes after an evaluation."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

# All switches that allow float32 products at lower precision. TF32 alone changes Inception features in the third digit
# and makes them depend on the batch size.
_PRECISIONS: tuple[Any, ...] = (
    torch.backends.cuda.matmul,
    torch.backends.cudnn.conv,  # type: ignore[attr-defined]
    torch.backends.mkldnn.matmul,  # type: ignore[attr-defined]
    torch.backends.mkldnn.conv,  # type: ignore[attr-defined]
)


@contextmanager
def isolated() -> Iterator[None]:
    """Runs the body in plain float32 with deterministic cuDNN, without autocast; restores global settings on exit.

    Torch's global generators, from which constructors of layers draw, are restored too.
    """
    precisions = [backend.fp32_precision for backend in _PRECISIONS]
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    default_dtype = torch.get_default_dtype()
    try:
        for backend in _PRECISIONS:
            backend.fp32_precision = "ieee"
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        torch.set_default_dtype(torch.float32)
        devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
        on_cuda = torch.autocast("cuda", enabled=False) if torch.cuda.is_available() else nullcontext()
        with torch.random.fork_rng(devices=devices), torch.autocast("cpu", enabled=False), on_cuda:
            yield
    finally:
        torch.set_default_dtype(default_dtype)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
        for backend, precision in zip(_PRECISIONS, precisions, strict=True):
            backend.fp32_precision = precision


@contextmanager
def one_thread() -> Iterator[None]:
    """Runs the body on one CPU thread: more threads add in another order, which training amplifies."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def still(network: Callable[..., Tensor]) -> Iterator[None]:
    """Runs the body in `isolated`, with gradients and the network in eval mode; restores all modes on exit.

    In eval mode power iterations and running statistics are constant.
    """
    modes = [(module, module.training) for module in network.modules()] if isinstance(network, nn.Module) else []
    try:
        for module, _ in modes:
            module.training = False
        with isolated(), torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
