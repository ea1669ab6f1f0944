"""Batches as a function of (seed, k), so that no position in the data has to be saved."""

import time
from collections.abc import Callable
from functools import cached_property, wraps
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

from gan.data.image_data import ImageData
from gan.errors import ConfigError
from gan.noise import ClassShares, random_generator
from gan.runtime.distributed import ALONE, Processes

P = ParamSpec("P")
R = TypeVar("R")


def _timed(method: Callable[Concatenate["Batches", P], R]) -> Callable[Concatenate["Batches", P], R]:
    """Adds the duration of a method to `seconds`."""

    @wraps(method)
    def call(self: "Batches", /, *arguments: P.args, **options: P.kwargs) -> R:
        begin = time.perf_counter()
        result = method(self, *arguments, **options)
        self.seconds += time.perf_counter() - begin
        return result

    return call


class Batches:
    """Full batches of a data set; batch k is a function of (seed, k), the same on every device.

    Epoch e is a random permutation of the N images, drawn on the CPU from (seed, e). Batch k is positions
    k * batch_size to (k + 1) * batch_size - 1 of the concatenated epochs, so a batch may span two of them, or more if
    N < batch_size. `flip` mirrors each image left to right with probability 1/2, drawn from (seed, k).

    The images are kept on the device as one tensor. Data sets of more than `resident_bytes` stay in host memory,
    possibly memory-mapped, and each batch is copied to the device.

    `seconds` is the time that the host has spent on batches. On a GPU it excludes the device's work.

    Raises:
        ConfigError: a batch size below 1.
    """

    def __init__(
        self,
        data: ImageData,
        batch_size: int,
        *,
        seed: int,
        device: torch.device | str,
        flip: bool = False,
        resident_bytes: int = 2**33,
        processes: Processes = ALONE,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"train.batch_size: got {batch_size}, expected at least 1")
        self.batch_size, self.seed, self.flip = batch_size, seed, flip
        self.processes = processes
        self.seconds = 0.0
        self.device = torch.device(device)
        self.resident = data.images.nbytes <= resident_bytes
        self._images = data.images.to(self.device) if self.resident else data.images
        self._labels = data.labels.to(self._images.device)
        self._class_counts = data.labels.bincount(minlength=data.num_classes)
        self._orders: dict[int, Tensor] = {}  # epoch -> permutation, on the images' device

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of an image, (C, H, W)."""
        return tuple(self._images.shape[1:])

    @cached_property
    def class_shares(self) -> ClassShares:
        """Shares of the classes among all images, for draws on the device."""
        return ClassShares(self._class_counts, self.device)

    def batch(self, k: int) -> tuple[Tensor, Tensor]:
        """Returns batch k >= 0: images uint8 (batch_size, C, H, W) and labels int64 (batch_size,), on the device.

        With several processes, each process gets its share of the batch.
        """
        mirrored, share = self.mirrored(k), self.processes.share
        return self.gather(share(self.rows(k)[0]), None if mirrored is None else share(mirrored[0]))

    @_timed
    def rows(self, k: int, count: int = 1) -> Tensor:
        """Returns the positions in the data set of batches k to k + count - 1, int64 (count, batch_size).

        They are on the images' device.
        """
        assert k >= 0, k
        start, stop = k * self.batch_size, (k + count) * self.batch_size
        size = len(self._images)
        pieces = []
        while start < stop:
            epoch, first = divmod(start, size)
            last = min(size, first + stop - start)
            pieces.append(self._order(epoch)[first:last])
            start += last - first
        return torch.cat(pieces).view(count, self.batch_size)

    @_timed
    def mirrored(self, k: int, count: int = 1) -> Tensor | None:
        """Draws the flips of batches k to k + count - 1, bool (count, batch_size), on the device; None if disabled."""
        if not self.flip:
            return None
        generators = [random_generator(self.seed, "data flips", number) for number in range(k, k + count)]
        uniform = torch.stack([torch.rand(self.batch_size, generator=generator) for generator in generators])
        return to_device(uniform < 0.5, self.device)

    @_timed
    def gather(self, rows: Tensor, mirrored: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns images uint8 (B, C, H, W) and labels int64 (B,) at `rows`, flipped where `mirrored` is true.

        On a GPU this does not synchronize with the host.
        """
        images, labels = to_device(self._images[rows], self.device), to_device(self._labels[rows], self.device)
        if mirrored is not None:
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        return images, labels

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            while len(self._orders) >= 2:
                del self._orders[next(iter(self._orders))]
            generator = random_generator(self.seed, "data order", epoch)
            order = torch.randperm(len(self._images), generator=generator)
            self._orders[epoch] = to_device(order, self._images.device)
        return self._orders[epoch]


def to_device(values: Tensor, device: torch.device | str) -> Tensor:
    """Copies a tensor to the device. A copy from the host to a GPU is asynchronous, from pinned memory."""
    device = torch.device(device)
    if device.type != "cuda" or values.device.type != "cpu":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
