"""gan-sample: images and grids from a checkpoint; and the sampling that training and evaluation use."""

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import click
import torch
from torch import Tensor, nn
from torchvision.utils import make_grid
from tqdm import tqdm

from gan.build import checkpoint_config, load_state
from gan.command import Command, choose_device
from gan.config import Config
from gan.config.loading import override_config
from gan.errors import ConfigError, UserError
from gan.interpolate import slerp
from gan.noise import balanced_labels, draw_labels, draw_latents, draw_truncated_latents, random_generator
from gan.pixels import save_png, to_uint8
from gan.runs.best import read_best
from gan.runs.checkpoint import FOLDER, newest_run, read_checkpoint
from gan.runtime.determinism import determinism
from gan.runtime.memory import keep_freed_memory
from gan.training.state import TrainState

GRID_ROWS = 8
NUM_IMAGES = 64
HELD = 2048  # images kept on the device before they are copied to the CPU
STANDING_BATCHES, STANDING_BATCH = 64, 128
EXAMPLES = """
Examples:

  gan-sample                                     64 images and a grid from the newest run under ./runs
  gan-sample --run runs/mine --num 1000 --out samples     for gan-eval --generated samples
  gan-sample --run runs/cond --class cat --class 7 --num 16
  gan-sample --checkpoint runs/mine/checkpoints/step-00050000.pt --seed 7
  gan-sample --truncation 0.5 --standing-statistics      more typical images, less variety
  gan-sample --interpolate 10 --num 6                    a picture of 6 paths between two latents, 10 images each
"""


@contextmanager
def eval_mode(network: nn.Module, *, gradients: bool = False) -> Iterator[nn.Module]:
    """Running statistics, no gradients unless wanted; every module's mode is put back."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.set_grad_enabled(gradients):
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

    Raises:
        UserError: images that are not finite.
    """
    batches = generated_batches(generator, latents, labels, batch_size=batch_size, device=device, quantizer=quantizer)
    return collected(batches, len(latents))


def collected(batches: Iterator[Tensor], count: int) -> Tensor:
    """All batches together, on the CPU; from a device HELD images at a time, because each copy waits for it.

    Args:
        count: of all images, for a progress bar on a terminal where they are many.
    """
    parts: list[Tensor] = []
    held: list[Tensor] = []
    with tqdm(total=count, desc="generating", unit="image", leave=False, disable=None if count > HELD else True) as bar:
        for batch in batches:
            held.append(batch)
            bar.update(len(batch))
            if sum(map(len, held)) >= HELD:
                parts, held = parts + [images.cpu() for images in held], []
    return torch.cat(parts + [images.cpu() for images in held])


def generated_batches(
    generator: nn.Module,
    latents: Tensor,
    labels: Tensor | None,
    *,
    batch_size: int,
    device: torch.device | str,
    quantizer: str = "round",
) -> Iterator[Tensor]:
    """The images of `generate`, batch by batch, on the device, for which nothing waits before the last.

    Raises:
        UserError: after the last batch, images that are not finite.
    """
    finite = torch.ones((), dtype=torch.bool, device=device)
    latents = latents.to(device)
    labels = None if labels is None else labels.to(device)
    for i in range(0, len(latents), batch_size):
        with eval_mode(generator):
            images = generator(latents[i : i + batch_size], None if labels is None else labels[i : i + batch_size])
            finite = finite & images.isfinite().all()
            batch = to_uint8(images, quantizer)
        yield batch
    if not bool(finite):
        raise UserError("the generator's images are not finite: its weights have diverged; use an earlier checkpoint")


@contextmanager
def standing_statistics(
    generator: nn.Module, config: Config, num_classes: int, device: torch.device | str
) -> Iterator[None]:
    """Batch-norm statistics taken anew over STANDING_BATCHES batches of STANDING_BATCH images; the old ones come back.

    Brock et al. 2019, section 4.1. They replace running averages that lag behind the weights, or, in an averaged
    generator, were collected with other weights. Latents, truncated as eval.truncation says, and uniform labels are
    drawn by eval.seed.
    """
    norms = [module for module in generator.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    before = [(norm.momentum, {name: buffer.clone() for name, buffer in norm.named_buffers()}) for norm in norms]
    random = random_generator(config.eval.seed, "standing statistics")
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
    try:
        with eval_mode(generator):
            for norm in norms:
                norm.train()
            for _ in range(STANDING_BATCHES):
                latents = _draw(STANDING_BATCH, config, random).to(device)
                labels = draw_labels(STANDING_BATCH, num_classes, random).to(device) if num_classes else None
                generator(latents, labels)
        yield
    finally:
        for norm, (momentum, buffers) in zip(norms, before, strict=True):
            norm.momentum = momentum
            for name, buffer in buffers.items():
                getattr(norm, name).copy_(buffer)


def make_sampler(
    generator: nn.Module, config: Config, num_classes: int, device: torch.device | str
) -> Callable[[int, int], tuple[Tensor, Tensor | None]]:
    """(count, seed) -> images uint8 (count, 3, H, W) and, if conditional, labels int64 (count,).

    Latents and labels are drawn on the CPU: the same for every device and batch size. Classes are exactly balanced or
    uniform, as eval.labels says.
    """

    def sampler(count: int, seed: int) -> tuple[Tensor, Tensor | None]:
        batches, labels = drawn_batches(generator, config, num_classes, device, count=count, seed=seed)
        return collected(batches, count), labels

    return sampler


def drawn_batches(
    generator: nn.Module,
    config: Config,
    num_classes: int,
    device: torch.device | str,
    *,
    count: int,
    seed: int,
    part: slice = slice(None),
) -> tuple[Iterator[Tensor], Tensor | None]:
    """The images of `make_sampler` as batches on the device, made when they are asked for, and their labels.

    Args:
        part: of the images; the labels are those of all.
    """
    whole = -(-count // 16) * 16  # else the last numbers depend on how many are drawn
    latents = _draw(whole, config, random_generator(seed, "samples"))[:count]
    labels = draw_classes(count, num_classes, config.eval.labels, seed)
    batches = generated_batches(
        generator,
        latents[part],
        None if labels is None else labels[part],
        batch_size=config.eval.batch_size,
        device=device,
        quantizer=config.eval.quantizer,
    )
    return batches, labels


def _draw(count: int, config: Config, random: torch.Generator) -> Tensor:
    """Latents (count, z_dim), truncated where eval.truncation says so."""
    bound, z_dim = config.eval.truncation, config.generator.z_dim
    return draw_truncated_latents(count, z_dim, random, bound) if bound else draw_latents(count, z_dim, random)


def draw_classes(count: int, num_classes: int, policy: str, seed: int) -> Tensor | None:
    """Labels int64 (count,) by a policy, "balanced" or "uniform"; None without classes."""
    if not num_classes:
        return None
    if policy == "balanced":
        return balanced_labels(count, num_classes)
    return draw_labels(count, num_classes, random_generator(seed, "labels of samples"))


def chosen_generator(state: TrainState, ema: bool) -> nn.Module:
    """The averaged generator if wanted and kept, else the raw one."""
    return state.average if ema and state.average is not None else state.generator


def fixed_samples(config: Config, state: TrainState) -> Tensor:
    """Images from latents that never change during a run, uint8 (rows, GRID_ROWS, 3, H, W), in rows of a grid.

    Conditional: a row per class, 10 at most.
    """
    num_rows = min(state.num_classes, 10) or GRID_ROWS
    count = num_rows * GRID_ROWS
    latents = draw_latents(count, config.generator.z_dim, random_generator(config.train.seed, "sample grid"))
    labels = torch.arange(num_rows).repeat_interleave(GRID_ROWS) if state.num_classes else None
    images = generate(chosen_generator(state, ema=True), latents, labels, batch_size=count, device=state.totals.device)
    return images.unflatten(0, (num_rows, GRID_ROWS))


@click.command(cls=Command, epilog=EXAMPLES)
@click.option("--checkpoint", type=click.Path(path_type=Path), help="A checkpoint file.")
@click.option(
    "--run", type=click.Path(path_type=Path), help="A run folder: its newest checkpoint. [default: newest in ./runs]"
)
@click.option("--best", is_flag=True, help="The run's best checkpoint, where train.keep_best kept one, not its newest.")
@click.option(
    "--num",
    type=click.IntRange(1),
    help=f"Images, or paths; per class where --class is given. [default: {NUM_IMAGES} images, {GRID_ROWS} paths]",
)
@click.option(
    "--class", "classes", multiple=True, help="Conditional models: a class by name or number; may be repeated."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder, new or empty. [default: samples/generated-<step> in the run]",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of the latents.")
@click.option("--raw", is_flag=True, help="The raw generator also where an averaged one is kept.")
@click.option(
    "--truncation",
    default=0.0,
    type=click.FloatRange(0, 1e6),
    metavar="T",
    help="Keep each component of the latents within T standard deviations. [default: no bounds]",
)
@click.option(
    "--standing-statistics",
    "standing",
    is_flag=True,
    help="Batch-norm statistics taken anew over such latents, not running ones.",
)
@click.option(
    "--interpolate",
    type=click.IntRange(2, 1000),
    metavar="N",
    help="Instead a grid of paths, each N images from one latent to another, of one class.",
)
@click.option("--grid-only", is_flag=True, help="Write the grid only, no single images.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--deterministic", is_flag=True, help="The same bits each time, on a GPU too; slower.")
def main(
    checkpoint: Path | None,
    run: Path | None,
    best: bool,
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

    Images of a conditional model are sorted into one folder per class. With --interpolate there is the grid only.
    """
    read = read_checkpoint(choose_checkpoint(checkpoint, run, best))
    settings = [f"eval.truncation={truncation}", f"eval.bn_mode={'standing' if standing else 'eval'}"]
    config = override_config(checkpoint_config(read), settings, "gan-sample")
    click.get_current_context().with_resource(determinism(deterministic))
    place = choose_device(device)
    if place.type == "cpu":
        keep_freed_memory()
    state = load_state(read, config, place)
    wanted = num or (GRID_ROWS if interpolate else NUM_IMAGES)
    labels = _choose_labels(state, classes, wanted)
    count = wanted if labels is None else len(labels)
    name = f"{'paths' if interpolate else 'generated'}-{state.step:08d}"
    folder = out or fresh_folder(read.path.parent.parent / "samples" / name)
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"--out {folder}: is not empty, and old images among new ones help nobody")
    latents = _draw(count, config, random_generator(seed, "samples"))
    if interpolate:
        latents = slerp(latents, _draw(count, config, random_generator(seed, "ends of paths")), interpolate)
        latents = latents.flatten(0, 1)  # (count * interpolate, z_dim)
        labels = None if labels is None else labels.repeat_interleave(interpolate)
    generator = chosen_generator(state, ema=not raw)
    with standing_statistics(generator, config, state.num_classes, place) if standing else nullcontext():
        images = generate(
            generator,
            latents,
            labels,
            batch_size=config.eval.batch_size,
            device=place,
            quantizer=config.eval.quantizer,
        )
    grid = _grid_of(folder)
    grid.parent.mkdir(parents=True, exist_ok=True)
    save_png(make_grid(images, nrow=interpolate, padding=1) if interpolate else _grid(images, labels), grid)
    if not (grid_only or interpolate):
        folder.mkdir(exist_ok=True)
        _write_images(folder, images, labels, state.class_names)
        click.echo(f"{count} images of step {state.step} in {folder}")
    click.echo(f"grid: {grid}")


def _grid_of(folder: Path) -> Path:
    """The picture that lies beside a folder of images."""
    return folder.with_name(folder.name + ".png")


def fresh_folder(folder: Path) -> Path:
    """The folder itself, or the first of folder-2, folder-3, ..., that is not there yet, nor a picture of its name."""
    names = (folder.with_name(f"{folder.name}-{number}") for number in itertools.count(2))
    return next(path for path in itertools.chain([folder], names) if not (path.exists() or _grid_of(path).exists()))


def _grid(images: Tensor, labels: Tensor | None) -> Tensor:
    """A square of images, or as many of each class in a row, at most 32 by 32, uint8 (3, H, W)."""
    if labels is None:
        return make_grid(images[: 32 * 32], nrow=min(max(math.isqrt(len(images)), 1), 32), padding=1)
    columns = min(int(labels.unique(return_counts=True)[1].min()), 32)
    rows = [images[labels == label][:columns] for label in labels.unique()[:32]]
    return make_grid(torch.cat(rows), nrow=columns, padding=1)


def choose_checkpoint(checkpoint: Path | None, run: Path | None, best: bool = False) -> Path:
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
    if best:
        return _best_of(run)
    return checkpoint or run  # type: ignore[return-value]


def _best_of(run: Path | None) -> Path:
    if run is None:
        raise ConfigError("--best: goes with --run, not with --checkpoint")
    found = read_best(run)
    if found is None:
        raise ConfigError(f"--best: {run} has kept no best checkpoint; train with train.keep_best and train.eval_every")
    click.echo(f"best {found['key']}: {found['value']:.4g} at step {found['step']}")
    return run / FOLDER / str(found["checkpoint"])


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
        label = None if labels is None else int(labels[index])
        place = folder if label is None else folder / (class_names[label] if class_names else str(label))
        place.mkdir(exist_ok=True)
        save_png(image, place / f"{index:06d}.png")


if __name__ == "__main__":
    main(prog_name="gan-sample")
