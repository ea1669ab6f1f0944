"""Sets of images in a fixed order, with features extracted on demand, once."""

from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from evaluation.extractors import Extractor
from evaluation.images.cache import Cache
from evaluation.images.checks import fingerprint
from evaluation.images.features import Features, extract
from evaluation.runtime.processes import by_the_first, is_first
from evaluation.statistics.frechet import Gaussian, fit

CACHE_VERSION = 1  # increment with any change to how features are computed


@dataclass(frozen=True)
class Pass:
    """Batch size and device of feature extraction, which affect speed and rounding only."""

    batch_size: int
    device: torch.device | str

    @property
    def float64_device(self) -> torch.device:
        """Device for large float64 products: that of the extraction if it is a CUDA device, else the CPU."""
        device = torch.device(self.device)
        return device if device.type == "cuda" else torch.device("cpu")


class ImageSet:
    """A set of images in a fixed order, with the features of each extractor.

    A metric that needs n images uses the first n. A request for the features of more images extracts only the missing
    ones.

    Args:
        images: uint8 (N, C, H, W).
        labels: int64 (N,), or None.
        seed: seed of the random order; None: the order of the tensor.
        cache: keeps features on disk; None: no cache.
    """

    def __init__(
        self, images: Tensor, labels: Tensor | None = None, *, seed: int | None = None, cache: Cache | None = None
    ) -> None:
        self.images, self._labels, self.cache = images, labels, cache
        self.order: Tensor | None = None
        if seed is not None:
            generator = torch.Generator("cpu").manual_seed(seed)
            self.order = torch.randperm(len(images), generator=generator, device="cpu")
        self._features: dict[tuple[str, str], Features] = {}
        self._moments: dict[tuple[tuple[str, str], int, int], Gaussian] = {}

    def __len__(self) -> int:
        return len(self.images)

    @property
    def has_labels(self) -> bool:
        """Whether the images have labels."""
        return self._labels is not None

    @cached_property
    def num_classes(self) -> int:
        """Largest label plus 1; 0 without labels."""
        return 0 if self._labels is None else int(self._labels.max()) + 1

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all images, in the tensor's order."""
        return fingerprint(self.images)

    def rows(self, count: int) -> Tensor:
        """Positions of the first `count` images in the tensor, int64 (count,), ascending."""
        order = torch.arange(count, device="cpu") if self.order is None else self.order[:count].sort().values
        return order[:count]

    def first(self, count: int, start: int = 0) -> Tensor:
        """Images `start` to `count` of the order, uint8 (count - start, C, H, W)."""
        if self.order is None:
            return self.images[start:count]
        return self.images[self.order[start:count].to(self.images.device)]

    def labels(self, count: int) -> Tensor:
        """Labels of the first `count` images, int64 (count,), on the CPU."""
        assert self._labels is not None
        labels = self._labels.cpu()
        return labels[:count] if self.order is None else labels[self.order[:count]]

    def features(self, count: int, extractor: Extractor, how: Pass) -> Features:
        """Features (count, D) of the first `count` images, and logits (count, K) or None."""
        known = self._features.get(_identity(extractor))
        done = 0 if known is None else len(known.features)
        if known is None or done < count:
            more = self._read_or_extract(done, count, extractor, how)
            known = self._features[_identity(extractor)] = more if known is None else known.joined(more)
        return known.first(count)

    def keep(self, extractor: Extractor, features: Features) -> None:
        """Stores features of the first images, extracted during generation."""
        self._features[_identity(extractor)] = features

    def num_seen(self, extractor: Extractor) -> int:
        """Number of images whose features are already computed."""
        known = self._features.get(_identity(extractor))
        return 0 if known is None else len(known.features)

    def moments(self, count: int, extractor: Extractor, how: Pass, start: int = 0) -> Gaussian:
        """Mean and covariance of the features of images `start` to `count`, cached with their factor."""
        key = _identity(extractor), start, count
        if key not in self._moments:
            self._moments[key] = fit(self.features(count, extractor, how).features[start:].to(how.float64_device))
        return self._moments[key]

    def _read_or_extract(self, start: int, count: int, extractor: Extractor, how: Pass) -> Features:
        images = self.first(count, start)
        if self.cache is None:
            return extract(images, extractor, batch_size=how.batch_size, device=how.device)
        key, cache = _key(images, extractor, how), self.cache
        stored = by_the_first(lambda: cache.read(key))  # all processes extract features, or none of them
        if stored is not None:
            return Features.of_arrays(stored)
        found = extract(images, extractor, batch_size=how.batch_size, device=how.device)
        if is_first():
            cache.write(key, found.arrays())
        return found


def _identity(extractor: Extractor) -> tuple[str, str]:
    return extractor.name, extractor.fingerprint


def _key(images: Tensor, extractor: Extractor, how: Pass) -> dict[str, Any]:
    """Cache key: everything that affects the features, except the number of threads, which affects the last bits."""
    return {
        "version": CACHE_VERSION,
        "images": fingerprint(images),
        "extractor": {"name": extractor.name, "fingerprint": extractor.fingerprint, **extractor.protocol},
        "device": torch.device(how.device).type,
        "batch_size": how.batch_size,
        "torch": version("torch"),
        "torch-fidelity": version("torch-fidelity"),
    }
