"""Packs a data set, so that training reads it at the speed of the disk, or writes it as PNG files with their labels.

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
The same images as grey PNG files in an archive with labels.csv, or with dataset.json for StyleGAN and EDM:
    python tools/prepare_dataset.py --root cifar10-jpeg.tar.xz --channels 1 --labels csv --out grey.zip
    python tools/prepare_dataset.py --root cifar10-jpeg.tar.xz --split train --labels json --out stylegan.zip

\b
Check a packed data set:
    python tools/prepare_dataset.py --check data/celeba-64
"""

import csv
import io
import json
import os
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch

from evaluation.images.reader.labels import CSV, JSON
from evaluation.images.reader.layout import are_numbers, sort_labels
from evaluation.images.reader.splits import SPLIT_FOLDERS
from evaluation.runtime.command import CheckedCommand
from gan.data import DATASETS, RESIZES, ImageData, find_source, with_channels
from gan.data.image_data import expanded
from gan.data.packed import check_output, pack, verify_packed
from gan.data.pixels import encode_png
from gan.errors import DataError, UserError


@click.command(cls=CheckedCommand, help=__doc__)
@click.option("--data", "name", type=click.Choice(list(DATASETS)), default="folder", show_default=True, help="Source.")
@click.option("--root", default="", help="Folder or archive that holds the data.")
@click.option("--out", default="", help="Folder to write, or with --labels a .zip file.")
@click.option("--split", "splits", multiple=True, help="Split to pack; repeatable. [default: train and test]")
@click.option("--image-size", type=int, default=32, show_default=True, help="Side of the packed images in pixels.")
@click.option("--channels", type=click.Choice(["1", "3"]), default="3", show_default=True, help="1: grey, 3: RGB.")
@click.option("--crop", type=int, default=0, show_default=True, help="Side of the centre crop; 0: the largest square.")
@click.option(
    "--resize", type=click.Choice(list(RESIZES)), default="none", show_default=True, help="Pillow filter, or border."
)
@click.option(
    "--labels", type=click.Choice(["csv", "json"]), help=f"Write PNG files, and their labels in {CSV} or {JSON}."
)
@click.option("--download", is_flag=True, help="Fetch missing files (cifar10, cifar100, stl10, celeba).")
@click.option("--overwrite", is_flag=True, help="Replace a packed data set at --out.")
@click.option("--check", "check", metavar="FOLDER", default="", help="Only verify a packed data set.")
def main(
    name: str,
    out: str,
    splits: tuple[str, ...],
    channels: str,
    labels: str | None,
    overwrite: bool,
    check: str,
    **framing: Any,
) -> None:
    """Pack the splits of a data set, or write them as files."""
    try:
        if check:
            for split, data in verify_packed(check).items():
                click.echo(f"{check}: {split}: {len(data)} images, fingerprint {data.fingerprint}")
            return
        place = check_packed(out, overwrite=overwrite) if labels is None else check_new(out, splits)
        started = time.perf_counter()
        loaded = read(name, splits, channels=int(channels), **framing)
        read_at = time.perf_counter()
        asked = {key: framing[key] for key in ("image_size", "crop", "resize")}
        if labels is None:
            pack(loaded, out, overwrite=overwrite, **asked)
        else:
            loaded = renumbered(loaded, labels)
            write_files(loaded, place, labels)
            name, asked = "folder", {"image_size": framing["image_size"]}
        did = "packed" if labels is None else "written"
        click.echo(f"read in {read_at - started:.1f} s, {did} in {time.perf_counter() - read_at:.1f} s: {place}")
        for split, data in loaded.items():
            click.echo(f"{split}: {len(data)} images of {data.num_classes} classes, fingerprint {data.fingerprint}")
        settings = {"name": name, "root": place, **asked, **({"channels": 1} if channels == "1" else {})}
        click.echo("use it with " + " ".join(f"--set data.{key}={value}" for key, value in settings.items()))
    except (UserError, OSError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)


def read(name: str, splits: tuple[str, ...], *, channels: int, **settings: Any) -> dict[str, ImageData]:
    """Reads the named splits. Default: train and test, or the existing splits of a folder.

    Args:
        settings: other arguments of `gan.data.load_images`.
    """
    source = find_source(name)
    if source.load_splits is not None:
        loaded = source.load_splits(splits=splits, **settings)
    else:
        loaded = {split: source.load(split=split, **settings) for split in splits or ("train", "test")}
    return {split: with_channels(data, channels) for split, data in loaded.items()}


def check_packed(out: str, *, overwrite: bool) -> Path:
    """Returns the folder to pack into; see `check_output`."""
    if not out:
        raise DataError("--out: missing; name the folder to write")
    if out.lower().endswith(".zip"):
        raise DataError(
            f"--out: {out}: a packed data set is a folder; name one, or add --labels csv for a zip of files"
        )
    return check_output(out, overwrite=overwrite)


def check_new(out: str, splits: tuple[str, ...]) -> Path:
    """Returns the folder or .zip file to write.

    Raises:
        DataError: it exists or has no name, or a split cannot be told by its folder.
    """
    if not out:
        raise DataError("--out: missing; name the folder or the .zip file to write")
    for split in splits:
        if split not in SPLIT_FOLDERS:
            raise DataError(f"--split: got {split} with --labels, expected one of {', '.join(SPLIT_FOLDERS)}")
    place = expanded(out, "--out")
    if {".tar", ".tgz"} & {suffix.lower() for suffix in place.suffixes}:
        raise DataError(f"--out: {out}: an archive is written as .zip; name one, or a folder")
    if place.exists() or place.is_symlink():
        raise DataError(f"{place} exists; choose another name: with --labels nothing is replaced")
    return place


def renumbered(splits: Mapping[str, ImageData], labels: str) -> dict[str, ImageData]:
    """Returns the images with the classes, in their order, that are read back from a file of labels.

    In dataset.json classes are numbers: their names, if these are whole numbers, otherwise their positions.
    """
    names = next(iter(splits.values())).classes
    if labels == "json" and not are_numbers(names):
        names = tuple(str(number) for number in range(len(names)))
    classes = sort_labels({names[label] for data in splits.values() for label in data.labels.unique().tolist()})
    numbers = {name: number for number, name in enumerate(classes)}
    positions = torch.tensor([numbers.get(name, -1) for name in names])
    return {
        split: replace(data, labels=positions[data.labels], classes=classes, stored_fingerprint="")
        for split, data in splits.items()
    }


def write_files(splits: Mapping[str, ImageData], place: Path, labels: str) -> None:
    """Writes images as PNG files SPLIT/NUMBER.png with a file of labels, to a new folder or .zip file, atomically.

    A data set of one class has null in place of labels in dataset.json, which otherwise needs numbers as names.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = place.with_name(f".{place.name}.{os.getpid()}.partial")
    try:
        if place.suffix.lower() == ".zip":
            with zipfile.ZipFile(beside, "w") as archive:  # PNG files are compressed already
                _write_all(splits, labels, archive.writestr)
        else:
            _write_all(splits, labels, partial(_write_file, beside))
        beside.rename(place)
    finally:
        shutil.rmtree(beside, ignore_errors=True)  # a folder
        beside.unlink(missing_ok=True)


def _write_file(folder: Path, name: str, content: bytes) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def _write_all(splits: Mapping[str, ImageData], labels: str, write: Callable[[str, bytes], None]) -> None:
    named: list[tuple[str, str]] = []
    for split, data in splits.items():
        for row, (image, label) in enumerate(zip(data.images, data.labels.tolist(), strict=True)):
            named.append((f"{split}/{row:08d}.png", data.classes[label]))
            write(named[-1][0], encode_png(image))
    if labels == "json":
        numbers = [(file, int(name)) for file, name in named]
        several = len({name for _, name in named}) > 1
        write(JSON, json.dumps({"labels": numbers if several else None}).encode())
        return
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([("file", "label"), *named])
    write(CSV, table.getvalue().encode())


if __name__ == "__main__":
    main()
