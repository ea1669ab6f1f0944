"""Throughput of `gan.data.batches`."""

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.timing import Record, finish, interleave, shared_options, start, summarize
from evaluation.runtime.command import CheckedCommand
from gan.data import Batches, ImageData
from gan.data.packed import load_packed, pack

FRAMING: dict[str, Any] = {"image_size": 32, "crop": 0, "resize": "none"}
ON_DISK = 0
"""Value of `resident_bytes` that copies nothing to memory or to the device in advance."""


@click.command("data", cls=CheckedCommand)
@click.option("--images", type=click.IntRange(1), default=50_000, help="Random 32x32 images in the data set.")
@click.option("--batch-size", type=click.IntRange(1), default=64)
@click.option("--batches", type=click.IntRange(1), default=200, help="Batches per timed round.")
@shared_options(repeats=9)
def measure_data(
    images: int, batch_size: int, batches: int, repeats: int, threads: int, device: str, json_path: Path | None
) -> Record:
    """Time batches from both forms of a data set: a tensor on the device, and a packed, memory-mapped file.

    Ratios are to the tensor, the form of every data set that is not packed.
    """
    record = start(f"{batches} batches of {batch_size} out of {images:,} images of 32x32", repeats, threads, device)
    pixels = torch.randint(0, 256, (images, 3, 32, 32), dtype=torch.uint8)
    data = ImageData(pixels, torch.zeros(images, dtype=torch.int64), ("any",), "random", "train")
    with tempfile.TemporaryDirectory() as folder:
        root = pack({"train": data}, Path(folder) / "packed", **FRAMING, overwrite=False)
        packed = load_packed(root, name=data.name, split="train", **FRAMING)
        sources = {
            "on the device": Batches(data, batch_size, seed=0, device=device),
            "on the device, flipped": Batches(data, batch_size, seed=0, device=device, flip=True),
            "packed, on the device": Batches(packed, batch_size, seed=0, device=device),
            "packed, memory-mapped": Batches(packed, batch_size, seed=0, device=device, resident_bytes=ON_DISK),
        }
        variants = {name: _reader(source, batches) for name, source in sources.items()}
        record["reading"] = summarize(interleave(variants, repeats, device, warm=1), batches, "batches")
    return finish(record, json_path)


def _reader(source: Batches, batches: int) -> Callable[[], None]:
    """Function that reads the next `batches` batches at every call."""
    numbers = itertools.count()

    def read() -> None:
        for k in itertools.islice(numbers, batches):
            source.batch(k)

    return read
