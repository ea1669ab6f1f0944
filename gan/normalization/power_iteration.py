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


@torch.no_grad()
def random_pair(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Random unit vectors u (rows,), v (columns,), float32 or wider, from the global generator."""
    dtype = torch.promote_types(matrix.dtype, torch.float32)
    rows, columns = matrix.shape
    u = normalize(torch.randn(rows, dtype=dtype, device=matrix.device), dim=0, eps=EPS)
    v = normalize(torch.randn(columns, dtype=dtype, device=matrix.device), dim=0, eps=EPS)
    return u, v


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
                v.copy_(normalize(torch.mv(matrix.t(), u), dim=0, eps=EPS))
            u.copy_(normalize(torch.mv(matrix, v), dim=0, eps=EPS))
            if not v_first:
                v.copy_(normalize(torch.mv(matrix.t(), u), dim=0, eps=EPS))


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
