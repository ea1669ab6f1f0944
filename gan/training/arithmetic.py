"""Precision, freezing and weight normalization of a network during training, for all trainers."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from gan.normalization import BatchedNormalization, normalized_weights, update_


class Arithmetic:
    """Precision of a network, and its normalized weights computed together or one by one.

    Args:
        network: normalized with update="step", or not normalized; on its device.
        precision: train.precision: "fp32", "tf32" or "bf16".
        together: compute all normalized weights in batched operations, once per pass: the same numbers up to rounding,
            in fewer and larger operations. Pays on a GPU, where launches, not arithmetic, are the cost.
        freeze: whether `frozen` has an effect; False is for benchmarks.
        cache_casts: keep weights cast to bfloat16 for a whole pass. A CUDA graph must not: tensors of one pass of the
            capture would be read in the next.
    """

    def __init__(
        self,
        network: nn.Module,
        precision: str,
        *,
        together: bool = False,
        freeze: bool = True,
        cache_casts: bool = True,
    ) -> None:
        self.network, self.precision, self._freeze, self._cache_casts = network, precision, freeze, cache_casts
        self._device_type = next(network.parameters()).device.type
        batched = together and any(normalized_weights(network))
        self._together = BatchedNormalization(network) if batched else None

    @property
    def note(self) -> str:
        """Part of the step's printed name: normalizations that cannot be computed together; "" if there are none."""
        names = [] if self._together is None else self._together.one_by_one
        return f"; {', '.join(names)}: formula computed weight by weight" if names else ""

    def update_(self) -> None:
        """One power iteration for every normalized weight."""
        if self._together is None:
            update_(self.network)
        else:
            self._together.update_()

    def weights(self) -> AbstractContextManager[None]:
        """Context for one pass: weights computed together are computed once, others at every access as always."""
        return nullcontext() if self._together is None else self._together.applied()

    def autocast(self) -> torch.autocast:
        """Context in which convolutions and matrix products run in bfloat16 if the precision is "bf16"."""
        enabled = self.precision == "bf16"
        return torch.autocast(self._device_type, torch.bfloat16, enabled=enabled, cache_enabled=self._cache_casts)

    def float32_products(self) -> AbstractContextManager[None]:
        """Context in which float32 products have the network's precision, see the function of this name."""
        return float32_products(self.precision)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Context in which the network's parameters get no gradients."""
        self.network.requires_grad_(not self._freeze)
        try:
            yield
        finally:
            self.network.requires_grad_(True)


@contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """Context that sets the precision of float32 products on a GPU and restores it.

    Convolutions take TF32 inputs (10 bits of mantissa) under precision "tf32" and full float32 otherwise; torch's own
    default is TF32. Matrix products are always full float32, for power iteration depends on them.
    """
    backends: tuple[Any, ...] = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    wanted = ["tf32" if precision == "tf32" else "ieee", "ieee"]
    try:
        for backend, value in zip(backends, wanted, strict=True):
            backend.fp32_precision = value
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.fp32_precision = value


__all__ = ["Arithmetic", "float32_products"]
