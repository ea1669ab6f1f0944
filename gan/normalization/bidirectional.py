"""Bidirectional spectral normalization (Lin, Sekar, Fanti 2021)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gan.normalization.power_iteration import EPS, as_matrix, warm_pair
from gan.normalization.spectral import SpectralNorm, StackFormula


class BidirectionalSpectralNorm(SpectralNorm):
    """Divides W by the mean of two spectral norms: W -> scale * W / ((sigma_out + sigma_in) / 2).

    sigma_out is the norm of W read as (out, in * kh * kw), with singular pair _u (out,), _v; sigma_in is the norm of W
    read as (in, out * kh * kw), with _u2 (in,), _v2. Lin et al. 2021, section 4, and the authors' code: BSN with
    scale 1, BSSN otherwise. Without spatial extent (linear, embedding, 1x1) the second matrix is the transpose of the
    first, and the result equals spectral normalization.

    Grouped convolutions are read as stored, (out, in / groups, kh, kw); transposed ones have in and out swapped.
    Unlike in the authors' TensorFlow code, u and v are constants in the gradient, as in torch's spectral norm. At
    convergence both gradients are the same.

    Arguments and errors: see `SpectralNorm`; dim is 0 or 1.
    """

    _u2: Tensor
    _v2: Tensor

    def __init__(
        self,
        weight: Tensor,
        *,
        dim: int = 0,
        scale: float = 1.0,
        n_power_iterations: int = 1,
        eps: float = EPS,
        update: str = "forward",
    ) -> None:
        super().__init__(weight, dim=dim, scale=scale, n_power_iterations=n_power_iterations, eps=eps, update=update)
        if self.dim > 1:
            raise ValueError(f"dim: got {dim}, expected 0 or 1, the dimensions of output and input units")
        self.one_matrix = weight[0, 0].numel() == 1
        if self.one_matrix:
            u2, v2 = self._v.clone(), self._u.clone()
        else:
            u2, v2 = warm_pair(as_matrix(weight.detach(), 1 - self.dim), v_first=update == "step", eps=eps)
        self.register_buffer("_u2", u2)
        self.register_buffer("_v2", v2)

    def pairs(self) -> list[tuple[int, Tensor, Tensor]]:
        """Returns both readings; see `SpectralNorm.pairs`."""
        first = super().pairs()
        return first if self.one_matrix else [*first, (1 - self.dim, self._u2, self._v2)]

    @torch.no_grad()
    def update_(self, weight: Tensor) -> None:
        """Runs power iteration on both pairs, in place."""
        super().update_(weight)
        self.mirror_()

    @torch.no_grad()
    def refresh_(self, weight: Tensor) -> None:
        """Sets both pairs to the exact leading singular pairs, in place."""
        super().refresh_(weight)
        self.mirror_()

    def _load_from_state_dict(self, *arguments: Any) -> None:
        """Loads buffers; restores the second pair if a checkpoint of spectral_norm, with strict=False, lacks it."""
        super()._load_from_state_dict(*arguments)
        self.mirror_()

    def sigma(self, weight: Tensor) -> Tensor:
        """Returns (sigma_out + sigma_in) / 2, differentiable in W."""
        sigmas = [self._sigma_of(weight, dim, u, v) for dim, u, v in self.pairs()]
        return sigmas[0] if self.one_matrix else (sigmas[0] + sigmas[1]) / 2

    @classmethod
    def stacked(cls, norms: Sequence[SpectralNorm]) -> StackFormula:
        """Returns the formula for several weights at once; see `SpectralNorm.stacked`."""
        divide = super().stacked(norms)
        return lambda matrices, sigmas, u, v: divide(matrices, [(sigmas[0] + sigmas[-1]) / 2], u, v)

    @torch.no_grad()
    def mirror_(self) -> None:
        """Copies the first pair, swapped, into the second if one matrix is the transpose of the other."""
        super().mirror_()
        if self.one_matrix:
            self._u2.copy_(self._v)
            self._v2.copy_(self._u)
