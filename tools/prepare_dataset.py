"""Packs a data set, so that training reads it at the speed of the disk.

\b
Example: 50,000 training and 10,000 test images from an archive of class folders
    python tools/prepare_dataset.py --data folder --root cifar10-jpeg.tar.xz --out data/cifar10-jpeg
then set
    data: {name: folder, root: data/cifar10-jpeg}

\b
CelebA at 64x64 from its 178x218 files, the splits for training and FID:
    python tools/prepare_dataset.py --data celeba --root data --split train --split test \\
        --image-size 64 --crop 178 --resize bilinear --out data/celeba-64

\b
Check a packed data set:
    python tools/prepare_dataset.py --check data/celeba-64
"""

import sys
import time
from typing import Any

import click

from evaluation.runtime.command import CheckedCommand
from gan.data import DATASETS, RESIZES, ImageData, find_source
from gan.data.packed import check_output, pack, verify_packed
from gan.errors import DataError, UserError


@click.command(cls=CheckedCommand, help=__doc__)
@click.option("--data", "name", type=click.Choice(list(DATASETS)), default="folder", show_default=True, help="Source.")
@click.option("--root", default="", help="Folder or archive that holds the data.")
@click.option("--out", default="", help="Folder to write.")
@click.option("--split", "splits", multiple=True, help="Split to pack; repeatable. [default: train and test]")
@click.option("--image-size", type=int, default=32, show_default=True, help="Side of the packed images in pixels.")
@click.option("--crop", type=int, default=0, show_default=True, help="Side of the centre crop; 0: the largest square.")
@click.option("--resize", type=click.Choice(list(RESIZES)), default="none", show_default=True, help="Pillow filter.")
@click.option("--download", is_flag=True, help="Fetch missing files (cifar10, cifar100, celeba).")
@click.option("--overwrite", is_flag=True, help="Replace a packed data set at --out.")
@click.option("--check", "check", metavar="FOLDER", default="", help="Only verify a packed data set.")
def main(
    name: str,
    root: str,
    out: str,
    splits: tuple[str, ...],
    image_size: int,
    crop: int,
    resize: str,
    download: bool,
    overwrite: bool,
    check: str,
) -> None:
    """Pack the splits of a data set."""
    try:
        if check:
            for split, data in verify_packed(check).items():
                click.echo(f"{check}: {split}: {len(data)} images, fingerprint {data.fingerprint}")
            return
        if not out:
            raise DataError("--out: missing; name the folder to write")
        check_output(out, overwrite=overwrite)
        started = time.perf_counter()
        loaded = read(name, splits, root=root, image_size=image_size, crop=crop, resize=resize, download=download)
        read_at = time.perf_counter()
        folder = pack(loaded, out, image_size=image_size, crop=crop, resize=resize, overwrite=overwrite)
        click.echo(f"read in {read_at - started:.1f} s, packed in {time.perf_counter() - read_at:.1f} s: {folder}")
        for split, data in loaded.items():
            click.echo(f"{split}: {len(data)} images of {data.num_classes} classes, fingerprint {data.fingerprint}")
        click.echo(
            f"use it with --set data.name={name} --set data.root={folder} --set data.image_size={image_size} "
            f"--set data.crop={crop} --set data.resize={resize}"
        )
    except (UserError, OSError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)


def read(
    name: str, splits: tuple[str, ...], *, root: str, image_size: int, crop: int, resize: str, download: bool
) -> dict[str, ImageData]:
    """Reads the named splits. Default: train and test, or the existing splits of a folder."""
    source = find_source(name)
    settings: dict[str, Any] = {
        "root": root,
        "image_size": image_size,
        "crop": crop,
        "resize": resize,
        "download": download,
    }
    if source.load_splits is not None:
        return dict(source.load_splits(splits=splits, **settings))
    return {split: source.load(split=split, **settings) for split in splits or ("train", "test")}


if __name__ == "__main__":
    main()
