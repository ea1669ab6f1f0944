"""Stable rank normalization: Sanyal, Torr, Dokania 2020."""

import torch
from torch import Tensor

from gan.normalization.power_iteration import as_matrix
from gan.normalization.spectral import SpectralNorm


def stable_rank(weight: Tensor) -> Tensor:
    """Squared Frobenius norm over squared spectral norm, a scalar in [1, rank].

    Args:
        weight: a matrix, or a convolution's weight read as (out, in * kh * kw).
    """
    matrix = as_matrix(weight)
    return (torch.linalg.matrix_norm(matrix) / torch.linalg.matrix_norm(matrix, ord=2)) ** 2


class StableRankNorm(SpectralNorm):
    """Reparametrizes W to unit spectral norm and stable rank at most r = c * min(rows, columns).

    W -> (gamma / sigma) W + (1 - gamma) u v^T,  gamma = min(1, sqrt((r - 1) / (|W|_F^2 / sigma^2 - 1))),
    W read as (out, in * kh * kw), sigma = u^T W v. This is Sanyal et al. 2020, Algorithm 2, without its residual
    matrix: |W / sigma - u v^T|_F^2 = |W|_F^2 / sigma^2 - 1 for any unit u, v. Where the stable rank is below r
    already, gamma = 1 and this is spectral normalization.

    A layer with r <= 1 is spectrally normalized only: at r = 1 the result is u v^T whatever W is, and W's gradient
    is zero. The paper does not say what to do there; its head (one row) has r = c.

    As in Algorithm 2's published code, u and v are constants in the gradient.

    Raises:
        ValueError: c outside (0, 1], or a weight that cannot be normalized.
    """

    def __init__(
        self, weight: Tensor, *, c: float = 0.7, dim: int = 0, n_power_iterations: int = 1, update: str = "step"
    ) -> None:
        if not 0 < c <= 1:
            raise ValueError(f"c: got {c}, expected a number in (0, 1]")
        super().__init__(weight, dim=dim, n_power_iterations=n_power_iterations, update=update)
        self.c = c
        self.rank = c * min(as_matrix(weight, dim).shape)

    def target_rank(self) -> float | None:
        return self.rank if self.rank > 1 else None

    def gamma(self, weight: Tensor, sigma: Tensor) -> Tensor:
        """The factor of the residual, in (0, 1]; below 1 where the stable rank is being lowered."""
        residual = weight.to(sigma.dtype).square().sum() / sigma.square() - 1
        # Clamped so that a weight of rank one (residual 0, gradient of the root infinite) gives gamma 1, gradient 0.
        return torch.sqrt((self.rank - 1) / residual.clamp_min(self.rank - 1))

    def forward(self, weight: Tensor) -> Tensor:
        if self.target_rank() is None:
            return super().forward(weight)
        with torch.autocast(weight.device.type, enabled=False):
            if self._vectors_move():
                self.update_(weight)
            sigma = self.sigma(weight)
            gamma = self.gamma(weight, sigma)
            rows_first = weight.movedim(self.dim, 0)
            v = self._v.clone().view(rows_first.shape[1:])
            u = self._u.clone().view(-1, *[1] * (weight.ndim - 1))
            leading = (u * v).movedim(0, self.dim)
            # A sum that starts with W keeps W's memory format.
            return ((gamma / sigma) * weight + (1 - gamma) * leading).to(weight.dtype)

    def extra_repr(self) -> str:
        return f"c={self.c}, rank={self.rank:g}, {super().extra_repr()}"
