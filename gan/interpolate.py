"""Interpolation between latents."""

import torch
from torch import Tensor


def slerp(start: Tensor, end: Tensor, num: int) -> Tensor:
    """Spherical interpolation: `num` points from each start to its end, both included, (N, num, z_dim).

    sin((1 - t) a) / sin(a) start + sin(t a) / sin(a) end, with a the angle between them and t from 0 to 1 (Shoemake
    1985). White 2016 proposed it for latents: normal latents of many dimensions have nearly the same length, which
    points on the arc keep and points on a straight line do not. Parallel latents are interpolated linearly.

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
