"""Leading singular pairs of a weight, by power iteration; gan/normalization/singular.py has exact ones.

Weights are read as matrices (rows, columns): a row for each output unit, everything else as columns.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

EPS = 1e-12
"""Smallest norm by which a vector is divided, by default; the same number as in torch's parametrization."""
WARMUP = 15
"""Power iterations at registration, from a random start; the same number as in torch's parametrization."""


def as_matrix(weight: Tensor, dim: int = 0) -> Tensor:
    """Reshapes a weight to (rows, columns) with the rows from dimension `dim`; a view if the memory layout allows."""
    return weight.movedim(dim, 0).flatten(1) if dim else weight.flatten(1)


def as_in_memory(values: Tensor, weight: Tensor) -> Tensor:
    """Returns values with the strides of a weight of the same shape; a copy if they differ."""
    if values.stride() == weight.stride():
        return values
    order = sorted(range(weight.ndim), key=weight.stride, reverse=True)
    return values.permute(order).contiguous().permute([order.index(d) for d in range(weight.ndim)])


class Reading:
    """A weight as a matrix with its columns in memory order, so that channels-last weights need no copy.

    The singular vector v is stored in the order of the weight's dimensions, as in torch; `to_memory` and `from_memory`
    reorder it. For contiguous weights, and with `in_memory_order=False`, they return it unchanged.

    Args:
        weight: at least two dimensions.
        dim: the dimension of the rows.
        in_memory_order: False keeps the column order of `as_matrix`, which copies channels-last weights.
    """

    def __init__(self, weight: Tensor, dim: int, *, in_memory_order: bool) -> None:
        self._weight, self._shape = weight, weight.shape
        self._order: tuple[int, ...] | None = None  # permutation of the weight's dimensions in `matrix`, if any
        if dim == 0 and (weight.is_contiguous() or not in_memory_order):
            self.matrix = weight.flatten(1)
        else:
            columns = [d for d in range(weight.ndim) if d != dim]
            self._columns = sorted(columns, key=weight.stride, reverse=True) if in_memory_order else columns
            self._order = (dim, *self._columns)
            self.matrix = weight.permute(self._order).flatten(1)

    def to_memory(self, v: Tensor) -> Tensor:
        """Reorders v (columns,) from the stored order to that of `matrix`."""
        if self._order is None:
            return v
        natural = sorted(self._columns)
        return v.view([self._shape[d] for d in natural]).permute([natural.index(d) for d in self._columns]).flatten()

    def from_memory(self, v: Tensor) -> Tensor:
        """Reorders v (columns,) from the order of `matrix` to the stored order."""
        if self._order is None:
            return v
        inverse = [self._columns.index(d) for d in sorted(self._columns)]
        return v.view([self._shape[d] for d in self._columns]).permute(inverse).flatten()

    def as_weight(self, matrix: Tensor) -> Tensor:
        """Reshapes a matrix in the order of `matrix` to the shape and strides of the weight."""
        if self._order is None:
            # Avoids a needless view: an embedding's gradient may be sparse, but not through a view.
            weight = matrix if matrix.shape == self._shape else matrix.view(self._shape)
        else:
            inverse = [self._order.index(d) for d in range(len(self._order))]
            weight = matrix.view([self._shape[d] for d in self._order]).permute(inverse)
        return as_in_memory(weight, self._weight)


def full_precision(weight: Tensor) -> AbstractContextManager[object]:
    """Returns a context manager without autocast; a null context, which is cheaper, if autocast is already off."""
    kind = weight.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):  # the meta device has no autocast
        return nullcontext()
    return torch.autocast(kind, enabled=False)


@contextmanager
def fp32_precisions(*wanted: tuple[Any, str]) -> Iterator[None]:
    """Context manager: gives backends of torch an `fp32_precision` each, and their former ones back at the end."""
    before = [(backend, backend.fp32_precision) for backend, _ in wanted]
    try:
        for backend, value in wanted:
            backend.fp32_precision = value
        yield
    finally:
        for backend, value in before:
            backend.fp32_precision = value


def _multiply_into(target: Tensor, matrix: Tensor, vector: Tensor, eps: float) -> None:
    """Sets target to matrix vector / max(|matrix vector|, eps), in place."""
    torch.mv(matrix, vector, out=target)
    target.div_(torch.linalg.vector_norm(target).clamp_min_(eps))


def iterate_(matrix: Tensor, u: Tensor, v: Tensor, steps: int, *, v_first: bool = True, eps: float = EPS) -> None:
    """Runs `steps` power iterations on u and v in place; requires torch.no_grad().

    v_first: v <- W^T u / |.|, then u <- W v / |.| (Sanyal et al. 2020, Algorithm 2; Miyato et al. 2018, Algorithm 1).
    False updates u first, as torch.nn.utils.parametrizations.spectral_norm does.
    """
    with full_precision(matrix):
        matrix = matrix.to(u.dtype)
        for _ in range(steps):
            if v_first:
                _multiply_into(v, matrix.t(), u, eps)
            _multiply_into(u, matrix, v, eps)
            if not v_first:
                _multiply_into(v, matrix.t(), u, eps)


@torch.no_grad()
def warm_pair(matrix: Tensor, *, v_first: bool, eps: float = EPS) -> tuple[Tensor, Tensor]:
    """Returns u (rows,) and v (columns,), float32 or wider, after WARMUP iterations from a random start.

    Draws from the global generator.

    Raises:
        ValueError: u or v is not a unit vector, because products underflow eps or overflow the type.
    """
    dtype = torch.promote_types(matrix.dtype, torch.float32)
    rows, columns = matrix.shape
    u = normalize(torch.randn(rows, dtype=dtype, device=matrix.device), dim=0, eps=eps)
    v = normalize(torch.randn(columns, dtype=dtype, device=matrix.device), dim=0, eps=eps)
    iterate_(matrix, u, v, WARMUP, v_first=v_first, eps=eps)
    if not all(0.99 < float(torch.linalg.vector_norm(vector)) < 1.01 for vector in (u, v)):
        raise ValueError(
            f"power iteration fails in {dtype} for a weight whose largest entry is {float(matrix.abs().max()):.3g}: "
            + ("rescale the weight" if eps <= EPS else f"pass an eps below {eps:g} or rescale the weight")
        )
    return u, v
