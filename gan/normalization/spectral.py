"""Spectral normalization: Miyato et al. 2018."""

import torch
from torch import Tensor, nn

from gan.normalization.power_iteration import as_matrix, exact_pair_, iterate_, random_pair

WARMUP = 15
"""Power iterations at registration, from a random start, as torch's own parametrization makes."""
UPDATES = ("step", "forward")


class SpectralNorm(nn.Module):
    """Reparametrizes W to spectral norm `scale`: W -> scale * W / sigma, sigma = u^T W v, u and v held constant.

    W is read as (out, everything else). The buffers carry the names of torch's parametrization, so checkpoints of
    torch.nn.utils.parametrizations.spectral_norm load and the other way round.

    Args:
        weight: the weight to be normalized; at least two dimensions, floating point, finite, not all zero.
        dim: the dimension of the output units.
        scale: the spectral norm of the result; other than 1 it is SSN, Lin et al. 2021.
        n_power_iterations: per update.
        update: "step": u and v move when `update_` is called. "forward": they move at every access in training mode,
            u first, as torch's parametrization does.

    Raises:
        ValueError: an argument outside its range or a weight that cannot be normalized.
    """

    _u: Tensor
    _v: Tensor

    def __init__(
        self, weight: Tensor, *, dim: int = 0, scale: float = 1.0, n_power_iterations: int = 1, update: str = "step"
    ) -> None:
        super().__init__()
        if weight.ndim < 2:
            raise ValueError(f"a weight of shape {tuple(weight.shape)} is no matrix: at least two dimensions needed")
        if not weight.is_floating_point():
            raise ValueError(f"a weight of type {weight.dtype} cannot be normalized: floating point needed")
        if not torch.isfinite(weight).all() or not weight.any():
            raise ValueError("the weight is all zero or not finite: it has no leading singular pair")
        if update not in UPDATES:
            raise ValueError(f"update: got {update!r}, expected one of {', '.join(UPDATES)}")
        if n_power_iterations < 1:
            raise ValueError(f"n_power_iterations: got {n_power_iterations}, expected 1 or more")
        if not scale > 0:
            raise ValueError(f"scale: got {scale}, expected a positive number")
        self.dim, self.scale, self.n_power_iterations, self.update = dim, scale, n_power_iterations, update
        matrix = as_matrix(weight.detach(), dim)
        u, v = random_pair(matrix)
        iterate_(matrix, u, v, WARMUP, v_first=update == "step")
        self.register_buffer("_u", u)
        self.register_buffer("_v", v)

    def target_rank(self) -> float | None:
        """The stable rank this parametrization bounds its weight to; None where it bounds the spectral norm only."""
        return None

    @torch.no_grad()
    def update_(self, weight: Tensor) -> None:
        """One round of power iteration, in place."""
        iterate_(as_matrix(weight, self.dim), self._u, self._v, self.n_power_iterations, v_first=self.update == "step")

    @torch.no_grad()
    def refresh_(self, weight: Tensor) -> None:
        """Exact singular pair, in place."""
        exact_pair_(as_matrix(weight, self.dim), self._u, self._v)

    def sigma(self, weight: Tensor) -> Tensor:
        """u^T W v, differentiable in W; u and v are constants, copied so that later updates cannot reach the graph."""
        u, v = self._u.clone(), self._v.clone()
        return torch.dot(u, torch.mv(as_matrix(weight, self.dim).to(u.dtype), v))

    def _vectors_move(self) -> bool:
        return self.training and self.update == "forward"

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            if self._vectors_move():
                self.update_(weight)
            normalized = weight / self.sigma(weight)
            if self.scale != 1:
                normalized = normalized * self.scale
            return normalized.to(weight.dtype)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Assigning to the parametrized weight stores the value as the unnormalized weight."""
        return weight

    def extra_repr(self) -> str:
        return f"scale={self.scale}, n_power_iterations={self.n_power_iterations}, update={self.update!r}"
