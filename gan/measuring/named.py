"""Metrics of generated images against real ones that are named on the command line: data sets, folders, archives."""

import difflib
from functools import partial
from pathlib import Path

import torch

from evaluation import Report
from evaluation.folders import measure_folders, write_folder_statistics
from evaluation.images.reader import Images, Resize, read_images
from evaluation.statistics.moments_file import Origin
from gan.build import load_images
from gan.config import Config
from gan.config.gan import EvaluationSettings
from gan.config.loading import override_config
from gan.data import DATASETS
from gan.errors import DataError


def measure_against(
    generated: Path, reference: Path, test: Path | None, metrics: str, config: Config, device: torch.device
) -> Report:
    """Measures a set of generated images as `python -m evaluation` does; real images may also be named data sets.

    Args:
        reference, test: a data set's name, with or without a split, such as cifar10:train, framed by the settings of
            `config.data`; or a path.

    Raises:
        EvaluationError, UserError: the images or the settings cannot be used.
    """
    wanted = _sized(config).model_copy(update={"metrics": metrics})
    return measure_folders(generated, reference, test, str(device), wanted, partial(_read, config))


def write_named_statistics(reference: Path, config: Config, device: torch.device, file: Path) -> Origin:
    """Writes the statistics of real images, named as for `measure_against`.

    Raises:
        EvaluationError, UserError: the images or the settings cannot be used, or the file cannot be written.
    """
    return write_folder_statistics(reference, str(device), _sized(config), file, partial(_read, config))


def _sized(config: Config) -> EvaluationSettings:
    """Returns the evaluation settings, with the size of a resize from those of the data."""
    wanted = config.eval
    if wanted.resize is None or wanted.image_size is not None:
        return wanted
    return wanted.model_copy(update={"image_size": config.data.image_size})


def _read(config: Config, path: Path, split: str, resize: Resize | None, *, strict: bool = False) -> Images:
    """Reads a data set by name, else the images at a path; a folder with the name of a data set is ./NAME."""
    name, _, named = str(path).partition(":")
    if name not in DATASETS or name == "folder":
        near = difflib.get_close_matches(name, DATASETS, n=1)
        if near and not path.exists() and not Path(name).exists():
            raise DataError(f"{path}: not found; did you mean the data set {near[0]}{':' * bool(named)}{named}?")
        return read_images(path, split, resize, strict=strict)
    data = load_images(override_config(config, [f"data.name={name}"], f"{path}"), named or split)
    several = data.num_classes > 1
    return Images(data.images, data.labels if several else None, data.classes if several else (), data.split)


__all__ = ["measure_against", "write_named_statistics"]
