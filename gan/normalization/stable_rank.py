"""Stable rank normalization (Sanyal, Torr, Dokania 2020, Algorithm 2)."""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from gan.normalization.power_iteration import EPS, as_matrix
from gan.normalization.singular import norm_and_stable_rank
from gan.normalization.spectral import SpectralNorm, StackFormula, is_a

INFEASIBLE = ("skip", "error", "floor")
"""Values of `StableRankNorm`'s argument `infeasible`."""
FLOOR = 1.5
"""Smallest bound under infeasible="floor": clearly above 1, where the gradient vanishes."""
RELATIVE_TO = ("size", "initial")
"""Values of `StableRankNorm`'s argument `relative_to`."""


class StableRankNorm(SpectralNorm):
    """Reparametrizes W to unit spectral norm and stable rank at most r, by default c * min(rows, columns).

    W -> (gamma / sigma) W + (1 - gamma) u v^T,  gamma = min(1, sqrt((r - 1) / (|W|_F^2 / sigma^2 - 1))),
    with W read as (out, in * kh * kw) and sigma = u^T W v. This is Sanyal et al. 2020, Algorithm 2, without forming
    the residual matrix: |W / sigma - u v^T|_F^2 = |W|_F^2 / sigma^2 - 1 for any unit u, v. If the stable rank is
    already below r, gamma = 1 and the result equals spectral normalization bit for bit; with c = 1 it always does.

    u and v are constants in the gradient, as in the published code of Algorithm 2. For spectral normalization this is
    the exact gradient once u, v have converged. Here it omits the term (1 - gamma) d(u v^T), which divides by the gaps
    between singular values and is unstable if they are small.

    With relative_to="size", r = c * min(rows, columns), as in the published code. With relative_to="initial", r = c *
    stable rank of `weight`, that is of W when it is normalized, kept in the buffer _initial_rank: c = 0.3 lowers the
    stable rank "to 30 % of its original value" (section 3), whatever W's size. That buffer is part of checkpoints.

    Args:
        weight, dim, n_power_iterations, eps, update: see `SpectralNorm`.
        c: r as a fraction of what `relative_to` names, in (0, 1].
        relative_to: "size" or "initial", see above.
        infeasible: treatment of r <= 1. At r = 1 the result is u v^T for any W, so its gradient is zero. The paper
            does not discuss this case, although its last layer (one row) has r = c. "skip" applies spectral
            normalization only. "error" raises. "floor" raises r to 1.5, also if it is between 1 and 1.5, except for a
            weight of one row or column, whose stable rank is always 1.

    Raises:
        ValueError: c outside (0, 1], r <= 1 with infeasible="error", or a weight that cannot be normalized.
    """

    _initial_rank: Tensor

    def __init__(
        self,
        weight: Tensor,
        *,
        c: float = 0.7,
        dim: int = 0,
        n_power_iterations: int = 1,
        eps: float = EPS,
        update: str = "forward",
        infeasible: str = "skip",
        relative_to: str = "size",
    ) -> None:
        if not is_a(c, Real) or not 0 < c <= 1:
            raise ValueError(f"c: got {c!r}, expected a number in (0, 1]")
        if infeasible not in INFEASIBLE:
            raise ValueError(f"infeasible: got {infeasible!r}, expected one of {', '.join(INFEASIBLE)}")
        if relative_to not in RELATIVE_TO:
            raise ValueError(f"relative_to: got {relative_to!r}, expected one of {', '.join(RELATIVE_TO)}")
        super().__init__(weight, dim=dim, n_power_iterations=n_power_iterations, eps=eps, update=update)
        self.c, self.infeasible, self.relative_to = c, infeasible, relative_to
        self._side = min(as_matrix(weight, self.dim).shape)
        if relative_to == "initial":
            _, initial = norm_and_stable_rank(as_matrix(weight.detach(), self.dim))
            self.register_buffer("_initial_rank", self._u.new_tensor(initial))
        self._set_bound()

    def _set_bound(self) -> None:
        """Sets r and the rule that set it, numbers on the host, from the size or from the buffer."""
        if self.relative_to == "size":
            whole, name = float(self._side), "min(rows, columns)"
        else:
            whole, name = self._initial_rank.item(), "initial stable rank"
        self.rank, self._policy = _resolve(self.c, whole, name, self._side, self.infeasible)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        """Loads buffers, and sets the bound by the stable rank that the checkpoint was trained with."""
        super()._load_from_state_dict(*arguments)
        self._set_bound()

    def target_rank(self) -> float | None:
        """Returns r; None if no bound applies."""
        return None if self._policy == "skip" else self.rank

    def bound(self) -> float | None:
        """Returns r; None if the formula reduces to spectral normalization."""
        return None if self._policy == "skip" or self.rank >= self._side else self.rank

    def policy(self) -> str:
        """Returns the rule that set r.

        "bound": r = c * min(rows, columns), or c * initial stable rank. "skip": this is at most 1, so no bound applies.
        "floor": r was raised to 1.5.
        """
        return self._policy

    def normalized(self, weight: Tensor) -> Tensor:
        """Normalizes W, given in the type of u and v, by the current u and v."""
        if self.bound() is None:
            return super().normalized(weight)
        reading = self._read(weight, self.dim)
        u, v = self._u.clone(), reading.to_memory(self._v.clone())
        # Under torch.compile, torch.func and forward mode, autograd differentiates the formula.
        traced = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
        compute = lower if traced or unpack_dual(weight).tangent is not None else _Lower.apply
        return reading.as_weight(compute(reading.matrix, u, v, self.rank - 1))

    @classmethod
    def stacked(cls, norms: Sequence[SpectralNorm]) -> StackFormula:
        """Returns the formula for several weights at once; see `SpectralNorm.stacked`."""
        bounds = [norm.bound() for norm in norms]
        if not any(bounds):
            return super().stacked(norms)
        # 1 / (r - 1), with r infinite where there is no bound, (L,).
        inverse_limits = norms[0]._u.new_tensor([0.0 if bound is None else 1 / (bound - 1) for bound in bounds])
        offsets = -inverse_limits

        def lower_all(matrices: Tensor, sigmas: Sequence[Tensor], u: Tensor, v: Tensor) -> Tensor:
            ratio = torch.linalg.vector_norm(matrices, dim=(1, 2)) / sigmas[0]
            gamma = torch.addcmul(offsets, ratio.square(), inverse_limits).clamp_min(1).rsqrt()
            divided = matrices / (sigmas[0] / gamma)[:, None, None]
            return torch.addcmul(divided, (1 - gamma)[:, None, None] * u, v.mT)

        return lower_all

    def extra_repr(self) -> str:
        bound = f"c={self.c:g}, relative_to={self.relative_to!r}, rank={self.rank:g}, policy={self._policy!r}"
        return f"{bound}, {super().extra_repr()}"


def lower(matrix: Tensor, u: Tensor, v: Tensor, limit: float) -> Tensor:
    """Lowers the stable rank of a matrix W (rows, columns) to limit + 1, by Algorithm 2.

    Returns W / (sigma / gamma) + (1 - gamma) u v^T, equal to W / sigma bit for bit if gamma = 1.
    """
    sigma, energy = _sigma_and_energy(matrix, u, v)
    gamma = _gamma(sigma, energy, limit)
    return torch.addr(matrix / (sigma / gamma), u * (1 - gamma), v)


def _sigma_and_energy(matrix: Tensor, u: Tensor, v: Tensor) -> tuple[Any, Any]:
    """Returns sigma = u^T W v and |W|_F^2."""
    flat = matrix.reshape(-1)
    return torch.dot(u, torch.mv(matrix, v)), torch.dot(flat, flat)


def _gamma(sigma: Tensor, energy: Tensor, limit: float) -> Tensor:
    """Returns gamma = min(1, sqrt(limit / q)),  q = |W|_F^2 / sigma^2 - 1."""
    # Clamped before the root, whose gradient is infinite at q = 0 (a weight of rank one); gamma is then exactly 1.
    return (limit / (energy / sigma.square() - 1).clamp_min(limit)).sqrt()


class _Lower(torch.autograd.Function):
    """Computes `lower` with a closed-form gradient, with a third as many passes over the weight as autograd.

    With a = <G, W> / sigma and b = u^T G v, if the bound is active:

        dL/dW = (gamma / sigma) (G - b u v^T) + (d / sigma) (u v^T - W / sigma),  d = (a - b) gamma^3 / limit

    and dL/dW = (G - a u v^T) / sigma if it is not. On the CPU sigma and gamma are Python numbers, which `addr` accepts
    as factors, so that it reads the weight once. On other devices they stay tensors, because reading them synchronizes.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, u: Tensor, v: Tensor, limit: float) -> Tensor:
        sigma, energy = _sigma_and_energy(matrix, u, v)
        ctx.save_for_backward(matrix, u, v)
        if not matrix.is_cpu:
            gamma = _gamma(sigma, energy, limit)
            ctx.scalars = limit, sigma, gamma
            return (matrix / (sigma / gamma)).addr_(u * (1 - gamma), v)
        sigma, energy = sigma.item() or math.nan, energy.item()  # NaN for 0, since Python raises on division by 0
        gamma = (limit / max(energy / sigma / sigma - 1, limit)) ** 0.5
        ctx.scalars = limit, sigma, gamma
        return matrix / sigma if gamma == 1 else torch.addr(matrix, u * (1 - gamma), v, beta=gamma / sigma)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        matrix, u, v = ctx.saved_tensors
        limit, sigma, gamma = ctx.scalars
        if grad.layout != torch.strided:  # nn.Embedding(sparse=True)
            grad = grad.to_dense()
        if torch.is_grad_enabled():  # create_graph=True: autograd differentiates `lower` again
            result = lower(matrix, u, v, limit)
            return torch.autograd.grad(result, matrix, grad, create_graph=True)[0], None, None, None
        a: Any = torch.dot(grad.reshape(-1), matrix.reshape(-1))
        b: Any = torch.dot(torch.mv(grad.t(), u), v)
        if matrix.is_cpu:
            a, b = a.item(), b.item()
        a, active = a / sigma, gamma < 1
        d = (a - b) * gamma**3 / limit * active
        left = u * ((d - gamma * (a + (b - a) * active)) / sigma)
        if not matrix.is_cpu:
            result = (grad * (gamma / sigma)).addr_(left, v).addcmul_(matrix, -d / sigma / sigma)
            return result, None, None, None
        result = torch.addr(grad, left, v, beta=gamma / sigma)
        return result.add_(matrix, alpha=-d / sigma / sigma) if active else result, None, None, None


def _resolve(c: float, whole: float, name: str, smaller_side: int, infeasible: str) -> tuple[float, str]:
    """Returns the bound c * whole on the stable rank, and the rule that set it.

    name: of `whole`, for the error message.
    """
    rank = c * whole
    if infeasible == "floor" and rank < FLOOR and smaller_side > 1:
        return FLOOR, "floor"
    if rank > 1 or rank >= smaller_side:
        return rank, "bound"
    if infeasible == "error":
        least = math.ceil(1e3 / whole) / 1e3
        larger = "c=1, or " if smaller_side == 1 else f"c above {least:g}, or " if least < 1 else ""
        raise ValueError(
            f"r = c * {name} = {c:g} * {whole:.6g} is at most 1, where the weight has no gradient: "
            f'use {larger}infeasible="skip" or "floor"'
        )
    return rank, "skip"
