"""Random labels, which a classifier can only memorize (Zhang et al. 2017)."""

from dataclasses import replace

import torch

from gan.data.image_data import ImageData
from gan.noise import random_generator


def with_random_labels(data: ImageData, seed: int) -> ImageData:
    """Replaces each label by a uniform draw over the classes, a function of the seed and the position."""
    generator = random_generator(seed, "random labels")
    labels = torch.randint(data.num_classes, (len(data),), generator=generator)
    return replace(data, labels=labels, stored_fingerprint="")
