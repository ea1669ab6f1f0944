"""Generated images from files, shuffled by a seed, with classes numbered as in the real images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from evaluation.errors import EvaluationError
from evaluation.images.reader import read_images

SHOWN = 10  # names of classes in a message


class Generated(NamedTuple):
    """Images uint8 (N, 3, H, W), labels int64 (N,) or None, class names, and their `Context.protocol`."""

    images: Tensor
    labels: Tensor | None
    class_names: tuple[str, ...]
    protocol: dict[str, Any]


def read_generated(path: str | Path, *, seed: int) -> Generated:
    """Reads generated images from a folder or `.npz` file and shuffles them by the seed.

    Files are often sorted by class; without shuffling, the first images would hold a few classes only.

    Raises:
        EvaluationError: see `read_images`.
    """
    images, labels, class_names = read_images(path)
    order = torch.randperm(len(images), generator=torch.Generator("cpu").manual_seed(seed), device="cpu")
    protocol = {"source": "image files", "seed": seed}
    return Generated(images[order], None if labels is None else labels[order], class_names, protocol)


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
                "use the reference's class names"
            )
        matched[label] = numbers[names[label]]
    return matched[labels]
