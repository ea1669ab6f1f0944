"""gan-sample: images and grids from a checkpoint; and the sampling that training and evaluation use."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import torch
from torch import Tensor, nn
from torchvision.utils import make_grid
from tqdm import tqdm

from gan.build import checkpoint_config, load_state
from gan.checkpoint import newest_run, read_checkpoint
from gan.command import Command, choose_device
from gan.config import Config
from gan.errors import ConfigError
from gan.noise import balanced_labels, draw_latents, random_generator
from gan.pixels import save_png, to_uint8
from gan.state import TrainState

GRID_ROWS = 8
EXAMPLES = """
Examples:

  gan-sample                                     a grid and 64 images from the newest run under ./runs
  gan-sample --run runs/mine --num 1000 --out samples
  gan-sample --run runs/cond --class cat --class 3 --num 16
  gan-sample --checkpoint runs/mine/checkpoints/step-00050000.pt --seed 7
"""


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[nn.Module]:
    """Running statistics, no gradients; every module's mode is put back."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            yield network
    finally:
        for module, training in modes:
            module.training = training


def generate(
    generator: nn.Module,
    latents: Tensor,
    labels: Tensor | None,
    *,
    batch_size: int,
    device: torch.device | str,
    quantizer: str = "round",
) -> Tensor:
    """Images uint8 (N, 3, H, W) on the CPU, with running batch-norm statistics, in float32.

    Args:
        latents: float32 (N, z_dim).
        labels: int64 (N,) for a conditional generator, None otherwise.
    """
    starts = range(0, len(latents), batch_size)
    quiet = None if len(starts) > 20 else True  # None: shown on a terminal only
    parts = []
    with eval_mode(generator):
        for i in tqdm(starts, desc="generating", unit="batch", leave=False, disable=quiet):
            classes = None if labels is None else labels[i : i + batch_size].to(device)
            images = generator(latents[i : i + batch_size].to(device), classes)
            parts.append(to_uint8(images, quantizer).cpu())
    return torch.cat(parts)


def make_sampler(
    generator: nn.Module, config: Config, num_classes: int, device: torch.device | str
) -> Callable[[int, int], tuple[Tensor, Tensor | None]]:
    """(count, seed) -> images uint8 (count, 3, H, W) and, if conditional, labels int64 (count,).

    The latents are drawn on the CPU: the same for every device and batch size. Classes are exactly balanced.
    """

    def sampler(count: int, seed: int) -> tuple[Tensor, Tensor | None]:
        latents = draw_latents(count, config.generator.z_dim, random_generator(seed, "samples"))
        labels = balanced_labels(count, num_classes) if num_classes else None
        images = generate(
            generator,
            latents,
            labels,
            batch_size=config.eval.batch_size,
            device=device,
            quantizer=config.eval.quantizer,
        )
        return images, labels

    return sampler


def chosen_generator(state: TrainState, ema: bool) -> nn.Module:
    """The averaged generator if wanted and kept, else the raw one."""
    return state.average if ema and state.average is not None else state.generator


def fixed_grid(config: Config, state: TrainState) -> Tensor:
    """A grid from latents that never change during a run, uint8 (3, H, W); conditional: a row per class, 10 at most."""
    num_rows = min(state.num_classes, 10) or GRID_ROWS
    count = num_rows * GRID_ROWS
    latents = draw_latents(count, config.generator.z_dim, random_generator(config.train.seed, "sample grid"))
    labels = torch.arange(num_rows).repeat_interleave(GRID_ROWS) if state.num_classes else None
    images = generate(chosen_generator(state, ema=True), latents, labels, batch_size=count, device=state.totals.device)
    return make_grid(images, nrow=GRID_ROWS, padding=1)


@click.command(cls=Command, epilog=EXAMPLES)
@click.option("--checkpoint", type=click.Path(path_type=Path), help="A checkpoint file.")
@click.option(
    "--run", type=click.Path(path_type=Path), help="A run folder: its newest checkpoint. [default: newest in ./runs]"
)
@click.option(
    "--num", default=64, show_default=True, type=click.IntRange(1), help="Images; per class where --class is given."
)
@click.option(
    "--class", "classes", multiple=True, help="Conditional models: a class by name or number; may be repeated."
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder. [default: samples/generated-<step> in the run]")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of the latents.")
@click.option("--raw", is_flag=True, help="The raw generator also where an averaged one is kept.")
@click.option("--grid-only", is_flag=True, help="Write grid.png only, no single images.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
def main(
    checkpoint: Path | None,
    run: Path | None,
    num: int,
    classes: tuple[str, ...],
    out: Path | None,
    seed: int,
    raw: bool,
    grid_only: bool,
    device: str,
) -> None:
    """Write generated images as PNG files, and a grid of them.

    Images of a conditional model are sorted into one folder per class.
    """
    read = read_checkpoint(choose_checkpoint(checkpoint, run))
    config = checkpoint_config(read)
    place = choose_device(device)
    state = load_state(read, config, place)
    labels = _choose_labels(state, classes, num)
    count = num if labels is None else len(labels)
    latents = draw_latents(count, config.generator.z_dim, random_generator(seed, "samples"))
    images = generate(
        chosen_generator(state, ema=not raw), latents, labels, batch_size=config.eval.batch_size, device=place
    )
    folder = out or read.path.parent.parent / "samples" / f"generated-{state.step:08d}"
    folder.mkdir(parents=True, exist_ok=True)
    save_png(make_grid(images, nrow=_columns(labels, count), padding=1), folder / "grid.png")
    if not grid_only:
        _write_images(folder, images, labels, state.class_names)
    click.echo(f"{count} images of step {state.step} in {folder}" if not grid_only else f"{folder / 'grid.png'}")


def _columns(labels: Tensor | None, count: int) -> int:
    """Columns of a grid: as many as the largest class has images, so that a row is a class; else a square."""
    columns = math.isqrt(count) if labels is None else int(labels.bincount().max())
    return min(max(columns, 1), 32)


def choose_checkpoint(checkpoint: Path | None, run: Path | None) -> Path:
    """What the options name, or the newest run under ./runs, which is then said.

    Raises:
        ConfigError: both are given.
        CheckpointError: nothing there.
    """
    if checkpoint is not None and run is not None:
        raise ConfigError("--checkpoint and --run: give one of them")
    if checkpoint is None and run is None:
        run = newest_run()
        click.echo(f"newest run: {run}")
    return checkpoint or run  # type: ignore[return-value]


def _choose_labels(state: TrainState, classes: tuple[str, ...], num: int) -> Tensor | None:
    if not classes:
        return balanced_labels(num, state.num_classes).sort().values if state.num_classes else None
    if not state.num_classes:
        raise ConfigError("--class: the model is unconditional, it has no classes")
    numbers = []
    for name in classes:
        if name in state.class_names:
            numbers.append(state.class_names.index(name))
        elif name.isdecimal() and int(name) < state.num_classes:
            numbers.append(int(name))
        else:
            shown = ", ".join(state.class_names)
            raise ConfigError(f"--class: got {name!r}, expected 0 to {state.num_classes - 1} or one of {shown}")
    return torch.tensor(numbers).repeat_interleave(num)


def _write_images(folder: Path, images: Tensor, labels: Tensor | None, class_names: tuple[str, ...]) -> None:
    for index, image in enumerate(images):
        place = folder if labels is None else folder / class_names[int(labels[index])]
        place.mkdir(exist_ok=True)
        save_png(image, place / f"{index:06d}.png")


if __name__ == "__main__":
    main(prog_name="gan-sample")
