"""Random numbers as a function of (seed, stream, step), so that no generator state is saved or restored."""

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor


def random_generator(seed: int, stream: str, step: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """Returns a generator seeded by (seed, stream, step); its draws also depend on the type of device.

    The CPU's Mersenne Twister uses 32 bits of seed. Within a stream, steps are multiplied by an odd number, a bijection
    modulo 2**32, so no two steps of a run have the same seed.

    Args:
        seed: seed of the experiment.
        stream: purpose of the numbers, such as "generator latents".
        step: a non-negative integer below 2**32.
    """
    digest = hashlib.blake2b(f"{seed}/{stream}".encode(), digest_size=4).digest()
    start = int.from_bytes(digest, "little")
    generator = torch.Generator(device=device)
    generator.manual_seed((start + step * 0x9E3779B1) % 2**32)
    return generator


def attempt_seed(seed: int, attempt: int) -> int:
    """Returns the seed of a training attempt, below 2**31: `seed` for attempt 0, a new one for each retry."""
    if attempt == 0:
        return seed
    digest = hashlib.blake2b(f"{seed}/attempt {attempt}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") % 2**31


def draw_latents(count: int, z_dim: int, generator: torch.Generator, *, out: Tensor | None = None) -> Tensor:
    """Draws standard normal latents, float32 (count, z_dim), on the generator's device; into `out` if given."""
    return torch.randn(count, z_dim, generator=generator, device=generator.device, out=out)


def draw_truncated_latents(count: int, z_dim: int, generator: torch.Generator, truncation: float) -> Tensor:
    """Draws normal latents truncated to [-truncation, truncation], float32 (count, z_dim).

    The distribution of the truncation trick (Brock et al. 2019, section 3.1), which redraws components outside the
    interval. Here each component is the inverse distribution function of one uniform number u,
    sqrt(2) erfinv((2 u - 1) erf(truncation / sqrt(2))) in float64, so it does not depend on the other components.

    Args:
        truncation: above 0; smaller values give more typical and less varied images.
    """
    uniforms = torch.rand(count, z_dim, generator=generator, device=generator.device, dtype=torch.float64)
    normal = math.sqrt(2) * torch.erfinv((2 * uniforms - 1) * math.erf(truncation / math.sqrt(2)))
    return normal.clamp(-truncation, truncation).float()  # erf of a large truncation rounds to 1, whose erfinv is inf


class ClassShares:
    """Shares of the classes in a data set, for labels that follow them.

    Args:
        counts: number of images of each class, int64 (K,), at least one in total.
        device: device of the random generators that `draw` receives.
    """

    def __init__(self, counts: Tensor, device: torch.device | str = "cpu") -> None:
        self.counts, self.total = counts.cpu(), int(counts.sum())
        self._ends = counts.cumsum(0).to(device)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws labels of images drawn uniformly with replacement, int64 (count,), on the generator's device."""
        images = torch.randint(self.total, (count,), generator=generator, device=generator.device)
        return torch.searchsorted(self._ends, images, right=True)

    def spread(self, count: int, generator: torch.Generator) -> Tensor:
        """Returns labels whose class counts are the shares of `count`, rounded down or up, int64 (count,), on the CPU.

        One systematic draw decides which shares are rounded up: a class with probability equal to its remainder. Unlike
        the largest remainders, this does not always leave out the rare classes of small sets. The labels of each class
        are spread evenly, so the first labels follow the shares too. Equal shares give `balanced_labels`, up to the
        choice of the classes that are rounded up.
        """
        shares = count * self.counts
        counts, remainders = shares // self.total, shares % self.total
        ends = remainders.cumsum(0)
        steps = self.total * torch.arange(int(ends[-1]) // self.total)
        draws = steps + torch.randint(self.total, (), generator=generator)
        counts[torch.searchsorted(ends, draws, right=True)] += 1  # no class twice: remainders are below the step
        labels = torch.repeat_interleave(torch.arange(len(counts)), counts)
        places = torch.arange(count) - (counts.cumsum(0) - counts)[labels]  # of each label within its class
        return labels[torch.argsort((places + 0.5) / counts[labels], stable=True)]


def draw_labels(count: int, num_classes: int, generator: torch.Generator, shares: ClassShares | None = None) -> Tensor:
    """Draws labels uniformly over the classes, or by their shares, int64 (count,), on the generator's device."""
    if shares is not None:
        return shares.draw(count, generator)
    return torch.randint(num_classes, (count,), generator=generator, device=generator.device)


def draw_uniforms(shape: Sequence[int], generator: torch.Generator, *, out: Tensor | None = None) -> Tensor:
    """Draws uniform numbers in [0, 1), float32, on the generator's device; into `out` if given."""
    return torch.rand(shape, generator=generator, device=generator.device, out=out)


def balanced_labels(count: int, num_classes: int) -> Tensor:
    """Returns the labels 0, 1, ..., num_classes - 1, 0, 1, ..., int64 (count,): class counts differ by at most one."""
    return torch.arange(count) % num_classes
