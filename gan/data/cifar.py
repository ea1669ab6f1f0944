"""CIFAR-10 and CIFAR-100, read by torchvision."""

from functools import partial

import torch
from torchvision import datasets

from gan.data.archives import open_archived
from gan.data.framing import Framing, frame_all
from gan.data.image_data import ImageData, check_split, expanded

SPLITS = ("train", "test")

_DATASETS = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}


def load(name: str, *, root: str, split: str, image_size: int, crop: int, resize: str, download: bool) -> ImageData:
    """Reads "cifar10" or "cifar100" in torchvision's order; the images are 32x32.

    `root` holds the published archive or the folder unpacked from it. An archive is unpacked in place, without network.

    Raises:
        DataError: files are missing or damaged and cannot be downloaded, or an image size other than 32 without a
            resize.
    """
    check_split(name, split, SPLITS)
    framing = Framing(image_size, crop, resize)
    framing.check()
    read = open_archived(_DATASETS[name], name, expanded(root), download=download, train=split == "train")
    images = torch.from_numpy(frame_all(read.data, name, framing))
    return ImageData(
        images=images, labels=torch.tensor(read.targets), classes=tuple(read.classes), name=name, split=split
    )


load_cifar10 = partial(load, "cifar10")
load_cifar100 = partial(load, "cifar100")
