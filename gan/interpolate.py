"""Paths between latents."""

import torch
from torch import Tensor


def slerp(start: Tensor, end: Tensor, num: int) -> Tensor:
    """`num` points on the great arc from each start to its end, both included, (N, num, z_dim).

    sin((1 - t) a) / sin(a) start + sin(t a) / sin(a) end, with a the angle between them and t from 0 to 1. Shoemake
    1985; for latents White 2016: normal latents of many dimensions have nearly one length, which a straight line
    between them leaves and the arc keeps. Where the two are parallel there is no arc, and the line is taken.

    Args:
        start, end: (N, z_dim).
        num: at least 2.
    """
    a, b = start.double(), end.double()
    cosine = torch.nn.functional.cosine_similarity(a, b, dim=1).clamp(-1, 1)
    angle = cosine.acos()[:, None, None]  # (N, 1, 1)
    t = torch.linspace(0, 1, num, dtype=torch.float64, device=a.device)[:, None]  # (num, 1)
    sine = angle.sin()
    straight = sine < 1e-6
    of_start, of_end = (torch.where(straight, share, (share * angle).sin() / sine) for share in (1 - t, t))
    return (of_start * a[:, None] + of_end * b[:, None]).to(start.dtype)  # (N, num, z_dim)
