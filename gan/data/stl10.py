"""STL-10, read by torchvision: labelled images, and 100,000 without labels, on which GANs are trained."""

from functools import partial

import torch
from torchvision import datasets

from gan.data.archives import open_archived
from gan.data.framing import Framing, frame_all
from gan.data.image_data import ImageData, check_split, expanded

SPLITS = {"stl10": ("train", "test", "unlabeled"), "stl10_unlabeled": ("train", "test")}
"""Splits by data set. "train" of `stl10_unlabeled` is "unlabeled" of `stl10`."""
CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")


def load(name: str, *, root: str, split: str, image_size: int, crop: int, resize: str, download: bool) -> ImageData:
    """Reads "stl10" or "stl10_unlabeled" in the published order; the images are 96x96.

    "stl10" has 5,000 training and 8,000 test images of ten classes, and the split "unlabeled" of one class.
    "stl10_unlabeled" has the 100,000 unlabeled images for training and the test images without their labels. `root`
    holds the published archive or the folder unpacked from it. An archive is unpacked in place, without network.

    Raises:
        DataError: files are missing or damaged and cannot be downloaded, or an image size other than 96 without a
            resize.
    """
    check_split(name, split, SPLITS[name])
    framing = Framing(image_size, crop, resize)
    framing.check()
    part = "unlabeled" if (name, split) == ("stl10_unlabeled", "train") else split
    read = open_archived(datasets.STL10, name, expanded(root), download=download, split=part)
    images = torch.from_numpy(frame_all(read.data.transpose(0, 2, 3, 1), f"{name} {split}", framing))
    labelled = name == "stl10" and split != "unlabeled"
    labels = torch.from_numpy(read.labels).long() if labelled else torch.zeros(len(images), dtype=torch.int64)
    classes = CLASSES if labelled else ("image",)
    return ImageData(images=images, labels=labels, classes=classes, name=name, split=split)


load_stl10 = partial(load, "stl10")
load_unlabeled = partial(load, "stl10_unlabeled")
