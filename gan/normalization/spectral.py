"""Spectral normalization (Miyato et al. 2018)."""

import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real

import torch
from torch import Tensor, nn

from gan.normalization.power_iteration import EPS, Reading, as_matrix, full_precision, iterate_, warm_pair
from gan.normalization.singular import AFTER_DIVERGENCE, NOT_FINITE, exact_pair_
from gan.normalization.watch import History

UPDATES = ("step", "forward")
"""Values of `SpectralNorm`'s argument `update`."""
StackFormula = Callable[[Tensor, Sequence[Tensor], Tensor, Tensor], Tensor]
"""Function (matrices, sigmas, u, v) -> normalized matrices: matrices (L, rows, columns) padded with zeros, a sigma (L,)
for each of `SpectralNorm.pairs`, u (L, rows, 1) and v (L, columns, 1) of the first pair."""


def is_a(value: object, kind: type) -> bool:
    """isinstance for the types of `numbers`: NumPy scalars belong to them, but type checkers reject int and float."""
    return isinstance(value, kind)


def check_weight(weight: Tensor) -> None:
    """Raises a ValueError if a weight has no leading singular pair, with the remedy."""
    if nn.parameter.is_lazy(weight) or weight.is_meta:
        raise ValueError("a lazy weight or one on the meta device has no values: initialise the network first")
    if weight.ndim < 2 or not weight.numel():
        raise ValueError(f"weight: got shape {tuple(weight.shape)}, expected at least two dimensions and one entry")
    if not weight.is_floating_point():
        raise ValueError(f"weight: got type {weight.dtype}, expected floating point")
    if not torch.isfinite(weight).all():
        raise ValueError(f"{NOT_FINITE}, so it has no leading singular pair: {AFTER_DIVERGENCE}")
    if not weight.any():
        raise ValueError(
            "the weight is all zero, so it has no leading singular pair: give it its initial values first, or leave "
            "the layer as it is, by exclude=... in normalize"
        )


class SpectralNorm(nn.Module):
    """Reparametrizes W to spectral norm `scale`: W -> scale * W / sigma, sigma = u^T W v, u and v held constant.

    W is read as (out, everything else). The buffers have the names of torch's parametrization, so checkpoints of
    torch.nn.utils.parametrizations.spectral_norm load here and vice versa. They stay float32 or wider when the module
    is cast: power iteration in bfloat16 is off by 3e-3.

    Args:
        weight: the weight to be normalized; at least two dimensions, floating point, finite, not all zero.
        dim: the dimension of the output units; -1 is the last.
        scale: spectral norm of the result; any value but 1 is SSN, Lin et al. 2021.
        n_power_iterations: power iterations per update.
        eps: smallest norm by which power iteration divides a vector.
        update: "forward" changes u and v at every access in training mode, u first, like torch's parametrization;
            torch.compile then breaks its graph at each such weight, and fullgraph=True fails. "step" changes them only
            in `update_`, and warns once if the weight is trained without it, see `History`.

    Raises:
        ValueError: an argument outside its range, or a weight that cannot be normalized.
    """

    _u: Tensor
    _v: Tensor

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
        super().__init__()
        check_weight(weight)
        if update not in UPDATES:
            raise ValueError(f"update: got {update!r}, expected one of {', '.join(UPDATES)}")
        if not is_a(n_power_iterations, Integral) or n_power_iterations < 1:
            raise ValueError(f"n_power_iterations: got {n_power_iterations!r}, expected a whole number of 1 or more")
        if not is_a(scale, Real) or not 0 < scale < math.inf:
            raise ValueError(f"scale: got {scale!r}, expected a positive number")
        if not is_a(eps, Real) or not 0 < eps < math.inf:
            raise ValueError(f"eps: got {eps!r}, expected a positive number")
        if not is_a(dim, Integral) or not -weight.ndim <= dim < weight.ndim:
            raise ValueError(f"dim: got {dim!r}, expected one of {-weight.ndim} to {weight.ndim - 1}")
        self.dim, self.scale, self.update = dim % weight.ndim, scale, update
        self.n_power_iterations, self.eps = n_power_iterations, eps
        self._delivered: Tensor | None = None
        self._history = History()
        self.followers: tuple[str, ...] = ()  # the module's parameters after this one: `bake` restores their order
        self.companions: dict[str, nn.Module] = {}  # parametrizations of the module's other tensors, also for `bake`
        u, v = warm_pair(as_matrix(weight.detach(), self.dim), v_first=update == "step", eps=eps)
        self.register_buffer("_u", u)
        self.register_buffer("_v", v)

    def pairs(self) -> list[tuple[int, Tensor, Tensor]]:
        """Returns (dimension of the rows, u, v) for each reading of the weight as a matrix; u and v are buffers."""
        return [(self.dim, self._u, self._v)]

    def target_rank(self) -> float | None:
        """Returns the upper bound on the stable rank; None if only the spectral norm is bounded."""
        return None

    def bound(self) -> float | None:
        """Returns the bound that the formula applies; None if it reduces to spectral normalization."""
        return None

    def policy(self) -> str | None:
        """Returns the rule that set the bound on the stable rank; None without one. See `StableRankNorm.policy`."""
        return None

    @torch.no_grad()
    def update_(self, weight: Tensor) -> None:
        """Runs `n_power_iterations` power iterations on u and v, in place."""
        for dim, u, v in self.pairs():
            reading = self._read(weight, dim)
            ordered = reading.to_memory(v)
            v_first = self.update == "step"
            iterate_(reading.matrix, u, ordered, self.n_power_iterations, v_first=v_first, eps=self.eps)
            if ordered is not v:
                v.copy_(reading.from_memory(ordered))
        self._history.restart()

    @torch.no_grad()
    def refresh_(self, weight: Tensor) -> None:
        """Sets u and v to the exact leading singular pair, in place."""
        for dim, u, v in self.pairs():
            exact_pair_(as_matrix(weight, dim), u, v)
        self._history.restart()

    def mirror_(self) -> None:
        """Updates what depends on the singular vectors in `pairs`, after other code has changed these vectors."""
        self._history.restart()

    def sigma(self, weight: Tensor) -> Tensor:
        """Returns the divisor of W, a scalar differentiable in W; u and v are constants."""
        return self._sigma_of(weight, self.dim, self._u, self._v)

    def normalized(self, weight: Tensor) -> Tensor:
        """Normalizes W, given in the type of u and v, by the current u and v."""
        sigma = self.sigma(weight)
        return weight / (sigma if self.scale == 1 else sigma / self.scale)

    @classmethod
    def stacked(cls, norms: Sequence["SpectralNorm"]) -> StackFormula:
        """Returns the formula for several weights of this class at once, for `BatchedNormalization`.

        Subclasses that override `normalized`, `sigma` or `update_` but not this are computed weight by weight.
        """
        scales = norms[0]._u.new_tensor([norm.scale for norm in norms])
        scaled = any(norm.scale != 1 for norm in norms)

        def divide(matrices: Tensor, sigmas: Sequence[Tensor], u: Tensor, v: Tensor) -> Tensor:
            return matrices / (sigmas[0] / scales if scaled else sigmas[0])[:, None, None]

        return divide

    def forward(self, weight: Tensor) -> Tensor:
        if self._delivered is not None:
            return self._delivered
        if self.training and self.update == "forward":
            return self._update_and_normalize(weight)
        watched = type(weight) is nn.Parameter and not torch.compiler.is_compiling()
        if watched and (self.training or self._history.learns):
            self._history.look(weight, self._buffers)
        with full_precision(weight):
            normalized = self.normalized(weight.to(self._u.dtype)).to(weight.dtype)
        if watched and not self.training:
            self._history.await_gradient(normalized)
        return normalized

    # torch.compile silently gives wrong gradients if buffers are changed and used in one graph, so it is disabled here.
    # Unlike torch.compiler.disable, this decorator does not import the compiler.
    @torch._disable_dynamo
    def _update_and_normalize(self, weight: Tensor) -> Tensor:
        with full_precision(weight):
            self.update_(weight)
            return self.normalized(weight.to(self._u.dtype)).to(weight.dtype)

    def deliver(self, normalized: Tensor | None) -> None:
        """Makes `forward` return this weight, computed elsewhere; None makes `forward` compute the weight again."""
        self._delivered = normalized

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Stores a value assigned to the parametrized weight as the unnormalized weight."""
        return weight

    def extra_repr(self) -> str:
        return f"scale={self.scale:g}, n_power_iterations={self.n_power_iterations}, update={self.update!r}"

    def _read(self, weight: Tensor, dim: int) -> Reading:
        # "forward" equals torch's parametrization bit for bit, so it keeps torch's order of summation.
        return Reading(weight, dim, in_memory_order=self.update == "step")

    def _sigma_of(self, weight: Tensor, dim: int, u: Tensor, v: Tensor) -> Tensor:
        """Returns u^T W v; u and v are copied so that later updates do not change the graph."""
        reading = self._read(weight, dim)
        return torch.dot(u.clone(), torch.mv(reading.matrix, reading.to_memory(v.clone())))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SpectralNorm":
        """Moves and casts like nn.Module, but keeps the singular vectors float32 or wider."""
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, buffer in self._buffers.items():
            old = before[name]
            if buffer is not None and old is not None and buffer.dtype in (torch.float16, torch.bfloat16):
                self._buffers[name] = old.to(buffer.device)
        return self
