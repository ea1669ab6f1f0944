"""Subsets of a data set, for short experiments and for training on few images."""

from dataclasses import replace

import torch
from torch import Tensor

from gan.data.image_data import ImageData
from gan.errors import DataError
from gan.noise import random_generator


def balanced_rows(data: ImageData, count: int, seed: int) -> Tensor:
    """Returns ascending positions, int64 (count,), of a subset whose class counts differ by at most one.

    The subset holds the first images of each class in an order drawn from the seed, so a smaller subset is part of a
    larger one.

    Raises:
        DataError: too few images in total or of a class.
    """
    order = torch.randperm(len(data), generator=random_generator(seed, "data subset"))
    places = torch.empty(len(data), dtype=torch.int64)  # rank of each image within its class
    for label in range(data.num_classes):
        own = order[data.labels[order] == label]
        places[own] = torch.arange(len(own))
    share, rest = divmod(count, data.num_classes)
    wanted = share + (data.labels < rest).long()
    rows = (places < wanted).nonzero()[:, 0]
    if len(rows) < count:
        raise DataError(
            f"data.num_train: got {count}, but some of the {data.num_classes} classes have fewer than "
            f"{share + bool(rest)} of the {len(data)} images; choose fewer, or 0 for all images"
        )
    return rows


def part_of(data: ImageData, rows: Tensor) -> ImageData:
    """Returns the images and labels at these positions, in their order."""
    return replace(data, images=data.images[rows], labels=data.labels[rows], stored_fingerprint="")
