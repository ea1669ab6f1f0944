"""Precision, freezing and weight normalization of a network during training."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn

from gan.normalization import BatchedNormalization, normalized_weights, update_
from gan.normalization.power_iteration import fp32_precisions


class Arithmetic:
    """Precision and weight normalization in a network's forward and backward passes.

    Args:
        network: on its device; unnormalized, or normalized with update="step".
        precision: train.precision: "fp32", "tf32" or "bf16".
        together: compute all normalized weights once per pass in batched operations. The results are equal up to
            rounding. Meant for GPUs: fewer kernel launches for more arithmetic. Not measured there.
        freeze: whether `frozen` disables gradients; False only in benchmarks.
    """

    def __init__(
        self,
        network: nn.Module,
        precision: str,
        *,
        together: bool = False,
        freeze: bool = True,
    ) -> None:
        self.network, self.precision, self._freeze = network, precision, freeze
        self._device_type = next(network.parameters()).device.type
        batched = together and any(normalized_weights(network))
        self._together = BatchedNormalization(network) if batched else None

    @property
    def note(self) -> str:
        """Suffix of the step's printed name: normalizations that cannot be computed together; "" if there are none."""
        names = [] if self._together is None else self._together.one_by_one
        return f"; {', '.join(names)}: formula computed weight by weight" if names else ""

    def compile_(self) -> None:
        """Compiles the normalization if it is computed together, see `BatchedNormalization.compile_`."""
        if self._together is not None:
            self._together.compile_()

    def update_(self) -> None:
        """Runs one power iteration for every normalized weight."""
        if self._together is None:
            update_(self.network)
        else:
            self._together.update_()

    def weights(self) -> AbstractContextManager[None]:
        """Context manager for one pass: with batching, weights are computed once, otherwise at every access."""
        return nullcontext() if self._together is None else self._together.applied()

    def autocast(self) -> torch.autocast:
        """Context manager: convolutions and matrix products run in bfloat16 if the precision is "bf16".

        Casts of parameters are kept until it ends, so no optimizer may run inside, and it must not enclose a capture.
        """
        return torch.autocast(self._device_type, torch.bfloat16, enabled=self.precision == "bf16")

    def float32_products(self) -> AbstractContextManager[None]:
        """Context manager: sets the precision of float32 products, see the module's `float32_products`."""
        return float32_products(self.precision)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Context manager: the network's parameters get no gradients."""
        self.network.requires_grad_(not self._freeze)
        try:
            yield
        finally:
            self.network.requires_grad_(True)


def float32_products(precision: str) -> AbstractContextManager[None]:
    """Returns a context manager that sets the precision of float32 products on a GPU and restores it at the end.

    Convolutions take TF32 inputs (10 bits of mantissa) under precision "tf32" and full float32 otherwise; torch's own
    default is TF32. Matrix products are always full float32, because power iteration needs it.
    """
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    return fp32_precisions(
        (convolutions, "tf32" if precision == "tf32" else "ieee"), (torch.backends.cuda.matmul, "ieee")
    )


__all__ = ["Arithmetic", "float32_products"]
