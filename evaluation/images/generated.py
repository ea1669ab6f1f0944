"""Generated images from files: in an order drawn by a seed, their classes numbered as those of the real images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from evaluation.errors import EvaluationError
from evaluation.images.reader import read_images

SHOWN = 10  # names of classes in a message


class Generated(NamedTuple):
    """Images uint8 (N, 3, H, W), labels int64 (N,) or None, names of their classes, and `Context.protocol` of them."""

    images: Tensor
    labels: Tensor | None
    class_names: tuple[str, ...]
    protocol: dict[str, Any]


def read_generated(path: str | Path, *, seed: int) -> Generated:
    """Generated images of a folder or `.npz` file, shuffled by the seed.

    File names are often sorted by class: the first 5,000 of a folder would then be no sample of it.

    Raises:
        EvaluationError: as `read_images`.
    """
    images, labels, class_names = read_images(path)
    order = torch.randperm(len(images), generator=torch.Generator("cpu").manual_seed(seed), device="cpu")
    protocol = {"source": "image files", "seed": seed}
    return Generated(images[order], None if labels is None else labels[order], class_names, protocol)


def name_classes(labels: Tensor | None, class_names: tuple[str, ...]) -> tuple[str, ...]:
    """A name for each class number: the given ones, else the numbers themselves; none without labels."""
    if labels is None or class_names:
        return class_names
    return tuple(str(number) for number in range(int(labels.max()) + 1))


def match_classes(
    labels: Tensor | None, class_names: tuple[str, ...], known: Sequence[str], where: str | Path, *, needed: bool = True
) -> Tensor | None:
    """The labels with each class under the number it has in `known`, names of the real classes by number.

    Sub-folders are numbered in the order of their names, which says nothing where a class is missing or a data set
    counts its classes otherwise. Labels without names keep their numbers; where the real classes are called by numbers
    themselves (sub-folders 0, 1, 10, 2), they mean these. Where no real classes are known, all labels stay.

    Args:
        where: the file or folder of the labels, for the message.
        needed: False gives None for labels of which one is unknown: sub-folders need not be classes.

    Raises:
        EvaluationError: images of a class that is not among the real ones, where labels are needed.
    """
    if labels is None or not known:
        return labels
    if not class_names and not all(name.isdecimal() for name in known):
        numbers = {str(number): number for number in range(len(known))}
    else:
        numbers = {name: number for number, name in enumerate(known)}
    names = name_classes(labels, class_names)
    matched = torch.zeros(len(names), dtype=torch.int64, device=labels.device)
    for label in labels.unique().tolist():
        if names[label] not in numbers and not needed:
            return None
        if names[label] not in numbers:
            shown = ", ".join(known[:SHOWN]) + (", ..." if len(known) > SHOWN else "")
            raise EvaluationError(
                f"{where}: got images of class {names[label]!r}, but the reference has the classes {shown}; "
                "call the classes as the reference does"
            )
        matched[label] = numbers[names[label]]
    return matched[labels]
