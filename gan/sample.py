"""gan-sample: writes generated images and image grids of a checkpoint."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gan.command import Command
from gan.command.options import (
    BEST,
    CHECKPOINT,
    DEVICE,
    FOLDER,
    IMPORT,
    check_found,
    check_source,
    read_seeds,
    with_options,
)
from gan.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from gan.runs.samples import Samples, Source

NUM_IMAGES, NUM_DEMO, NUM_PATHS = 64, 80, 8
EXAMPLES = """
Examples:

  gan-sample --demo                              before any training: demo.png, by the generator of the package
  gan-sample                                     64 images and a grid from the newest run under ./runs
  gan-sample --run runs/mine --num 1000 --out samples     for gan-eval --generated samples
  gan-sample --run runs/cond --class cat --class 7 --num 16
  gan-sample --checkpoint runs/mine/checkpoints/step-00050000.pt --seed 7
  gan-sample --run runs/mine --seeds 0-99,1234           one image per seed, named and labelled by it
  gan-sample --run runs/mine --num 50000 --format npz --out samples    samples.npz, for other evaluators
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
    help="Folder, new or empty; the grid beside it has its name. [default: samples/generated-<step> in the run]",
)
@click.option(
    "--format",
    "kind",
    default="png",
    show_default=True,
    type=click.Choice(["png", "npz"]),
    help="A folder of PNG files, or one file as other evaluators read it: arr_0 and, with classes, arr_1.",
)
@click.option("--seed", type=click.IntRange(0), help="Seed of all latents. [default: 0]")
@click.option(
    "--seeds",
    callback=read_seeds,
    metavar="0-9,100",
    help="Instead of --num and --seed: one image per seed, of each --class if given; files are named by the seeds.",
)
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
@with_options(IMPORT, *DEVICE)
def main(
    checkpoint: Path | None,
    run: Path | None,
    best: bool,
    demo: bool,
    out: Path | None,
    kind: str,
    raw: bool,
    grid_only: bool,
    imports: tuple[str, ...],
    device: str,
    deterministic: bool,
    **options: Any,
) -> None:
    """Write generated images as PNG files into a folder, and a grid of them beside it, as FOLDER.png.

    Images of a conditional model are sorted into one folder per class. With --interpolate only the grid is written.
    """
    check_source(checkpoint, run, best, demo)
    out = _check_form(out, kind, grid_only or options["interpolate"] is not None)
    from gan.runs.finding import EXPORTED, exported_folder

    if checkpoint is not None and exported_folder(checkpoint) == checkpoint:
        checkpoint = checkpoint / EXPORTED
    if not demo:
        check_found(checkpoint, run)
    from gan.measuring.generator_file import DEMO
    from gan.runs.choice import fresh_folder
    from gan.runs.samples import write_samples
    from gan.runtime.device import prepared_device

    wanted = _wanted(demo, **options)
    if demo and out is None:
        out, grid_only = fresh_folder(Path("demo")), kind == "png"
    with prepared_device(device, deterministic) as place:
        source, about = _source(DEMO if demo else checkpoint, run, best, raw, place)
        write_samples(source, wanted, place, out=out, kind="grid" if grid_only else kind, say=click.echo)
    if about:
        click.echo(about)


def _check_form(out: Path | None, kind: str, only_grid: bool) -> Path | None:
    """Returns --out without the suffix .npz; raises ConfigError if it or the other options do not fit --format."""
    if kind == "npz" and only_grid:
        raise ConfigError("--format npz: holds single images; leave it out for a grid alone")
    if out is None or out.suffix != ".npz":
        return out
    if kind != "npz":
        raise ConfigError(f"--out {out}: PNG files are written into a folder; add --format npz for one file")
    return out.with_suffix("")


def _wanted(
    demo: bool,
    *,
    num: int | None,
    seed: int | None,
    seeds: tuple[int, ...],
    interpolate: int | None,
    **others: Any,
) -> "Samples":
    """Returns the images that the options name; raises ConfigError if they name them twice."""
    from gan.runs.samples import Samples

    if seeds and (num is not None or seed is not None):
        raise ConfigError("--seeds: names every image by its seed; leave out --num and --seed")
    num = num or (NUM_PATHS if interpolate else NUM_DEMO if demo else NUM_IMAGES)
    return Samples(num=num, seed=seed or 0, seeds=seeds, interpolate=interpolate, **others)


def _source(
    checkpoint: Path | None, run: Path | None, best: bool, raw: bool, device: "torch.device"
) -> tuple["Source", str]:
    """The generator of a checkpoint and "", or of a file of gan-export and its scores."""
    from gan.measuring.generator_file import read_generator
    from gan.runs.choice import read_chosen
    from gan.runs.finding import SUFFIX
    from gan.runs.samples import checkpoint_source

    if checkpoint is None or checkpoint.suffix != SUFFIX:
        return checkpoint_source(read_chosen(checkpoint, run, best), device, ema=not raw), ""
    if raw:
        raise ConfigError(f"--raw: {checkpoint} holds one generator, averaged if the run kept an average")
    found = read_generator(checkpoint, device)
    return found.source, found.text()


if __name__ == "__main__":
    main(prog_name="gan-sample")
