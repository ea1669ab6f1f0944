"""Data sets that torchvision reads from one published archive."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from torchvision.datasets.utils import check_integrity

from gan.data.image_data import no_empty_folders
from gan.errors import DataError


def open_archived(dataset: Any, name: str, root: Path, *, download: bool, **choice: object) -> Any:
    """Opens a data set of torchvision that was published as one archive with an MD5.

    `root` holds the archive or the folder unpacked from it. An archive is unpacked in place, without network.

    Args:
        dataset: class with torchvision's attributes `url`, `filename` and `tgz_md5`.
        name: name of the data set, for the error message.
        choice: further arguments of the class, which choose the split.

    Raises:
        DataError: files are missing or damaged and cannot be downloaded.
    """
    archive = root / dataset.filename
    try:
        with suppress(RuntimeError):  # not unpacked, or damaged
            return dataset(root, download=False, **choice)
        # If the right archive exists, torchvision's "download" only unpacks it.
        unpack = check_integrity(archive, dataset.tgz_md5)
        with no_empty_folders(root):
            return dataset(root, download=download or unpack, **choice)
    except Exception as error:  # errors of the network, the archive and the files inside are of many types
        tried = f"downloading failed ({' '.join(str(error).split())})" if download else "data.download is false"
        online = "try again with network access" if download else "with network access set data.download=true"
        raise DataError(
            f"data.root: no complete {name} in {root} and {tried}; {online}, "
            f"otherwise download {dataset.url} (MD5 {dataset.tgz_md5}) to {archive}, or use a local copy as image "
            "files with data.name=folder"
        ) from error
