"""Normalization of all weights of a network at once, in a few batched matrix products.

Meant for GPUs: a fifth of the kernel launches for more arithmetic, which has not been timed there. On a CPU the padding
makes it slower than one weight at a time, compiled or not. Zero rows and columns change neither singular values nor the
other entries of singular vectors, so weights of several shapes share one stack (L, rows, columns).

This module contains only power iteration; the formula is `SpectralNorm.stacked` of the parametrization. Weights whose
class has no such formula are computed one by one, see `BatchedNormalization.one_by_one`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan.normalization.layers import NormalizedWeight, normalized_weights
from gan.normalization.power_iteration import Reading
from gan.normalization.spectral import SpectralNorm

WASTE = 2.0
"""Largest ratio of a padded stack's size to the total size of its weights."""


class _Matrix(NamedTuple):
    """A weight read as a matrix, with its singular pair. place: index of the pair in `SpectralNorm.pairs`."""

    found: NormalizedWeight
    place: int
    dim: int
    u: Tensor
    v: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.u), len(self.v)

    def reading(self) -> Reading:
        return Reading(self.found.original, self.dim, in_memory_order=True)


class BatchedNormalization:
    """Normalizes all weights of a network together, instead of one by one in its parametrizations.

        batched = BatchedNormalization(discriminator)  # after normalize(discriminator, ...)
        batched.update_()                              # instead of update_(discriminator)
        with batched.applied():                        # computes the weights once; the network uses them
            loss = hinge(discriminator(real), discriminator(fake))
        loss.backward()

    Weights and gradients equal those of the parametrizations up to rounding (1e-6 in float32, 1e-12 in float64). The
    state stays in the parametrizations, so checkpoints do not change. Nothing is read by the host, so a CUDA graph can
    capture it.

    Args:
        network: normalized by this package with update="step", on one device. Its tensors must stay the same:
            `load_state_dict` keeps them, but `.double()`, `.to(device)` and `load_state_dict(assign=True)` do not, and
            require a new BatchedNormalization.

    Raises:
        ValueError: no weight is normalized, or one is with update="forward". Later, from every method: the network has
            other tensors than at construction.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._found = list(normalized_weights(network))
        if not self._found:
            raise ValueError(f"{type(network).__name__} has no normalized weight: call normalize first")
        moving = [found.name for found in self._found if found.parametrization.update != "step"]
        if moving:
            raise ValueError(f'update="forward" cannot be batched, got it in {", ".join(moving)}: use update="step"')
        self._stackable = [found for found in self._found if _has_stack_formula(found.parametrization)]
        self._apart = [found for found in self._found if not _has_stack_formula(found.parametrization)]
        self._device = self._found[0].original.device.type
        self._move, self._compute = self._moved, self._computed
        self._arrange()

    def _arrange(self) -> None:
        first = [self._matrices(found)[0] for found in self._stackable]
        further = [matrix for found in self._stackable for matrix in self._matrices(found)[1:]]
        self._further_stacks = [_Stack(group) for group in _groups(further)]
        further = [matrix for stack in self._further_stacks for matrix in stack.matrices]
        self._stacks = [_Stack(group, further) for group in _groups(first)]
        self._arranged_for = self._assumed()

    def _assumed(self) -> list[tuple[tuple[int, ...], float | None]]:
        """Returns what the stacks assume of each weight: its strides, and its bound, which a checkpoint may change."""
        return [(found.original.stride(), found.parametrization.bound()) for found in self._found]

    @staticmethod
    def _matrices(found: NormalizedWeight) -> list[_Matrix]:
        return [_Matrix(found, place, *pair) for place, pair in enumerate(found.parametrization.pairs())]

    @property
    def one_by_one(self) -> list[str]:
        """Class names of the parametrizations that are computed weight by weight."""
        return sorted({type(found.parametrization).__name__ for found in self._apart})

    def compile_(self) -> None:
        """Compiles the arithmetic of the stacks at the next call; results change only by rounding.

        Power iteration and weights are two programs, because torch.compile silently gives wrong gradients if buffers
        are changed and used in one differentiated graph. Compiled, there are no second derivatives.
        """
        self._move = torch.compile(self._moved, fullgraph=True, dynamic=False)
        self._compute = torch.compile(self._computed, fullgraph=True, dynamic=False)

    def _check_tensors(self) -> None:
        """Raises ValueError if the network's tensors are no longer those of the stacks."""
        ours, theirs = (
            [(id(found.original), id(found.parametrization)) for found in where]
            for where in (self._found, normalized_weights(self._network))
        )
        held = [id(vector) for stack in (*self._stacks, *self._further_stacks) for vector in stack.tensors()]
        alive = [
            id(vector) for found in self._stackable for _, *pair in found.parametrization.pairs() for vector in pair
        ]
        if ours != theirs or sorted(held) != sorted(alive):
            raise ValueError(
                "the network's weights or singular vectors were replaced (by a cast, a move to another device or "
                "assign=True): make a new BatchedNormalization"
            )
        if self._arranged_for != self._assumed():
            self._arrange()

    @torch.no_grad()
    def update_(self) -> None:
        """Runs the power iteration of every weight, like `gan.normalization.update_`."""
        self._check_tensors()
        with torch.autocast(self._device, enabled=False):
            self._move()
            for found in self._apart:
                found.parametrization.update_(found.original)
        for found in self._stackable:
            found.parametrization.mirror_()

    def _moved(self) -> None:
        for stack in (*self._stacks, *self._further_stacks):
            stack.update_()

    def weights(self) -> dict[str, Tensor]:
        """Returns the normalized weights by name, differentiable in the unnormalized weights.

        A name is for example "blocks.0.conv1.weight". Pass the weights to torch.func.functional_call, with a network
        without parametrizations, as `bake` returns.
        """
        return {
            ".".join(part for part in (found.layer, found.tensor) if part): weight
            for found, weight in self._normalized()
        }

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Context manager: the network uses weights computed once, at entry. Leave it before the optimizer's step."""
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
            stacked = [matrix.found for stack in self._stacks for matrix in stack.matrices]
            return [
                *zip(stacked, self._compute(), strict=True),
                *((found, found.normalized()) for found in self._apart),
            ]

    def _computed(self) -> list[Tensor]:
        """Returns the normalized weights in the order of the stacks."""
        further = [sigma for stack in self._further_stacks for sigma in stack.sigmas(stack.values()).unbind()]
        return [weight for stack in self._stacks for weight in stack.normalized(further)]


def _has_stack_formula(norm: SpectralNorm) -> bool:
    """Returns False if a subclass of the class that defines `stacked` overrides a method that `stacked` replaces."""
    depth = {name: place for place, kind in reversed([*enumerate(type(norm).__mro__)]) for name in vars(kind)}
    return all(depth["stacked"] <= depth[name] for name in ("normalized", "sigma", "update_"))


class _Stack:
    """Matrices padded with zeros to one shape: M (L, rows, columns), columns in the order of each weight's memory.

    Kernel launches: one for the values and a few for padding, two to read all vectors and three to write them.

    Args:
        further: second readings of these weights, in the order of the sigmas passed to `normalized`.
    """

    def __init__(self, matrices: Sequence[_Matrix], further: Sequence[_Matrix] = ()) -> None:
        self.matrices = matrices
        self.rows, self.columns = (max(matrix.shape[side] for matrix in matrices) for side in (0, 1))
        norms = [matrix.found.parametrization for matrix in matrices]
        self._steps, self._eps = norms[0].n_power_iterations, norms[0].eps
        at = {(id(matrix.found.parametrization), matrix.place): index for index, matrix in enumerate(further)}
        # For the second and each later reading: index of its sigma, or None for weights without this reading.
        self._further = [
            [at.get((id(norm), place)) for norm in norms]
            for place in range(1, max(len(norm.pairs()) for norm in norms))
        ]
        self._formula = type(norms[0]).stacked(norms)
        like = matrices[0].u
        self._zeros = like.new_zeros(self.rows, self.columns)
        self._arrange_vectors()

    def _arrange_vectors(self) -> None:
        """Computes the indices that gather the vectors into the stack and scatter them back.

        _from: int64 (L, rows + columns), positions of the entries of u, then v, in the concatenation of all vectors and
            a zero.
        _to: int64 (N,), positions of the N entries of all vectors in the stack.
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
        """Yields the singular vectors that `update_` changes."""
        for matrix in self.matrices:
            yield from (matrix.u, matrix.v)

    def values(self) -> Tensor:
        """Returns M (L, rows, columns), differentiable in the unnormalized weights; in memory (rows, L, columns)."""
        blocks = [block for matrix in self.matrices for block in self._padded(matrix.reading().matrix)]
        together = torch.cat(blocks, 1).to(self._zeros.dtype)
        return together.unflatten(1, (len(self.matrices), self.columns)).transpose(0, 1)

    def _padded(self, values: Tensor) -> list[Tensor]:
        """Returns blocks of `rows` rows that together have `columns` columns."""
        rows, columns = values.shape
        if rows < self.rows:
            values = torch.cat([values, self._zeros[rows:, :columns]])
        return [values] if columns == self.columns else [values, self._zeros[:, columns:]]

    def _vectors(self) -> tuple[Tensor, Tensor]:
        """Returns copies of u (L, rows, 1) and v (L, columns, 1)."""
        together = torch.cat([*self._vectors_held, self._zeros[0, :1]])[self._from].unsqueeze(2)
        return together[:, : self.rows], together[:, self.rows :]

    def update_(self) -> None:
        """Runs power iteration for all matrices: v <- M^T u / |.|, u <- M v / |.|."""
        values, (u, v) = self.values(), self._vectors()
        for _ in range(self._steps):
            v = F.normalize(torch.bmm(values.mT, u), dim=1, eps=self._eps)
            u = F.normalize(torch.bmm(values, v), dim=1, eps=self._eps)
        moved = torch.cat([u, v], 1).flatten()[self._to]
        torch._foreach_copy_(self._vectors_held, moved.split(self._lengths))

    def sigmas(self, values: Tensor) -> Tensor:
        """Returns u^T M v, (L,)."""
        return self._sigmas(values, *self._vectors())

    @staticmethod
    def _sigmas(values: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return torch.bmm(u.mT, torch.bmm(values, v)).flatten()

    def normalized(self, further: Sequence[Tensor]) -> list[Tensor]:
        """Returns the normalized weights, each with the shape, type and strides of its weight.

        Args:
            further: sigmas of the second readings; a weight without a second reading uses its first sigma.
        """
        values, (u, v) = self.values(), self._vectors()
        sigmas = [self._sigmas(values, u, v)]  # (L,) each
        for indices in self._further:
            pairs = zip(sigmas[0].unbind(), indices, strict=True)
            sigmas.append(torch.stack([first if index is None else further[index] for first, index in pairs]))
        result = self._formula(values, sigmas, u, v)
        return [_as_weight(part, matrix) for matrix, part in zip(self.matrices, result.contiguous(), strict=True)]


def _as_weight(padded: Tensor, matrix: _Matrix) -> Tensor:
    """Removes the padding and returns the shape, type and strides of the weight."""
    rows, columns = matrix.shape
    return matrix.reading().as_weight(padded[:rows, :columns]).to(matrix.found.original.dtype)


def _groups(matrices: Sequence[_Matrix]) -> list[list[_Matrix]]:
    """Groups matrices into few stacks with little padding: largest first, each into the first group that fits."""
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
    norms = [matrix.found.parametrization for matrix in (one, other)]
    kinds = [(type(norm), norm.n_power_iterations, norm.eps) for norm in norms]
    return kinds[0] == kinds[1] and one.u.dtype == other.u.dtype


def _waste(group: Sequence[_Matrix]) -> float:
    rows, columns = (max(matrix.shape[side] for matrix in group) for side in (0, 1))
    return len(group) * rows * columns / sum(matrix.shape[0] * matrix.shape[1] for matrix in group)
