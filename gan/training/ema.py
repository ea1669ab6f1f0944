"""Exponential moving average of a network's parameters."""

import copy

import torch
from torch import nn


def averaged_copy(network: nn.Module) -> nn.Module:
    """Frozen copy of a network in eval mode, to be updated by `update_average_`."""
    average = copy.deepcopy(network).eval()
    average.requires_grad_(False)
    return average


@torch.no_grad()
def update_average_(average: nn.Module, network: nn.Module, decay: float) -> None:
    """average <- decay * average + (1 - decay) * network, for parameters; buffers are copied.

    Buffers are statistics or singular vectors: an average of unit vectors is not one, and the running statistics of
    batch normalization are averages already.
    """
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)
    for averaged, current in zip(average.buffers(), network.buffers(), strict=True):
        averaged.copy_(current)
