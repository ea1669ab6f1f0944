"""CelebA, the aligned and cropped images, read by torchvision."""

from pathlib import Path

import numpy as np
import torch
from torchvision import datasets
from tqdm import tqdm

from evaluation.images.reader.decoding import strict_decoding
from gan.data.framing import Framing, decode
from gan.data.image_data import ImageData, check_split, expanded, no_empty_folders
from gan.errors import DataError

SPLITS = ("train", "test", "valid", "all")


def load(*, root: str, split: str, image_size: int, crop: int, resize: str, download: bool) -> ImageData:
    """Reads one official split as images of a single class; the files are 178x218 pixels.

    Raises:
        DataError: files are missing or damaged and cannot be downloaded, or crop and resize do not give the image size.
    """
    check_split("celeba", split, SPLITS)
    framing = Framing(image_size, crop, resize)
    framing.check()
    folder = expanded(root)
    names = _open(folder, split, download=download).filename
    pictures = folder / datasets.CelebA.base_folder / "img_align_celeba"
    images = np.empty((len(names), 3, image_size, image_size), np.uint8)
    with strict_decoding():
        for row, name in enumerate(tqdm(names, f"celeba {split}", unit="image", disable=None)):
            images[row] = decode(_read(pictures / name), str(pictures / name), framing)
    return ImageData(
        images=torch.from_numpy(images),
        labels=torch.zeros(len(names), dtype=torch.int64),
        classes=("face",),
        name="celeba",
        split=split,
    )


def _open(root: Path, split: str, *, download: bool) -> datasets.CelebA:
    try:
        with no_empty_folders(root / datasets.CelebA.base_folder):
            return datasets.CelebA(root, split, download=download)
    except Exception as error:  # many types: Google Drive's quota, gdown missing, no network, damaged lists
        tried = f"downloading failed ({' '.join(str(error).split())})" if download else "data.download is false"
        files = ", ".join(
            f"{name} (https://drive.google.com/uc?id={key})" for key, _, name in datasets.CelebA.file_list
        )
        online = "with network access install gdown and " + ("try again" if download else "set data.download=true")
        raise DataError(
            f"data.root: no complete celeba in {root} and {tried}; {online} (Google Drive limits downloads per day), "
            f"otherwise download {files} into {root / datasets.CelebA.base_folder} and unpack the zip there, or use a "
            "folder or archive of the images with data.name=folder"
        ) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"data.root: cannot read {path} ({error.strerror}); unpack img_align_celeba.zip again"
        ) from error
