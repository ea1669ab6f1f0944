"""Random numbers as a function of (seed, stream, step): nothing to save, nothing to restore."""

import hashlib
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


def draw_labels(count: int, num_classes: int, generator: torch.Generator, *, out: Tensor | None = None) -> Tensor:
    """Labels uniform over the classes, int64 (count,), on the generator's device; written into `out`, if given."""
    return torch.randint(num_classes, (count,), generator=generator, device=generator.device, out=out)


def draw_uniforms(shape: Sequence[int], generator: torch.Generator, *, out: Tensor | None = None) -> Tensor:
    """Uniform in [0, 1), float32, on the generator's device; written into `out`, if given."""
    return torch.rand(shape, generator=generator, device=generator.device, out=out)


def balanced_labels(count: int, num_classes: int) -> Tensor:
    """0, 1, ..., num_classes - 1, 0, 1, ...: class counts that differ by at most one, int64 (count,)."""
    return torch.arange(count) % num_classes
