"""Splits and classes of the images in a folder or archive, from the names of folders or from a file of labels."""

import unicodedata
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import NamedTuple

from evaluation.images.reader.decoding import SUFFIXES
from evaluation.images.reader.errors import ReadError
from evaluation.images.reader.names import Parts, has_image_suffix, is_image, raw_parts, split_path
from evaluation.images.reader.splits import SPLIT_FOLDERS, Give, check_lookalikes, give_folder, split_folders


class Entry(NamedTuple):
    """Class of an image, None if it has none, and its path inside the root."""

    label: str | None
    path: str


class Layout(NamedTuple):
    """Images of each split, in a fixed order.

    splits: by name, "train" before "test"; everything is "train" without split folders.
    classes: names by label; empty if images have no classes.
    divided: whether there are split folders.
    """

    splits: dict[str, list[Entry]]
    classes: tuple[str, ...]
    divided: bool


def arrange(
    paths: Collection[str], where: str, labels: Mapping[str, str | None] | None = None, *, archive: bool = False
) -> Layout:
    """Assigns images to splits and classes.

    Folders that enclose everything else are ignored. Below them the layout is `train/<class>/...` and
    `test/<class>/...` (val/ or valid/ if there is no test/), or `<class>/...`, or images only, without classes.
    Without split folders everything is "train". The class is the first folder; deeper folders are part of the image's
    name. Names are compared in Unicode's composed form; classes and images are sorted by code points.

    Args:
        paths: all files; others than images are passed over.
        where: name of the root, for messages.
        labels: class names by path, None for images without a class, from files of labels; folders of classes then
            have no meaning.
        archive: whether the root is an archive, for messages.

    Raises:
        ReadError: no images, or another layout, such as folders that look like splits but are none (trainA, testA).
    """
    images = {path: parts for path in paths if is_image(parts := split_path(path))}
    if not images:
        raise ReadError(_no_images(paths, where))
    while _in_outer_folder(images.values()):
        images = {path: parts[1:] for path, parts in images.items()}
    give = partial(give_folder, where, archive)
    folders = split_folders(images, where, give)
    if not folders:
        check_lookalikes(images, where, give)
    splits = {} if folders else {"train": _arrange_split(images, where, labels)}
    for split, folder in folders.items():
        inside = {path: parts[1:] for path, parts in images.items() if parts[0] == folder}
        splits[split] = _arrange_split(inside, f"{where}: {folder}", labels)
    _check_all_labelled(splits, images, where, give if folders else None)
    return Layout(splits, _find_classes(splits, where, sort_numbers=bool(labels)), bool(folders))


def _no_images(paths: Collection[str], where: str) -> str:
    hidden = [path for path in paths if has_image_suffix(split_path(path))]
    if not hidden:
        return f"no images in {where} (files ending in {' '.join(SUFFIXES)})"
    return (
        f"no images in {where} but {len(hidden):,} in hidden folders or with hidden names, such as {min(hidden)}; give "
        "the hidden folder, or rename it"
    )


def check_class_name(name: str, where: str) -> None:
    """Raises ReadError for a name that breaks reports and tables, or that cannot be the name of a folder."""
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        raise ReadError(f"{where}: the class {name!r} cannot be printed; rename it")
    if not name.strip() or name.startswith(".") or "/" in name or "\\" in name:
        raise ReadError(
            f"{where}: the class {name!r} cannot be the name of a folder; expected a name without slashes and without "
            "a dot in front"
        )


def composed_names(names: Iterable[str], where: str) -> tuple[str, ...]:
    """Returns class names in Unicode's composed form (NFC), checked.

    Raises:
        ReadError: see `check_class_name`; or two names are equal in that form.
    """
    found = dict[str, None]()
    for name in (unicodedata.normalize("NFC", name) for name in names):
        check_class_name(name, where)
        if name in found:
            raise ReadError(f"{where}: two classes are called {name!r}; rename one of them")
        found[name] = None
    return tuple(found)


def _in_outer_folder(images: Collection[Parts]) -> bool:
    """Returns whether a single folder encloses everything and is neither a split nor the only class."""
    first = {parts[0] for parts in images}
    split = any(name.lower() in SPLIT_FOLDERS for name in first)
    return len(first) == 1 and not split and any(len(parts) > 2 for parts in images)


def _arrange_split(images: Mapping[str, Parts], where: str, labels: Mapping[str, str | None] | None) -> list[Entry]:
    ordered = sorted(images, key=lambda path: (images[path], path))
    if labels:
        return [Entry(labels[path], path) for path in ordered]
    plain = [path for path, parts in images.items() if len(parts) == 1]
    if plain and len(plain) < len(images):
        inside = next(path for path, parts in images.items() if len(parts) > 1)
        raise ReadError(
            f"{where} has images next to class folders, such as {min(plain)} and {inside}; "
            "move all images into class folders, or none"
        )
    _check_folders(images, where)
    return [Entry(None if plain else images[path][0], path) for path in ordered]


def _check_folders(images: Mapping[str, Parts], where: str) -> None:
    """Raises ReadError if the names of two class folders are equal in Unicode's composed form."""
    spellings = dict[str, str]()
    for path, parts in images.items():
        folder = raw_parts(path)[-len(parts)]
        if len(parts) > 1 and spellings.setdefault(parts[0], folder) != folder:
            raise ReadError(
                f"{where} has two class folders called {parts[0]!r}, in different Unicode forms; rename one, or move "
                "all images into one of them"
            )


def _check_all_labelled(
    splits: Mapping[str, list[Entry]], images: Mapping[str, Parts], where: str, give: Give | None
) -> None:
    with_class = [entry.path for rows in splits.values() for entry in rows if entry.label is not None]
    without = [entry.path for rows in splits.values() for entry in rows if entry.label is None]
    if with_class and without:
        one = with_class[0]
        advice = "" if give is None else f"{give(one, images[one])}, or "
        raise ReadError(
            f"{where} has images with a class and images without one, such as {one} and {without[0]}; "
            f"{advice}give all of them a class, or none"
        )


def _find_classes(splits: Mapping[str, list[Entry]], where: str, *, sort_numbers: bool) -> tuple[str, ...]:
    """Returns the names of the classes in the order of their labels."""
    named = {split: {entry.label for entry in rows} for split, rows in splits.items()}
    all_names = set[str | None]().union(*named.values())
    names = {name for name in all_names if name is not None}
    for name in names:
        check_class_name(name, where)
    extra = named.get("test", set()) - named.get("train", named.get("test", set()))
    if extra:
        raise ReadError(f"{where}: the class {min(map(str, extra))!r} is in the test split but not in train/")
    return sort_labels(names) if sort_numbers else tuple(sorted(names))


def sort_labels(names: Collection[str]) -> tuple[str, ...]:
    """Sorts the classes in a file of labels: whole numbers by value, other names by code points."""
    return tuple(sorted(names, key=int if are_numbers(names) else None))


def are_numbers(names: Collection[str]) -> bool:
    """Returns whether all names are whole numbers from 0, without leading zeros."""
    return all(name.isdecimal() and str(int(name)) == name for name in names)
