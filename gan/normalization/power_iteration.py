"""Singular pairs of a weight: estimated by power iteration, or exact.

Weights are read as matrices (rows, columns): rows are the output units, columns everything else.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

EPS = 1e-12


def as_matrix(weight: Tensor, dim: int = 0) -> Tensor:
    """Weight (..., rows at `dim`, ...) -> (rows, columns). A view where the memory layout allows."""
    return weight.movedim(dim, 0).flatten(1) if dim else weight.flatten(1)


class Reading:
    """A weight as a matrix whose columns come in the order of memory: a view also of channels-last weights.

    The singular vector v is stored in the order of the weight's dimensions, as torch stores it; `to_memory` and
    `from_memory` translate. With `in_memory_order=False`, and for contiguous weights, there is nothing to translate.

    Args:
        weight: at least two dimensions.
        dim: the dimension of the rows.
        in_memory_order: False keeps the columns as `as_matrix` has them, at the price of a copy where layouts differ.
    """

    def __init__(self, weight: Tensor, dim: int, *, in_memory_order: bool) -> None:
        natural = [d for d in range(weight.ndim) if d != dim]
        columns = sorted(natural, key=lambda d: -weight.stride(d)) if in_memory_order else natural
        self._order = (dim, *columns)
        self._sizes = [weight.shape[d] for d in self._order]
        self._natural_sizes = [weight.shape[d] for d in natural]
        self._translates = columns != natural
        self._columns = [natural.index(d) for d in columns]
        self._contiguous = weight.is_contiguous()
        self.matrix = weight.permute(self._order).flatten(1)

    def to_memory(self, v: Tensor) -> Tensor:
        """v (columns,) in the order of `matrix`."""
        return v.view(self._natural_sizes).permute(self._columns).flatten() if self._translates else v

    def from_memory(self, v: Tensor) -> Tensor:
        """v (columns,) in the order of `matrix`, back in the order it is stored in."""
        if not self._translates:
            return v
        inverse = sorted(range(len(self._columns)), key=self._columns.__getitem__)
        return v.view(self._sizes[1:]).permute(inverse).flatten()

    def as_weight(self, matrix: Tensor) -> Tensor:
        """A matrix (rows, columns) in the order of `matrix`, with the shape and the memory format of the weight."""
        inverse = sorted(range(len(self._order)), key=self._order.__getitem__)
        weight = matrix.view(self._sizes).permute(inverse)
        return weight.contiguous() if self._contiguous else weight


@torch.no_grad()
def random_pair(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Random unit vectors u (rows,), v (columns,), float32 or wider, from the global generator."""
    dtype = torch.promote_types(matrix.dtype, torch.float32)
    rows, columns = matrix.shape
    u = normalize(torch.randn(rows, dtype=dtype, device=matrix.device), dim=0, eps=EPS)
    v = normalize(torch.randn(columns, dtype=dtype, device=matrix.device), dim=0, eps=EPS)
    return u, v


def _multiply_into(target: Tensor, matrix: Tensor, vector: Tensor) -> None:
    """target <- matrix vector / |matrix vector|, in place."""
    torch.mv(matrix, vector, out=target)
    target.div_(torch.linalg.vector_norm(target).clamp_min_(EPS))


@torch.no_grad()
def iterate_(matrix: Tensor, u: Tensor, v: Tensor, steps: int, *, v_first: bool = True) -> None:
    """Moves u, v in place towards the leading singular pair.

    v_first: v <- W^T u / |.|, u <- W v / |.| (Sanyal et al. 2020, Algorithm 2; Miyato et al. 2018, Algorithm 1).
    Otherwise u first, as torch.nn.utils.parametrizations.spectral_norm does.
    """
    with torch.autocast(matrix.device.type, enabled=False):
        matrix = matrix.to(u.dtype)
        for _ in range(steps):
            if v_first:
                _multiply_into(v, matrix.t(), u)
            _multiply_into(u, matrix, v)
            if not v_first:
                _multiply_into(v, matrix.t(), u)


@torch.no_grad()
def exact_pair_(matrix: Tensor, u: Tensor, v: Tensor) -> None:
    """Sets u, v to the leading singular pair, from an SVD in float64; the sign stays with the previous u."""
    left, _, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    sign = torch.where(left[:, 0] @ u.double() < 0, -1.0, 1.0)
    u.copy_(sign * left[:, 0])
    v.copy_(sign * right[0])


@torch.no_grad()
def singular_values(matrix: Tensor) -> Tensor:
    """All singular values, descending, float64 (min(rows, columns),), from the smaller Gram matrix.

    Squaring costs half the digits of the small ones; the large ones and the sums of squares keep theirs, and
    the price is a fraction of an SVD's: this is for logging.
    """
    matrix = matrix.double()
    gram = matrix @ matrix.t() if matrix.shape[0] <= matrix.shape[1] else matrix.t() @ matrix
    return torch.linalg.eigvalsh(gram).clamp_min(0).sqrt().flip(0)
