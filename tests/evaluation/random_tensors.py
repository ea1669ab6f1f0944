"""Random features, images and networks, determined by a seed."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def features(count: int, dimension: int = 16, seed: int = 0, *, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    """Normal features (count, dimension), float64."""
    random = torch.Generator().manual_seed(seed)
    return scale * torch.randn(count, dimension, generator=random, dtype=torch.float64) + shift


def points(count: int, seed: int = 0, shape: tuple[int, ...] = (3, 8, 8), dtype: torch.dtype = torch.float64) -> Tensor:
    """Images (count, *shape), uniform in [-1, 1)."""
    return 2 * torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) - 1


def noise(count: int, seed: int, low: int = 0, high: int = 256, side: int = 8) -> Tensor:
    """Images (count, 3, side, side), uniform in [low, high), uint8."""
    random = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, (count, 3, side, side), generator=random).to(torch.uint8)


def seeded(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """Network whose random weights are determined by the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()
