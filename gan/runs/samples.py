"""Writes generated images into a folder."""

import math
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from gan.build import checkpoint_config, load_state
from gan.config import Config
from gan.config.loading import override_config
from gan.data.folder import class_folders
from gan.errors import ConfigError
from gan.measuring.sampling import chosen_generator, draw, generate, slerp, standing_statistics
from gan.noise import balanced_labels, random_generator
from gan.pixels import image_grid, save_png
from gan.runs.checkpoint import Checkpoint
from gan.runs.choice import fresh_folder, picture_of
from gan.training.state import composed

MOST = 32
"""Maximum number of rows and columns of a grid."""


@dataclass(frozen=True)
class Samples:
    """Settings of the images to write.

    Attributes:
        num: number of images or interpolation paths, for each class if `classes` are given.
        classes: names or numbers; empty: equally many images of all classes.
        truncation: see eval.truncation.
        standing: whether to recompute batch-norm statistics, see `gan.measuring.sampling.standing_statistics`.
        interpolate: images per path from one latent to another; None for single images.
    """

    num: int
    classes: tuple[str, ...]
    seed: int
    truncation: float
    standing: bool
    interpolate: int | None


@dataclass(frozen=True, eq=False)
class Source:
    """A generator to draw images from.

    Attributes:
        generator: on the device that images are generated on.
        config: configuration of its training.
        num_classes: 0 for an unconditional generator.
        step: step of its training.
        folder: default parent of the folder of images.
    """

    generator: nn.Module
    config: Config
    num_classes: int
    class_names: tuple[str, ...]
    step: int
    folder: Path


def checkpoint_source(checkpoint: Checkpoint, device: torch.device, *, ema: bool) -> Source:
    """The averaged generator of a checkpoint if wanted and kept, else the raw one.

    Raises:
        CheckpointError: the checkpoint does not fit its configuration.
    """
    config = checkpoint_config(checkpoint)
    state = load_state(checkpoint, config, device)
    folder = checkpoint.path.parent.parent / "samples"
    return Source(chosen_generator(state, ema), config, state.num_classes, state.class_names, state.step, folder)


def write_samples(
    source: Source,
    wanted: Samples,
    device: torch.device,
    *,
    out: Path | None,
    grid_only: bool,
    say: Callable[[str], None],
) -> None:
    """Writes images into a folder and their grid beside it; only the grid for paths or with `grid_only`.

    Args:
        out: a new or empty folder; by default generated-<step> in the source's folder.
        say: prints a line.

    Raises:
        ConfigError: the folder is not empty or cannot be written, or a class is unknown.
    """
    settings = [f"eval.truncation={wanted.truncation}", f"eval.bn_mode={'standing' if wanted.standing else 'eval'}"]
    config, generator = override_config(source.config, settings, "gan-sample"), source.generator
    labels = _choose_labels(source, wanted.classes, wanted.num)
    count = wanted.num if labels is None else len(labels)
    name = f"{'paths' if wanted.interpolate else 'generated'}-{source.step:08d}"
    folder = out or fresh_folder(source.folder / name)
    picture = _made(folder, grid_only=grid_only or bool(wanted.interpolate))
    latents = draw(count, config, random_generator(wanted.seed, "samples"))
    if wanted.interpolate:
        ends = draw(count, config, random_generator(wanted.seed, "ends of paths"))
        latents = slerp(latents, ends, wanted.interpolate).flatten(0, 1)  # (count * interpolate, z_dim)
        labels = None if labels is None else labels.repeat_interleave(wanted.interpolate)
    size, quantizer = config.eval.batch_size, config.eval.quantizer
    with standing_statistics(generator, config, source.num_classes, device) if wanted.standing else nullcontext():
        images = generate(generator, latents, labels, batch_size=size, device=device, quantizer=quantizer)
    save_png(image_grid(images, wanted.interpolate) if wanted.interpolate else _grid(images, labels), picture)
    if not (grid_only or wanted.interpolate):
        _write_images(folder, images, labels, source.class_names)
        say(f"{count} images of step {source.step} in {folder}")
    say(f"grid: {picture}")


def _made(folder: Path, *, grid_only: bool) -> Path:
    """Makes the folder of the images, before they are generated, and returns the path of their grid.

    Raises:
        ConfigError: the folder is not empty or cannot be written.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"--out {folder}: the folder is not empty: choose a new or an empty one")
    picture = picture_of(folder)
    picture.parent.mkdir(parents=True, exist_ok=True)
    if not grid_only:
        folder.mkdir(exist_ok=True)
    if not all(os.access(place, os.W_OK) for place in (picture.parent, folder) if place.is_dir()):
        raise ConfigError(f"--out {folder}: cannot be written; choose another folder")
    return picture


def _grid(images: Tensor, labels: Tensor | None) -> Tensor:
    """Returns a square grid, or one row per class of equally many images, at most MOST by MOST, uint8 (C, H, W)."""
    if labels is None:
        return image_grid(images[: MOST * MOST], min(max(math.isqrt(len(images)), 1), MOST))
    columns = min(int(labels.unique(return_counts=True)[1].min()), MOST)
    rows = [images[labels == label][:columns] for label in labels.unique()[:MOST]]
    return image_grid(torch.cat(rows), columns)


def _choose_labels(source: Source, classes: tuple[str, ...], num: int) -> Tensor | None:
    if not classes:
        return balanced_labels(num, source.num_classes).sort().values if source.num_classes else None
    if not source.num_classes:
        raise ConfigError("--class: the model is unconditional and has no classes; leave the option out")
    numbers = []
    for name in composed(classes):
        if name in source.class_names:
            numbers.append(source.class_names.index(name))
        elif name.isdecimal() and int(name) < source.num_classes:
            numbers.append(int(name))
        else:
            shown = ", ".join(source.class_names)
            raise ConfigError(f"--class: got {name!r}, expected 0 to {source.num_classes - 1} or one of {shown}")
    return torch.tensor(numbers).repeat_interleave(num)


def _write_images(folder: Path, images: Tensor, labels: Tensor | None, class_names: tuple[str, ...]) -> None:
    folders = class_folders(class_names)
    for index, image in enumerate(images):
        label = None if labels is None else int(labels[index])
        place = folder if label is None else folder / (folders[label] if folders else str(label))
        place.mkdir(parents=True, exist_ok=True)
        save_png(image, place / f"{index:06d}.png")


__all__ = ["Samples", "Source", "checkpoint_source", "write_samples"]
