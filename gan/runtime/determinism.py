"""Bit-identical repetitions on one device, for --deterministic."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from gan.errors import ConfigError

WORKSPACES = (":4096:8", ":16:8")
"""Values of CUBLAS_WORKSPACE_CONFIG that cuBLAS documents as reproducible, because streams share no buffers."""


@contextmanager
def determinism(asked: bool) -> Iterator[None]:
    """Context manager: every operation is bit-reproducible or raises, for one device and one number of threads.

    Enter it before anything runs on a GPU: cuBLAS reads its environment variable when it starts. The previous settings
    of torch are restored at the end.

    Raises:
        ConfigError: CUBLAS_WORKSPACE_CONFIG is set to a value that is not reproducible.
    """
    if not asked:
        yield
        return
    workspace = os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", WORKSPACES[0])
    if workspace not in WORKSPACES:
        raise ConfigError(
            f"--deterministic: got CUBLAS_WORKSPACE_CONFIG={workspace!r}, expected {' or '.join(WORKSPACES)}: unset it"
        )
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark
    try:
        torch.use_deterministic_algorithms(True)
        cudnn.deterministic, cudnn.benchmark = True, False
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]


def explain_nondeterminism(error: RuntimeError) -> str:
    """Returns the message for an operation without a deterministic version, "" for any other error."""
    found = re.match(r"(\S+) does not have a deterministic implementation", str(error))
    if not found:
        return ""
    return f"--deterministic: {found[1]} has no deterministic version here; leave the option out, or use --device cpu"


__all__ = ["determinism", "explain_nondeterminism"]
