"""gan-sample: writes generated images and image grids of a checkpoint."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gan.command import Command
from gan.command.options import BEST, CHECKPOINT, DEVICE, FOLDER, check_found, check_source, with_options
from gan.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from gan.runs.samples import Source

NUM_IMAGES, NUM_DEMO, NUM_PATHS = 64, 80, 8
EXAMPLES = """
Examples:

  gan-sample --demo                              before any training: demo.png, by the generator of the package
  gan-sample                                     64 images and a grid from the newest run under ./runs
  gan-sample --run runs/mine --num 1000 --out samples     for gan-eval --generated samples
  gan-sample --run runs/cond --class cat --class 7 --num 16
  gan-sample --checkpoint runs/mine/checkpoints/step-00050000.pt --seed 7
  gan-sample --truncation 0.5 --standing-statistics      more typical images, less variety
  gan-sample --interpolate 10 --num 6                    a grid of 6 paths between two latents, 10 images each
"""


@click.command(cls=Command, epilog=EXAMPLES)
@with_options(*CHECKPOINT, BEST)
@click.option("--demo", is_flag=True, help="The generator that comes with the package; also prints its scores.")
@click.option(
    "--num",
    type=click.IntRange(1),
    help=f"Number of images or paths, of each --class if given. [default: {NUM_IMAGES} images, {NUM_PATHS} paths]",
)
@click.option(
    "--class", "classes", multiple=True, help="Name or number of a class of a conditional model; may be repeated."
)
@click.option(
    "--out",
    type=FOLDER,
    help="Folder, new or empty. [default: samples/generated-<step> in the run]",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of the latents.")
@click.option("--raw", is_flag=True, help="Use the raw generator, even if there is an averaged one.")
@click.option(
    "--truncation",
    default=0.0,
    type=click.FloatRange(0, 1e6),
    metavar="T",
    help="Truncate the latents to T standard deviations. [default: no truncation]",
)
@click.option(
    "--standing-statistics",
    "standing",
    is_flag=True,
    help="Recompute batch-norm statistics from such latents instead of using running ones.",
)
@click.option(
    "--interpolate",
    type=click.IntRange(2, 1000),
    metavar="N",
    help="Write only a grid of paths, each N images from one latent to another, of one class.",
)
@click.option("--grid-only", is_flag=True, help="Write only the grid, no single images.")
@with_options(*DEVICE)
def main(
    checkpoint: Path | None,
    run: Path | None,
    best: bool,
    demo: bool,
    num: int | None,
    classes: tuple[str, ...],
    out: Path | None,
    seed: int,
    raw: bool,
    truncation: float,
    standing: bool,
    interpolate: int | None,
    grid_only: bool,
    device: str,
    deterministic: bool,
) -> None:
    """Write generated images as PNG files into a folder, and a grid of them beside it, as FOLDER.png.

    Images of a conditional model are sorted into one folder per class. With --interpolate only the grid is written.
    """
    check_source(checkpoint, run, best, demo)
    if not demo:
        check_found(checkpoint, run)
    from gan.measuring.generator_file import DEMO
    from gan.runs.choice import fresh_folder
    from gan.runs.samples import Samples, write_samples
    from gan.runtime.device import prepared_device

    wanted = Samples(
        num=num or (NUM_PATHS if interpolate else NUM_DEMO if demo else NUM_IMAGES),
        classes=classes,
        seed=seed,
        truncation=truncation,
        standing=standing,
        interpolate=interpolate,
    )
    with prepared_device(device, deterministic) as place:
        source, about = _source(DEMO if demo else checkpoint, run, best, raw, place)
        if demo and out is None:
            out, grid_only = fresh_folder(Path("demo")), True
        write_samples(source, wanted, place, out=out, grid_only=grid_only, say=click.echo)
    if about:
        click.echo(about)


def _source(
    checkpoint: Path | None, run: Path | None, best: bool, raw: bool, device: "torch.device"
) -> tuple["Source", str]:
    """The generator of a checkpoint and "", or of a file of tools/export_generator.py and its scores."""
    from gan.measuring.generator_file import SUFFIX, read_generator
    from gan.runs.checkpoint import read_checkpoint
    from gan.runs.choice import choose_checkpoint
    from gan.runs.samples import checkpoint_source

    if checkpoint is None or checkpoint.suffix != SUFFIX:
        return checkpoint_source(read_checkpoint(choose_checkpoint(checkpoint, run, best)), device, ema=not raw), ""
    if raw:
        raise ConfigError(f"--raw: {checkpoint} holds one generator, averaged if the run kept an average")
    found = read_generator(checkpoint, device)
    return found.source, found.text()


if __name__ == "__main__":
    main(prog_name="gan-sample")
