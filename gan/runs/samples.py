"""Writes generated images into a folder."""

import math
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gan.build import checkpoint_config, load_state
from gan.config import Config
from gan.config.loading import override_config
from gan.data.folder import class_folders
from gan.data.pixels import captioned, image_grid, save_png
from gan.errors import ConfigError
from gan.measuring.sampling import chosen_generator, draw, generate, slerp, standing_statistics
from gan.noise import balanced_labels, random_generator
from gan.runs.checkpoint import Checkpoint
from gan.runs.choice import fresh_folder, packed_of, picture_of
from gan.runtime.files import replacing
from gan.training.state import composed

MOST = 32
"""Maximum number of rows and columns of a grid."""


@dataclass(frozen=True)
class Samples:
    """Settings of the images to write.

    Attributes:
        num: number of images or interpolation paths, for each class if `classes` are given; not used with `seeds`.
        classes: names or numbers; empty: equally many images of all classes, or those of `seeds`.
        seed: of all latents; not used with `seeds`.
        seeds: if not empty, one image or path for each, for each class if `classes` are given. Its latent depends on
            its seed only, and so does its class: without `classes`, the seed modulo the number of classes.
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
    seeds: tuple[int, ...] = ()


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
    kind: str,
    say: Callable[[str], None],
) -> None:
    """Writes images and their grid, which is labelled by the seeds if there are any.

    Args:
        out: path without suffix; by default generated-<step> in the source's folder, or the next free one.
        kind: "png", a new or empty folder of PNG files and the grid as <out>.png; "npz", <out>.npz, see `_write_npz`,
            and the grid; "grid", only the grid. Of paths, only the grid is written.
        say: prints a line.

    Raises:
        ConfigError: there are files already, they cannot be written, or a class is unknown.
    """
    settings = [f"eval.truncation={wanted.truncation}", f"eval.bn_mode={'standing' if wanted.standing else 'eval'}"]
    config, generator = override_config(source.config, settings, "gan-sample"), source.generator
    labels = _choose_labels(source, wanted)
    numbers = torch.tensor(wanted.seeds or range(wanted.num if labels is None else len(labels)))
    if wanted.seeds and labels is not None:
        numbers = numbers.repeat_interleave(len(labels) // len(numbers))
    name, kind = ("paths", "grid") if wanted.interpolate else ("generated", kind)
    folder = out or fresh_folder(source.folder / f"{name}-{source.step:08d}")
    picture = _made(folder, kind)
    latents = _draw(wanted, config, len(numbers), "samples")
    if wanted.interpolate:
        ends = _draw(wanted, config, len(numbers), "ends of paths")
        latents = slerp(latents, ends, wanted.interpolate).flatten(0, 1)  # (count * interpolate, z_dim)
        labels = None if labels is None else labels.repeat_interleave(wanted.interpolate)
    size, quantizer = config.eval.batch_size, config.eval.quantizer
    with standing_statistics(generator, config, source.num_classes, device) if wanted.standing else nullcontext():
        images = generate(generator, latents, labels, batch_size=size, device=device, quantizer=quantizer)
    save_png(_grid(images, labels, numbers, wanted), picture)
    if kind == "png":
        _write_folder(folder, images, labels, numbers, source.class_names)
        say(f"{len(images)} images of step {source.step} in {folder}")
    if kind == "npz":
        _write_npz(packed_of(folder), images, labels, numbers[: len(images) * bool(wanted.seeds)], source.class_names)
        say(f"{len(images)} images of step {source.step} in {packed_of(folder)}")
    say(f"grid: {picture}")


def _made(folder: Path, kind: str) -> Path:
    """Makes the folder of the images, before they are generated, and returns the path of their grid.

    Raises:
        ConfigError: there are images already, or it cannot be written.
    """
    if not folder.name:
        raise ConfigError(f"--out {folder}: expected the name of a new folder, such as samples")
    if kind == "npz" and packed_of(folder).exists():
        raise ConfigError(f"--out {packed_of(folder)}: the file exists: choose another name")
    if kind != "npz" and folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"--out {folder}: the folder is not empty: choose a new or an empty one")
    picture = picture_of(folder)
    try:
        picture.parent.mkdir(parents=True, exist_ok=True)
        if kind == "png":
            folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {folder}: cannot be written ({error.strerror}); choose another folder") from None
    if not all(os.access(place, os.W_OK) for place in (picture.parent, folder) if place.is_dir()):
        raise ConfigError(f"--out {folder}: cannot be written; choose another folder")
    return picture


def _draw(wanted: Samples, config: Config, count: int, stream: str) -> Tensor:
    """Draws `count` latents from one seed, or one from each seed, repeated for each class (count, z_dim).

    All seeds are steps of one stream, so no two of them have the same latent, see `random_generator`.
    """
    if not wanted.seeds:
        return draw(count, config, random_generator(wanted.seed, stream))
    latents = [draw(1, config, random_generator(0, f"{stream} by seed", seed)) for seed in wanted.seeds]
    return torch.cat(latents).repeat_interleave(count // len(latents), dim=0)


def _grid(images: Tensor, labels: Tensor | None, numbers: Tensor, wanted: Samples) -> Tensor:
    """Returns a grid, uint8 (C, H, W), at most MOST by MOST: a row per path or per class of equally many images.

    Without classes, or if they follow from the seeds, it is a square in the order of the images.
    """
    shown, columns = torch.arange(min(len(images), MOST * MOST)), min(math.isqrt(len(images) - 1) + 1, MOST)
    if wanted.interpolate:
        shown, columns = torch.arange(len(images)), wanted.interpolate
    elif labels is not None and (wanted.classes or not wanted.seeds):
        columns = min(int(labels.unique(return_counts=True)[1].min()), MOST)
        shown = torch.cat([(labels == label).nonzero()[:columns, 0] for label in labels.unique()[:MOST]])
    images = images[shown]
    if wanted.seeds:
        length = wanted.interpolate or 1
        images = captioned(images, ["" if index % length else str(int(numbers[index // length])) for index in shown])
    return image_grid(images, columns)


def _choose_labels(source: Source, wanted: Samples) -> Tensor | None:
    """Returns the labels, int64 (N,), in the order of the classes, or of the seeds if given; None without classes."""
    classes = wanted.classes
    if not classes and not source.num_classes:
        return None
    if not classes:
        by_seed = torch.tensor(wanted.seeds, dtype=torch.int64) % source.num_classes
        return by_seed if wanted.seeds else balanced_labels(wanted.num, source.num_classes).sort().values
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
    if wanted.seeds:  # each class once, because the seed alone names the file of an image
        return torch.tensor(list(dict.fromkeys(numbers))).repeat(len(wanted.seeds))
    return torch.tensor(numbers).repeat_interleave(wanted.num)


def _write_folder(
    folder: Path, images: Tensor, labels: Tensor | None, numbers: Tensor, class_names: tuple[str, ...]
) -> None:
    """Writes PNG files named by their numbers, in a folder per class if there are classes."""
    folders = class_folders(class_names)
    for index, image in enumerate(images):
        label = None if labels is None else int(labels[index])
        place = folder if label is None else folder / (folders[label] if folders else str(label))
        place.mkdir(parents=True, exist_ok=True)
        save_png(image, place / f"{int(numbers[index]):06d}.png")


def _write_npz(file: Path, images: Tensor, labels: Tensor | None, seeds: Tensor, class_names: tuple[str, ...]) -> None:
    """Writes images as `arr_0`, uint8 (N, H, W, 3), and labels as `arr_1`, int64 (N,), as guided-diffusion does.

    Its evaluator computes the inception score of 5,000 consecutive images at a time, so classes alternate. Arrays
    `class_names` and `seeds` are added where they exist, which other evaluators ignore. Grey levels are repeated.
    """
    order = torch.arange(len(images)) if labels is None or len(seeds) else _alternating(labels)
    arrays = {"arr_0": images[order].expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()}
    if labels is not None:
        arrays["arr_1"] = labels[order].numpy()
    if class_names:
        arrays["class_names"] = np.array(class_names)
    if len(seeds):
        arrays["seeds"] = seeds.numpy()
    with replacing(file) as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def _alternating(labels: Tensor) -> Tensor:
    """Returns an order in which the first images of all classes come first, then the second ones, and so on."""
    order = labels.argsort(stable=True)
    counts = labels.bincount()
    places = torch.arange(len(labels)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    return order[places.argsort(stable=True)]


__all__ = ["Samples", "Source", "checkpoint_source", "write_samples"]
