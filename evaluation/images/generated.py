"""Generated images from files, shuffled by a seed, with classes numbered as in the real images."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from evaluation.errors import EvaluationError
from evaluation.images.checks import is_grey, without_colours
from evaluation.images.reader import Resize, read_images
from evaluation.settings import Settings

SHOWN = 10  # names of classes in a message


class Generated(NamedTuple):
    """Images uint8 (N, C, H, W), labels int64 (N,) or None, class names, `Context.protocol`, and the split if any."""

    images: Tensor
    labels: Tensor | None
    class_names: tuple[str, ...]
    protocol: dict[str, Any]
    split: str = ""


def read_generated(path: str | Path, *, seed: int, split: str = "train", resize: Resize | None = None) -> Generated:
    """Reads generated images and shuffles them by the seed; see `read_images`.

    Images without colours have one channel. Files are often sorted by class; without shuffling, the first images would
    hold a few classes only.

    Args:
        split: the one that is read if the images are divided into splits, so that a set has a distance of 0 to itself.

    Raises:
        EvaluationError: see `read_images`.
    """
    found = read_images(path, split, resize)
    order = torch.randperm(len(found.images), generator=torch.Generator("cpu").manual_seed(seed), device="cpu")
    protocol = {"source": "image files", "seed": seed, **({} if resize is None else {"resize": resize.name})}
    labels = None if found.labels is None else found.labels[order]
    return Generated(without_colours(found.images)[order], labels, found.class_names, protocol, found.split)


def colour_notes(generated: Tensor | None, real: Tensor | None) -> list[str]:
    """Returns a note for reports if only one of two sets of images has colours."""
    if generated is None or real is None:
        return []
    grey = [is_grey(without_colours(images)) for images in (generated, real)]
    if grey[0] == grey[1]:
        return []
    kinds = ["grey" if one else "in colour" for one in grey]
    return [f"generated images are {kinds[0]} and real ones {kinds[1]}: values measure this difference, too"]


def chosen_resize(settings: Settings, image_size: int | None = None) -> Resize | None:
    """Returns the resize of image files by the settings, if any.

    Args:
        image_size: used if the settings have none.

    Raises:
        EvaluationError: a resize without a size.
    """
    if settings.resize is None:
        return None
    size = settings.image_size or image_size
    if size is None:
        raise EvaluationError(f"resize: got {settings.resize} without image_size; set image_size, such as 32, too")
    return Resize(size, settings.resize)


def name_classes(labels: Tensor | None, class_names: tuple[str, ...]) -> tuple[str, ...]:
    """Returns a name for each class number: the given names, else the numbers; empty without labels."""
    if labels is None or class_names:
        return class_names
    return tuple(str(number) for number in range(int(labels.max()) + 1))


def match_classes(
    labels: Tensor | None, class_names: tuple[str, ...], known: Sequence[str], where: str | Path, *, needed: bool = True
) -> Tensor | None:
    """Renumbers labels to match the real classes, whose names by number are `known`.

    Sub-folders are numbered in the order of their names, which is wrong if a class is missing or the data set numbers
    its classes in another order. Labels without names keep their numbers, unless the real classes are named by numbers
    (sub-folders 0, 1, 10, 2): then they are matched with these names. Without `known`, labels are returned unchanged.
    Names are compared in Unicode's composed form (NFC).

    Args:
        where: file or folder of the labels, for the error message.
        needed: if False, returns None for labels with an unknown class, because sub-folders need not be classes.

    Raises:
        EvaluationError: a class that is not among the real ones, and labels are needed.
    """
    if labels is None or not known:
        return labels
    if not class_names and not all(name.isdecimal() for name in known):
        numbers = {str(number): number for number in range(len(known))}
    else:
        numbers = {_composed(name): number for number, name in enumerate(known)}
    names = [_composed(name) for name in name_classes(labels, class_names)]
    matched = torch.zeros(len(names), dtype=torch.int64, device=labels.device)
    for label in labels.unique().tolist():
        if names[label] not in numbers and not needed:
            return None
        if names[label] not in numbers:
            shown = ", ".join(known[:SHOWN]) + (", ..." if len(known) > SHOWN else "")
            raise EvaluationError(
                f"{where}: got images of class {names[label]!r}, but the reference has the classes {shown}; "
                "use the reference's class names"
            )
        matched[label] = numbers[names[label]]
    return matched[labels]


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)
