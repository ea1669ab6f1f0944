"""CIFAR-10 and CIFAR-100, read by torchvision."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import datasets
from torchvision.datasets.utils import check_integrity

from gan.data.framing import Framing, frame
from gan.data.image_data import ImageData, check_split, expanded, no_empty_folders
from gan.errors import DataError

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
    read = _open(name, expanded(root), train=split == "train", download=download)
    pixels = read.data  # (N, 32, 32, 3)
    if image_size == 32 and crop in (0, 32):
        images = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
    else:
        framed = [frame(Image.fromarray(array), f"{name} image {i}", framing) for i, array in enumerate(pixels)]
        images = torch.from_numpy(np.stack(framed))
    return ImageData(
        images=images, labels=torch.tensor(read.targets), classes=tuple(read.classes), name=name, split=split
    )


def _open(name: str, root: Path, *, train: bool, download: bool) -> datasets.CIFAR10:
    dataset = _DATASETS[name]
    archive = root / dataset.filename
    try:
        # If the right archive exists, torchvision's "download" only unpacks it.
        unpack = check_integrity(archive, dataset.tgz_md5)
        with no_empty_folders(root):
            return dataset(root, train=train, download=download or unpack)
    except Exception as error:  # errors of the network, the archive and the pickles inside are of many types
        tried = f"downloading failed ({' '.join(str(error).split())})" if download else "data.download is false"
        online = "try again with network access" if download else "with network access set data.download=true"
        raise DataError(
            f"data.root: no complete {name} in {root} and {tried}; {online}, "
            f"otherwise download {dataset.url} (MD5 {dataset.tgz_md5}) to {archive}, or use a local copy as image "
            "files with data.name=folder"
        ) from error


load_cifar10 = partial(load, "cifar10")
load_cifar100 = partial(load, "cifar100")
