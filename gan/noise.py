"""Random numbers as a function of (seed, stream, step): nothing to save, nothing to restore."""

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor


def random_generator(seed: int, stream: str, step: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator whose draws depend on (seed, stream, step) and the kind of device alone.

    The CPU's Mersenne Twister takes 32 bits of seed. Within one stream the steps are spread over them by an odd
    multiplier, a bijection modulo 2**32, so no two steps of a run ever share their numbers.

    Args:
        seed: of the experiment.
        stream: what the numbers are for, such as "generator latents".
        step: any non-negative integer below 2**32.
    """
    digest = hashlib.blake2b(f"{seed}/{stream}".encode(), digest_size=4).digest()
    start = int.from_bytes(digest, "little")
    generator = torch.Generator(device=device)
    generator.manual_seed((start + step * 0x9E3779B1) % 2**32)
    return generator


def attempt_seed(seed: int, attempt: int) -> int:
    """The seed of all that a run draws while it trains, below 2**31: its own at attempt 0, another at each retry."""
    if attempt == 0:
        return seed
    digest = hashlib.blake2b(f"{seed}/attempt {attempt}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") % 2**31


def draw_latents(count: int, z_dim: int, generator: torch.Generator, *, out: Tensor | None = None) -> Tensor:
    """Standard normal latents, float32 (count, z_dim), on the generator's device; written into `out`, if given."""
    return torch.randn(count, z_dim, generator=generator, device=generator.device, out=out)


def draw_truncated_latents(count: int, z_dim: int, generator: torch.Generator, truncation: float) -> Tensor:
    """Standard normal latents whose components all lie in [-truncation, truncation], float32 (count, z_dim).

    The distribution of components drawn anew until they are inside (Brock et al. 2019, section 3.1), by its inverse
    function of a uniform number: sqrt(2) erfinv((2 u - 1) erf(truncation / sqrt(2))), in float64. So each component
    takes one number, and none depends on how often another one would have been drawn, nor on how many there are.

    Args:
        truncation: above 0; the smaller, the more alike and the more typical the images.
    """
    uniforms = torch.rand(count, z_dim, generator=generator, device=generator.device, dtype=torch.float64)
    normal = math.sqrt(2) * torch.erfinv((2 * uniforms - 1) * math.erf(truncation / math.sqrt(2)))
    return normal.clamp(-truncation, truncation).float()  # far out erf rounds to 1, whose inverse is infinite


def draw_labels(count: int, num_classes: int, generator: torch.Generator, *, out: Tensor | None = None) -> Tensor:
    """Labels uniform over the classes, int64 (count,), on the generator's device; written into `out`, if given."""
    return torch.randint(num_classes, (count,), generator=generator, device=generator.device, out=out)


def draw_uniforms(shape: Sequence[int], generator: torch.Generator, *, out: Tensor | None = None) -> Tensor:
    """Uniform in [0, 1), float32, on the generator's device; written into `out`, if given."""
    return torch.rand(shape, generator=generator, device=generator.device, out=out)


def balanced_labels(count: int, num_classes: int) -> Tensor:
    """0, 1, ..., num_classes - 1, 0, 1, ...: class counts that differ by at most one, int64 (count,)."""
    return torch.arange(count) % num_classes
