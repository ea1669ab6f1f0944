"""All normalized weights of a network at once, in a few batched matrix products.

Meant for GPUs, where a small network's normalization costs launches rather than arithmetic; on a CPU the padding makes
it slower than the layers one by one. Zero rows and columns change neither singular values nor the other entries of the
singular vectors, so weights of several shapes share one stack (L, rows, columns).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan.normalization.layers import NormalizedWeight, normalized_weights
from gan.normalization.power_iteration import EPS, as_in_memory, as_matrix

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

    def values(self) -> Tensor:
        return as_matrix(self.found.original, self.dim).to(self.u.dtype)


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
        first = [self._matrices(found)[0] for found in self._found]
        second = [matrix for found in self._found for matrix in self._matrices(found)[1:]]
        self._stacks = [_Stack(group) for group in _groups(first)]
        self._second_stacks = [_Stack(group) for group in _groups(second)]

    @staticmethod
    def _matrices(found: NormalizedWeight) -> list[_Matrix]:
        return [_Matrix(found, dim, u, v) for dim, u, v in found.parametrization.pairs()]

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

    @torch.no_grad()
    def update_(self) -> None:
        """One power iteration for every weight, as `gan.normalization.update_`."""
        self._check_tensors()
        with torch.autocast(self._device, enabled=False):
            for stack in (*self._stacks, *self._second_stacks):
                stack.update_()
        for found in self._found:
            found.parametrization.mirror_()

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
            second = {
                id(matrix.found.parametrization): sigma
                for stack in self._second_stacks
                for matrix, sigma in zip(stack.matrices, stack.sigmas(stack.values()).unbind(), strict=True)
            }
            return [pair for stack in self._stacks for pair in stack.normalized(second)]


class _Stack:
    """Matrices padded with zeros to one shape: M (L, rows, columns)."""

    def __init__(self, matrices: Sequence[_Matrix]) -> None:
        self.matrices = matrices
        self.rows, self.columns = (max(matrix.shape[side] for matrix in matrices) for side in (0, 1))
        norms = [matrix.found.parametrization for matrix in matrices]
        self._steps = norms[0].n_power_iterations
        bounds = [norm.bound() for norm in norms]
        self._any_bound = any(bound is not None for bound in bounds)
        like = matrices[0].u
        # Where there is no bound any positive number will do: torch.where takes gamma = 1 there.
        self._limits = like.new_tensor([1.0 if bound is None else bound - 1 for bound in bounds])  # (L,)
        self._bounded = like.new_tensor([bound is not None for bound in bounds]).bool()
        self._scales = like.new_tensor([norm.scale for norm in norms])

    def tensors(self) -> Iterator[Tensor]:
        """The singular vectors that `update_` moves."""
        for matrix in self.matrices:
            yield from (matrix.u, matrix.v)

    def values(self) -> Tensor:
        """M, differentiable in the unnormalized weights."""
        return torch.stack([self._pad(matrix.values()) for matrix in self.matrices])

    def _pad(self, values: Tensor) -> Tensor:
        rows, columns = values.shape
        return F.pad(values, (0, self.columns - columns, 0, self.rows - rows))

    def _vectors(self) -> tuple[Tensor, Tensor]:
        """u (L, rows, 1) and v (L, columns, 1), copies."""
        u = torch.stack([F.pad(matrix.u, (0, self.rows - len(matrix.u))) for matrix in self.matrices])
        v = torch.stack([F.pad(matrix.v, (0, self.columns - len(matrix.v))) for matrix in self.matrices])
        return u.unsqueeze(2), v.unsqueeze(2)

    def update_(self) -> None:
        """v <- M^T u / |.|, u <- M v / |.|, for all matrices."""
        values, (u, v) = self.values(), self._vectors()
        for _ in range(self._steps):
            v = F.normalize(torch.bmm(values.mT, u), dim=1, eps=EPS)
            u = F.normalize(torch.bmm(values, v), dim=1, eps=EPS)
        for matrix, new_u, new_v in zip(self.matrices, u.squeeze(2).unbind(), v.squeeze(2).unbind(), strict=True):
            matrix.u.copy_(new_u[: len(matrix.u)])
            matrix.v.copy_(new_v[: len(matrix.v)])

    def sigmas(self, values: Tensor) -> Tensor:
        """u^T M v, (L,)."""
        u, v = self._vectors()
        return (u * torch.bmm(values, v)).sum((1, 2))

    def normalized(self, second: dict[int, Tensor]) -> list[tuple[NormalizedWeight, Tensor]]:
        """(gamma scale / sigma) M + (1 - gamma) scale u v^T, each with the shape of its weight.

        Args:
            second: sigma of the second reading, by the id of its parametrization, where there is one.
        """
        values, (u, v) = self.values(), self._vectors()
        first = self.sigmas(values)
        others = [second.get(id(matrix.found.parametrization)) for matrix in self.matrices]
        sigma = first
        if second:
            pairs = zip(first.unbind(), others, strict=True)
            sigma = (first + torch.stack([one if other is None else other for one, other in pairs])) / 2
        if self._any_bound:
            gamma = self._gammas(values, sigma)
            scaled = values / (sigma / (gamma * self._scales))[:, None, None]
            result = torch.baddbmm(scaled, ((1 - gamma) * self._scales)[:, None, None] * u, v.mT)
        else:
            result = values / (sigma / self._scales)[:, None, None]
        return [(matrix.found, _as_weight(part, matrix)) for matrix, part in zip(self.matrices, result, strict=True)]

    def _gammas(self, values: Tensor, sigma: Tensor) -> Tensor:
        residual = values.square().sum((1, 2)) / sigma.square() - 1
        gamma = torch.sqrt(self._limits / torch.maximum(residual, self._limits))
        return torch.where(self._bounded, gamma, 1.0)


def _as_weight(padded: Tensor, matrix: _Matrix) -> Tensor:
    """(rows, columns) with padding -> the shape, type and strides of the weight."""
    original, (rows, columns) = matrix.found.original, matrix.shape
    others = [size for dim, size in enumerate(original.shape) if dim != matrix.dim]
    weight = padded[:rows, :columns].reshape(rows, *others).movedim(0, matrix.dim).to(original.dtype)
    return as_in_memory(weight, original)


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
