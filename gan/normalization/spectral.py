"""Spectral normalization: Miyato et al. 2018."""

import math
from collections.abc import Callable
from numbers import Integral, Real

import torch
from torch import Tensor, nn

from gan.normalization.power_iteration import Reading, as_matrix, exact_pair_, full_precision, iterate_, warm_pair

UPDATES = ("step", "forward")


def is_a(value: object, kind: type) -> bool:
    """isinstance, for the kinds of `numbers`, to which type checkers do not count float and int but NumPy's belong."""
    return isinstance(value, kind)


class SpectralNorm(nn.Module):
    """Reparametrizes W to spectral norm `scale`: W -> scale * W / sigma, sigma = u^T W v, u and v held constant.

    W is read as (out, everything else). The buffers carry the names of torch's parametrization, so checkpoints of
    torch.nn.utils.parametrizations.spectral_norm load and the other way round. They stay float32 or wider whatever
    the module is cast to: power iteration in bfloat16 is off by 3e-3.

    Args:
        weight: the weight to be normalized; at least two dimensions, floating point, finite, not all zero.
        dim: the dimension of the output units.
        scale: the spectral norm of the result; other than 1 it is SSN, Lin et al. 2021.
        n_power_iterations: per update.
        update: "step": u and v move when `update_` is called. "forward": they move at every access in training mode,
            u first, as torch's parametrization does; torch.compile leaves each such weight out of its graph, so
            fullgraph=True fails.

    Raises:
        ValueError: an argument outside its range or a weight that cannot be normalized.
    """

    _u: Tensor
    _v: Tensor

    def __init__(
        self, weight: Tensor, *, dim: int = 0, scale: float = 1.0, n_power_iterations: int = 1, update: str = "step"
    ) -> None:
        super().__init__()
        if nn.parameter.is_lazy(weight) or weight.is_meta:
            raise ValueError("a lazy weight or one on the meta device has no values: initialise the network first")
        if weight.ndim < 2:
            raise ValueError(f"a weight of shape {tuple(weight.shape)} is no matrix: at least two dimensions needed")
        if not weight.is_floating_point():
            raise ValueError(f"a weight of type {weight.dtype} cannot be normalized: floating point needed")
        if not torch.isfinite(weight).all() or not weight.any():
            raise ValueError("the weight is all zero or not finite: it has no leading singular pair")
        if update not in UPDATES:
            raise ValueError(f"update: got {update!r}, expected one of {', '.join(UPDATES)}")
        if not is_a(n_power_iterations, Integral) or n_power_iterations < 1:
            raise ValueError(f"n_power_iterations: got {n_power_iterations!r}, expected 1 or more, a whole number")
        if not is_a(scale, Real) or not 0 < scale < math.inf:
            raise ValueError(f"scale: got {scale!r}, expected a positive number")
        self.dim, self.scale, self.n_power_iterations, self.update = dim, scale, n_power_iterations, update
        self._delivered: Tensor | None = None
        self.followers: tuple[str, ...] = ()  # the module's parameters after this one, for `bake` to keep the order
        u, v = warm_pair(as_matrix(weight.detach(), dim), v_first=update == "step")
        self.register_buffer("_u", u)
        self.register_buffer("_v", v)

    def pairs(self) -> list[tuple[int, Tensor, Tensor]]:
        """(dimension of the rows, u, v) for each reading of the weight as a matrix; u and v are the buffers."""
        return [(self.dim, self._u, self._v)]

    def target_rank(self) -> float | None:
        """The stable rank this parametrization bounds its weight to; None where it bounds the spectral norm only."""
        return None

    def bound(self) -> float | None:
        """The stable rank that the formula is computed with; None where it is spectral normalization alone."""
        return None

    def policy(self) -> str | None:
        """What became of the bound on the stable rank; None where there is none to begin with."""
        return None

    @torch.no_grad()
    def update_(self, weight: Tensor) -> None:
        """One round of power iteration, in place."""
        for dim, u, v in self.pairs():
            reading = self._read(weight, dim)
            ordered = reading.to_memory(v)
            iterate_(reading.matrix, u, ordered, self.n_power_iterations, v_first=self.update == "step")
            if ordered is not v:
                v.copy_(reading.from_memory(ordered))

    @torch.no_grad()
    def refresh_(self, weight: Tensor) -> None:
        """Exact singular pairs, in place."""
        for dim, u, v in self.pairs():
            exact_pair_(as_matrix(weight, dim), u, v)

    def mirror_(self) -> None:
        """Brings buffers that follow from `pairs` up to date, after those were written from outside."""

    def sigma(self, weight: Tensor) -> Tensor:
        """What W is divided by, a scalar, differentiable in W; u and v are constants."""
        return self._sigma_of(weight, self.dim, self._u, self._v)

    def normalized(self, weight: Tensor) -> Tensor:
        """The formula: W as it is stored, in the precision of u and v -> W as it is used."""
        sigma = self.sigma(weight)
        return weight / (sigma if self.scale == 1 else sigma / self.scale)

    def forward(self, weight: Tensor) -> Tensor:
        if self._delivered is not None:
            return self._delivered
        if self.training and self.update == "forward":
            return self._moved(weight)
        with full_precision(weight):
            return self.normalized(weight.to(self._u.dtype)).to(weight.dtype)

    # Compilers that see buffers change and be used in one graph give wrong gradients without a word. This way of
    # leaving them out costs nothing until something is compiled; torch.compiler.disable imports the compiler at once.
    @torch._disable_dynamo  # type: ignore[untyped-decorator]
    def _moved(self, weight: Tensor) -> Tensor:
        with full_precision(weight):
            self.update_(weight)
            return self.normalized(weight.to(self._u.dtype)).to(weight.dtype)

    def deliver(self, normalized: Tensor | None) -> None:
        """Makes `forward` return this, computed elsewhere, instead of computing it; None ends that."""
        self._delivered = normalized

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Assigning to the parametrized weight stores the value as the unnormalized weight."""
        return weight

    def extra_repr(self) -> str:
        return f"scale={self.scale:g}, n_power_iterations={self.n_power_iterations}, update={self.update!r}"

    def _read(self, weight: Tensor, dim: int) -> Reading:
        # Sums in another order differ in the last bit, and "forward" equals torch's to the last bit.
        return Reading(weight, dim, in_memory_order=self.update == "step")

    def _sigma_of(self, weight: Tensor, dim: int, u: Tensor, v: Tensor) -> Tensor:
        """u^T W v; the copies keep later updates out of the graph."""
        reading = self._read(weight, dim)
        return torch.dot(u.clone(), torch.mv(reading.matrix, reading.to_memory(v.clone())))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SpectralNorm":
        """Moves and casts, as nn.Module does, but never makes the singular vectors narrower than float32."""
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, buffer in self._buffers.items():
            old = before[name]
            if buffer is not None and old is not None and buffer.dtype in (torch.float16, torch.bfloat16):
                self._buffers[name] = old.to(buffer.device)
        return self
