"""All normalized weights of a network at once, in a few batched matrix products.

Meant for GPUs, where a small network's normalization costs launches rather than arithmetic; on a CPU the padding makes
it slower than the layers one by one, compiled or not. Zero rows and columns change neither singular values nor the
other entries of the singular vectors, so weights of several shapes share one stack (L, rows, columns).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan.normalization.layers import NormalizedWeight, normalized_weights
from gan.normalization.power_iteration import EPS, Reading

WASTE = 2.0
"""A stack may hold so many times the numbers that its weights have."""


class _Matrix(NamedTuple):
    """One reading of a weight as a matrix, and its singular pair."""

    found: NormalizedWeight
    dim: int
    u: Tensor
    v: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.u), len(self.v)

    def reading(self) -> Reading:
        return Reading(self.found.original, self.dim, in_memory_order=True)


class BatchedNormalization:
    """Computes what the parametrizations of a network compute, for all its weights together.

        batched = BatchedNormalization(discriminator)  # after normalize(discriminator, ...)
        batched.update_()                              # instead of update_(discriminator)
        with batched.applied():                        # the network uses the weights computed here, once
            loss = hinge(discriminator(real), discriminator(fake))
        loss.backward()

    Equal to the weights one by one up to rounding (1e-6 in float32, 1e-12 in float64), gradients included. The state
    stays in the parametrizations: nothing new to save. No number is copied to the host and no branch depends on one,
    so a CUDA graph can capture it; that, and its speed on a GPU, have not been measured.

    Args:
        network: normalized by this package, with update="step"; on one device. `load_state_dict` keeps its tensors;
            after `.double()`, `.to(device)` or `load_state_dict(assign=True)` make a new one.

    Raises:
        ValueError: nothing in the network is normalized, or something is with update="forward". Later, from every
            method: the network's tensors are other ones than those it was made with.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._found = list(normalized_weights(network))
        if not self._found:
            raise ValueError(f"{type(network).__name__} has no normalized weight: call normalize first")
        moving = [found.name for found in self._found if found.parametrization.update != "step"]
        if moving:
            raise ValueError(f'update="forward" moves vectors one by one, in {", ".join(moving)}: use update="step"')
        self._device = self._found[0].original.device.type
        self._move, self._compute = self._moved, self._computed
        self._arrange()

    def _arrange(self) -> None:
        first = [self._matrices(found)[0] for found in self._found]
        second = [matrix for found in self._found for matrix in self._matrices(found)[1:]]
        self._second_stacks = [_Stack(group) for group in _groups(second)]
        places = [matrix.found for stack in self._second_stacks for matrix in stack.matrices]
        self._stacks = [_Stack(group, places) for group in _groups(first)]
        self._strides = [found.original.stride() for found in self._found]

    @staticmethod
    def _matrices(found: NormalizedWeight) -> list[_Matrix]:
        return [_Matrix(found, dim, u, v) for dim, u, v in found.parametrization.pairs()]

    def compile_(self) -> None:
        """From now on the arithmetic runs compiled, to the same numbers up to rounding; the next calls compile it.

        Moving the vectors and computing the weights are two programs: compilers that see buffers change and be used in
        one differentiated graph give wrong gradients without a word. No second derivatives, which no compiler has.
        """
        self._move = torch.compile(self._moved, fullgraph=True, dynamic=False)
        self._compute = torch.compile(self._computed, fullgraph=True, dynamic=False)

    def _check_tensors(self) -> None:
        """The stacks hold the tensors they were made with: others would be read, or left, without a word."""
        ours, theirs = (
            [(id(found.original), id(found.parametrization)) for found in where]
            for where in (self._found, normalized_weights(self._network))
        )
        held = [id(vector) for stack in (*self._stacks, *self._second_stacks) for vector in stack.tensors()]
        alive = [id(vector) for found in self._found for _, *pair in found.parametrization.pairs() for vector in pair]
        if ours != theirs or sorted(held) != sorted(alive):
            raise ValueError(
                "the network's weights or singular vectors are other tensors than before (a cast, a move to another "
                "device, assign=True): make a new BatchedNormalization"
            )
        if self._strides != [found.original.stride() for found in self._found]:
            self._arrange()

    @torch.no_grad()
    def update_(self) -> None:
        """One power iteration for every weight, as `gan.normalization.update_`."""
        self._check_tensors()
        with torch.autocast(self._device, enabled=False):
            self._move()
        for found in self._found:
            found.parametrization.mirror_()

    def _moved(self) -> None:
        for stack in (*self._stacks, *self._second_stacks):
            stack.update_()

    def weights(self) -> dict[str, Tensor]:
        """The normalized weights by name ("blocks.0.conv1.weight"), differentiable in the unnormalized ones.

        For torch.func.functional_call on a network without parametrizations, such as `bake` returns.
        """
        return {
            ".".join(part for part in (found.layer, found.tensor) if part): weight
            for found, weight in self._normalized()
        }

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the network uses weights computed once, here; leave before the next step of the optimizer."""
        try:
            for found, weight in self._normalized():
                found.parametrization.deliver(weight)
            yield
        finally:
            for found in self._found:
                found.parametrization.deliver(None)

    def _normalized(self) -> list[tuple[NormalizedWeight, Tensor]]:
        self._check_tensors()
        with torch.autocast(self._device, enabled=False):
            weights = self._compute()
        return [(matrix.found, weight) for matrix, weight in zip(self._first(), weights, strict=True)]

    def _first(self) -> list[_Matrix]:
        return [matrix for stack in self._stacks for matrix in stack.matrices]

    def _computed(self) -> list[Tensor]:
        """In the order of `_first`."""
        second = [sigma for stack in self._second_stacks for sigma in stack.sigmas(stack.values()).unbind()]
        return [weight for stack in self._stacks for weight in stack.normalized(second)]


class _Stack:
    """Matrices padded with zeros to one shape: M (L, rows, columns), columns in the order of each weight's memory.

    Few launches: one for the values and a few for those that need padding, two for all vectors there and three back.

    Args:
        places: where the second readings are whose sigmas `normalized` is given.
    """

    def __init__(self, matrices: Sequence[_Matrix], places: Sequence[NormalizedWeight] = ()) -> None:
        self.matrices = matrices
        self.rows, self.columns = (max(matrix.shape[side] for matrix in matrices) for side in (0, 1))
        norms = [matrix.found.parametrization for matrix in matrices]
        self._steps = norms[0].n_power_iterations
        at = {id(found.parametrization): index for index, found in enumerate(places)}
        self._second = [at.get(id(norm)) for norm in norms]
        bounds = [norm.bound() for norm in norms]
        self._any_bound = any(bound is not None for bound in bounds)
        self._any_scale = any(norm.scale != 1 for norm in norms)
        like = matrices[0].u
        # 1 / (r - 1) with r infinite where there is no bound, (L,).
        self._inverse_limits = like.new_tensor([0.0 if bound is None else 1 / (bound - 1) for bound in bounds])
        self._offsets = -self._inverse_limits
        self._scales = like.new_tensor([norm.scale for norm in norms])
        self._zeros = like.new_zeros(self.rows, self.columns)
        self._arrange_vectors()

    def _arrange_vectors(self) -> None:
        """Where each entry of u and v comes from, and goes to.

        _from: int64 (L, rows + columns), positions in all vectors one after the other and a zero; u, then v.
        _to: int64 (N,), positions in that of all vectors' entries.
        """
        device = self._zeros.device
        self._vectors_held = list(self.tensors())
        self._lengths = [len(vector) for vector in self._vectors_held]
        count = sum(self._lengths)
        self._from = torch.full((len(self.matrices), self.rows + self.columns), count, device=device)
        positions = iter(torch.arange(count, device=device).split(self._lengths))
        for row, matrix in zip(self._from, self.matrices, strict=True):
            rows, columns = matrix.shape
            row[:rows] = next(positions)
            row[self.rows : self.rows + columns] = matrix.reading().to_memory(next(positions))
        self._to = torch.empty(count + 1, dtype=torch.int64, device=device)
        self._to[self._from.flatten()] = torch.arange(self._from.numel(), device=device)
        self._to = self._to[:count].contiguous()

    def tensors(self) -> Iterator[Tensor]:
        """The singular vectors that `update_` moves."""
        for matrix in self.matrices:
            yield from (matrix.u, matrix.v)

    def values(self) -> Tensor:
        """M, differentiable in the unnormalized weights: side by side in memory, (rows, L, columns)."""
        blocks = [block for matrix in self.matrices for block in self._padded(matrix.reading().matrix)]
        together = torch.cat(blocks, 1).to(self._zeros.dtype)
        return together.unflatten(1, (len(self.matrices), self.columns)).transpose(0, 1)

    def _padded(self, values: Tensor) -> list[Tensor]:
        """Blocks of `rows` rows and together `columns` columns."""
        rows, columns = values.shape
        if rows < self.rows:
            values = torch.cat([values, self._zeros[rows:, :columns]])
        return [values] if columns == self.columns else [values, self._zeros[:, columns:]]

    def _vectors(self) -> tuple[Tensor, Tensor]:
        """u (L, rows, 1) and v (L, columns, 1), copies."""
        together = torch.cat([*self._vectors_held, self._zeros[0, :1]])[self._from].unsqueeze(2)
        return together[:, : self.rows], together[:, self.rows :]

    def update_(self) -> None:
        """v <- M^T u / |.|, u <- M v / |.|, for all matrices."""
        values, (u, v) = self.values(), self._vectors()
        for _ in range(self._steps):
            v = F.normalize(torch.bmm(values.mT, u), dim=1, eps=EPS)
            u = F.normalize(torch.bmm(values, v), dim=1, eps=EPS)
        moved = torch.cat([u, v], 1).flatten()[self._to]
        torch._foreach_copy_(self._vectors_held, moved.split(self._lengths))

    def sigmas(self, values: Tensor) -> Tensor:
        """u^T M v, (L,)."""
        return self._sigmas(values, *self._vectors())

    @staticmethod
    def _sigmas(values: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return torch.bmm(u.mT, torch.bmm(values, v)).flatten()

    def normalized(self, second: Sequence[Tensor]) -> list[Tensor]:
        """(gamma scale / sigma) M + (1 - gamma) scale u v^T, each with the shape, type and strides of its weight.

        Args:
            second: sigmas of second readings.
        """
        values, (u, v) = self.values(), self._vectors()
        sigma = self._sigmas(values, u, v)  # (L,)
        if any(place is not None for place in self._second):
            pairs = zip(sigma.unbind(), self._second, strict=True)
            sigma = (sigma + torch.stack([one if place is None else second[place] for one, place in pairs])) / 2
        if self._any_bound:
            gamma = self._gammas(values, sigma)
            factor, rest = gamma, 1 - gamma
            if self._any_scale:
                factor, rest = gamma * self._scales, rest * self._scales
            scaled = values / (sigma / factor)[:, None, None]
            result = torch.addcmul(scaled, rest[:, None, None] * u, v.mT)
        else:
            result = values / (sigma / self._scales if self._any_scale else sigma)[:, None, None]
        return [_as_weight(part, matrix) for matrix, part in zip(self.matrices, result.contiguous(), strict=True)]

    def _gammas(self, values: Tensor, sigma: Tensor) -> Tensor:
        """min(1, sqrt((r - 1) / q)),  q = |M|_F^2 / sigma^2 - 1."""
        ratio = torch.linalg.vector_norm(values, dim=(1, 2)) / sigma
        return torch.addcmul(self._offsets, ratio.square(), self._inverse_limits).clamp_min(1).rsqrt()


def _as_weight(padded: Tensor, matrix: _Matrix) -> Tensor:
    """(rows, columns) with padding -> the shape, type and strides of the weight."""
    rows, columns = matrix.shape
    return matrix.reading().as_weight(padded[:rows, :columns]).to(matrix.found.original.dtype)


def _groups(matrices: Sequence[_Matrix]) -> list[list[_Matrix]]:
    """Few groups of one type each whose padded stacks waste little: largest first, each into the first that fits."""
    groups: list[list[_Matrix]] = []
    for matrix in sorted(matrices, key=lambda matrix: -matrix.shape[0] * matrix.shape[1]):
        fitting = (group for group in groups if _alike(group[0], matrix) and _waste([*group, matrix]) <= WASTE)
        group = next(fitting, None)
        if group is None:
            groups.append([matrix])
        else:
            group.append(matrix)
    return groups


def _alike(one: _Matrix, other: _Matrix) -> bool:
    steps = [matrix.found.parametrization.n_power_iterations for matrix in (one, other)]
    return one.u.dtype == other.u.dtype and steps[0] == steps[1]


def _waste(group: Sequence[_Matrix]) -> float:
    rows, columns = (max(matrix.shape[side] for matrix in group) for side in (0, 1))
    return len(group) * rows * columns / sum(matrix.shape[0] * matrix.shape[1] for matrix in group)
