"""Batch k as a function of (seed, k): nothing to save, nothing to restore."""

import torch
from torch import Tensor

from gan.data.image_data import ImageData
from gan.errors import ConfigError
from gan.noise import random_generator


class Batches:
    """Full batches of a data set, each a pure function of (seed, k) on every device.

    Epoch e is a random permutation of the N images, drawn on the CPU from (seed, e). Batch k is positions
    k * batch_size to (k + 1) * batch_size - 1 of the concatenated epochs, so a batch may span two of them, or more
    where N < batch_size. `flip` mirrors each image left to right with probability 1/2, drawn from (seed, k).

    The images stay on the device as one tensor. Sets of more than `resident_bytes` stay where they are, memory-mapped
    if they were, and each batch is copied.

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
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"train.batch_size: got {batch_size}, expected at least 1")
        self.batch_size, self.seed, self.flip = batch_size, seed, flip
        self.device = torch.device(device)
        self.resident = data.images.nbytes <= resident_bytes
        self._images = data.images.to(self.device) if self.resident else data.images
        self._labels = data.labels.to(self._images.device)
        self._orders: dict[int, Tensor] = {}  # epoch -> permutation, on the images' device

    def batch(self, k: int) -> tuple[Tensor, Tensor]:
        """Batch k >= 0: images uint8 (batch_size, 3, H, W) and labels int64 (batch_size,), on the device."""
        assert k >= 0, k
        rows = self._rows(k * self.batch_size, (k + 1) * self.batch_size)
        images, labels = self._images[rows].to(self.device), self._labels[rows].to(self.device)
        if self.flip:
            generator = random_generator(self.seed, "data flips", k)
            flipped = (torch.rand(self.batch_size, generator=generator) < 0.5).to(self.device)
            images = torch.where(flipped[:, None, None, None], images.flip(3), images)
        return images, labels

    def _rows(self, start: int, stop: int) -> Tensor:
        """Positions start to stop - 1 of the concatenated epochs, int64 (stop - start,)."""
        count = len(self._images)
        pieces = []
        while start < stop:
            epoch, first = divmod(start, count)
            last = min(count, first + stop - start)
            pieces.append(self._order(epoch)[first:last])
            start += last - first
        return torch.cat(pieces)

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            while len(self._orders) >= 2:
                del self._orders[next(iter(self._orders))]
            generator = random_generator(self.seed, "data order", epoch)
            order = torch.randperm(len(self._images), generator=generator)
            self._orders[epoch] = order.to(self._images.device)
        return self._orders[epoch]
