"""Splits by the names of folders, and folders that look like splits, which are refused."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping

from evaluation.images.reader.errors import ReadError
from evaluation.images.reader.names import Parts, raw_parts

SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
}
"""Splits by the names of their folders, in lower case."""
OTHER_SPLITS = {"dev": "dev", "eval": "dev", "evaluation": "dev", **dict.fromkeys(("unlabeled", "unlabelled"), "more")}

Give = Callable[[str, Parts], str]
"""Function of an image's path, and of its names without enclosing folders, that advises to give its first folder."""


def give_folder(root: str, archive: bool, path: str, parts: Parts) -> str:
    """Advises to give the folder that is named first in the last `parts` of a path."""
    names = raw_parts(path)
    folder = "/".join(names[: len(names) - len(parts) + 1])
    return f"unpack it and give its folder {folder}" if archive else f"give {root}/{folder}"


def find_split(name: str) -> tuple[str, str] | None:
    """Returns the split that a folder's name begins or ends with, and the letters beside it; None without one.

    Words end at other characters than letters and at capitals: trainA, val2017, Testing_Data, images-train.
    """
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]
    for place in (0, -1) if words else ():
        word = re.sub(r"(set|data|images)$", "", words[place])
        if split := {**SPLIT_FOLDERS, **OTHER_SPLITS}.get(word):
            del words[place]
            return split, "".join(words)
    return None


def look_like_splits(names: Iterable[str]) -> bool:
    """Returns whether folders seem to be splits: at least two, all of them, or two of which only the split differs.

    A class `training_shoes` beside others is none.
    """
    every = set(names)
    found = {split for name in every if (split := find_split(name))}
    rests = Counter(rest for _, rest in found)
    alike = len(every) > 1 and all(find_split(name) for name in every)
    return alike or any(count > 1 for count in rests.values())


def check_lookalikes(images: Mapping[str, Parts], where: str, give: Give) -> None:
    """Raises ReadError if folders anywhere below the root look like splits, since they would be read as one set."""
    below = defaultdict[Parts, dict[str, str]](dict)
    for path, parts in images.items():
        for depth, name in enumerate(parts[:-1]):
            below[parts[:depth]].setdefault(name, path)
    for folder, names in below.items():
        if look_like_splits(names):
            alike = sorted(name for name in names if find_split(name))
            first = next((name for name in alike if (find_split(name) or "")[0] == "train"), alike[0])
            shown = " and ".join("/".join((*folder, name)) for name in (first, *(n for n in alike if n != first))[:3])
            path = names[first]
            one = "/".join((*folder, first)) if not folder else folder[0]
            raise ReadError(
                f"{where}: the folders {shown} look like splits, but would be read as one set; "
                f"{give(path, images[path][len(folder) :])}. If these are no splits, put all folders into "
                f"train/, as in train/{one}"
            )


def split_folders(images: Mapping[str, Parts], where: str, give: Give) -> dict[str, str]:
    """Returns the folder of each split, "train" before "test"; empty if there are no splits.

    Raises:
        ReadError: images outside of the splits, or two folders for one split.
    """
    found = defaultdict[str, set[str]](set)
    for parts in images.values():
        if len(parts) > 1 and parts[0].lower() in SPLIT_FOLDERS:
            found[SPLIT_FOLDERS[parts[0].lower()]].add(parts[0])
    known = {folder for folders in found.values() for folder in folders}
    outside = [path for path, parts in images.items() if known and (parts[0] not in known or len(parts) == 1)]
    if outside:
        one = min(found["train"] or known)
        folders = sorted({f"{images[path][0]}/" for path in outside if len(images[path]) > 1})
        more = f" and {len(outside) - 1:,} more are" if len(outside) > 1 else " is"
        away = f"the folder {folders[0]}" if len(folders) == 1 else f"the folders {', '.join(folders[:3])}"
        inside = next(path for path, parts in images.items() if len(parts) > 1 and parts[0] == one)
        raise ReadError(
            f"{where} has the split folder {one}/, but {min(outside)}{more} outside of it; "
            f"{give(inside, images[inside])}, or move {away if folders else 'these images'} away. If {one} is a "
            f"class, move all class folders into train/, as in train/{one}"
        )
    for twice in found.values():
        if len(twice) > 1:
            raise ReadError(f"{where} has {'/ and '.join(sorted(twice))}/; keep one of them")
    if "test" not in found and "validation" in found:
        found["test"] = found["validation"]
    return {split: next(iter(found[split])) for split in ("train", "test") if found.get(split)}
