"""Metrics of generated images against real ones that are named on the command line: data sets, folders, archives."""

from functools import partial
from pathlib import Path

import torch

from evaluation import Report
from evaluation.folders import measure_folders
from evaluation.images.reader import Images, Resize, read_images
from gan.build import load_images
from gan.config import Config
from gan.config.loading import override_config
from gan.data import DATASETS


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
    wanted = config.eval.model_copy(update={"metrics": metrics})
    if wanted.resize is not None and wanted.image_size is None:
        wanted = wanted.model_copy(update={"image_size": config.data.image_size})
    return measure_folders(generated, reference, test, str(device), wanted, partial(_read, config))


def _read(config: Config, path: Path, split: str, resize: Resize | None, *, strict: bool = False) -> Images:
    """Reads a data set by name, else the images at a path; a folder with the name of a data set is ./NAME."""
    name, _, named = str(path).partition(":")
    if name not in DATASETS or name == "folder":
        return read_images(path, split, resize, strict=strict)
    data = load_images(override_config(config, [f"data.name={name}"], f"{path}"), named or split)
    several = data.num_classes > 1
    return Images(data.images, data.labels if several else None, data.classes if several else (), data.split)


__all__ = ["measure_against"]
