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
    """Updates parameters by average <- decay * average + (1 - decay) * network, and copies buffers.

    Buffers are singular vectors, whose average is not a unit vector, or running statistics of batch normalization,
    which are averages already.
    """
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)
    for averaged, current in zip(average.buffers(), network.buffers(), strict=True):
        averaged.copy_(current)
