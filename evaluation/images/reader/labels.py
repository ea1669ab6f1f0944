"""Files beside images: labels.csv and dataset.json, which are understood, and others, which may not be passed over."""

import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from evaluation.images.reader.errors import ReadError
from evaluation.images.reader.files import Files
from evaluation.images.reader.names import Parts, has_image_suffix, is_image, is_visible, split_path

CSV, JSON = "labels.csv", "dataset.json"
EXPECTED = (
    f'labels are read from class folders, from {CSV} with the columns file,label, or from {JSON} with {{"labels": '
    "[[file, number], ...]}"
)
OTHER_IMAGES = (
    *(".arw", ".avif", ".cr2", ".cr3", ".dcm", ".dng", ".exr", ".hdr", ".heic", ".heif", ".j2k", ".jp2", ".jxl"),
    *(".nef", ".psd", ".svg", ".tga"),
)
METADATA = (
    *(".ann", ".arrow", ".avro", ".caption", ".captions", ".csv", ".db", ".feather", ".h5", ".hdf5", ".json", ".jsonl"),
    *(".lab", ".label", ".labels", ".list", ".lmdb", ".lst", ".mat", ".mdb", ".msgpack", ".names", ".ndjson", ".npy"),
    *(".npz", ".ods", ".orc", ".parquet", ".pickle", ".pkl", ".pt", ".pth", ".rec", ".sqlite", ".sqlite3", ".tab"),
    *(".tfrecord", ".tfrecords", ".toml", ".tsv", ".txt", ".xls", ".xlsx", ".xml", ".yaml", ".yml"),
)
"""Suffixes of files that often hold labels, boxes or captions, or images and their labels."""
COMPRESSED = (".bz2", ".gz", ".xz", ".zst")
HARMLESS = re.compile(
    r"((attribution|author|changelog|change|citation|copying|copyright|credit|licen[cs]e|log|note|requirement|term)s?"
    r"([\W_]+(apache|bsd|cc|gpl|lgpl|mit|v?\d+)[\w.+-]*)?"
    r"|read.?me(?![a-z]).*|(.*[\W\d_])?((md5|sha\d+|check|hash)(sum)?s?|hashes))[\W\d_]*\.txt"
    r"|thumbs\.db"
)
"""Names of files without labels: notes, licences, checksums."""
Named = tuple[str, str, str | None]  # place in the file of labels, path of an image in its folder, class or None


def read_labels(files: Files) -> dict[str, str | None]:
    """Returns the classes of all images by path, from files of labels; empty if there are none.

    A file of labels holds the paths of all images in its folder and below, relative to it.

    Raises:
        ReadError: a file beside the images that is not understood, or a file of labels that is damaged, or names
            unknown images, or does not name all.
    """
    parts = {path: split_path(path) for path in files.paths}
    images = {names: path for path, names in parts.items() if is_image(names)}
    others = {path: names for path, names in parts.items() if is_visible(names) and not is_image(names)}
    if not images:
        _check_not_packed(others, files)
        return {}
    _check_others(others, files)
    found = {path: names for path, names in others.items() if names[-1] in (CSV, JSON)}
    labels: dict[str, str | None] = {}
    for path, content in files.contents(found).items():
        where, folder = f"{files.root}: {path}", found[path][:-1]
        below = {names[len(folder) :]: image for names, image in images.items() if names[: len(folder)] == folder}
        for image, label in _match(_parse(content, where, files.archive), below, where).items():
            if image in labels:
                raise ReadError(f"{where}: {image} has a label in another file, too; keep one of {CSV} and {JSON}")
            labels[image] = label
    missing = [path for path, names in parts.items() if is_image(names) and path not in labels] if found else []
    if missing:
        raise ReadError(f"{files.root}: {min(found)} has no label for {min(missing)}; add one, or move the image away")
    return labels


def _check_not_packed(others: Mapping[str, Parts], files: Files) -> None:
    if any(names[-1].endswith("-images.npy") for names in others.values()):
        advice = "unpack it and give the folder" if files.archive else "give the folder inside"
        raise ReadError(f"{files.root} holds a packed data set; {advice} that holds {JSON} and the .npy files")


def _check_others(others: Mapping[str, Parts], files: Files) -> None:
    """Raises ReadError for a file that may hold labels or is an image of another format."""
    for path, names in sorted(others.items()):
        name = names[-1].lower()
        suffixes = [suffix for suffix in PurePosixPath(name).suffixes if suffix not in COMPRESSED]
        suffix = suffixes[-1] if suffixes else ""
        if suffix in OTHER_IMAGES:
            raise ReadError(
                f"{files.root}: {path}: an image of a format that is not read; convert it to PNG, or move it away"
            )
        harmless = HARMLESS.fullmatch(name)
        if suffix in METADATA and names[-1] not in (CSV, JSON) and not harmless:
            away = "leave it out of the archive" if files.archive else f"move it away, rename it to .{names[-1]}"
            away += "" if files.archive else ", or give the folder of the images alone"
            raise ReadError(f"{files.root}: {path}: not understood; {EXPECTED}. If it holds no labels, {away}")


def _parse(content: bytes, where: str, archive: bool) -> list[Named]:
    if where.endswith(CSV):
        return list(_parse_csv(content, where))
    try:
        manifest = json.loads(content, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ReadError(f"{where}: cannot be read as JSON ({error}); {EXPECTED}") from error
    if isinstance(manifest, dict) and {"format", "splits"} <= manifest.keys():
        what = "unpack the archive and give" if archive else "give"
        raise ReadError(f"{where}: of a packed data set; {what} the folder that holds this file")
    return list(_parse_json(manifest, where))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict[str, Any]()
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r} occurs twice")
        found[name] = value
    return found


def _parse_json(manifest: Any, where: str) -> Iterator[Named]:
    """Yields the labels of a dataset.json of StyleGAN or EDM: numbers, or null for images without labels."""
    labels = manifest.get("labels", ...) if isinstance(manifest, dict) else ...
    if labels is None:
        yield where, "", None
        return
    pairs = list(labels.items()) if isinstance(labels, dict) else labels
    if not isinstance(pairs, list):
        raise ReadError(f"{where}: not understood; {EXPECTED}")
    for number, pair in enumerate(pairs, 1):
        place = f"{where}: label {number}"
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not isinstance(pair[0], str):
            raise ReadError(f"{place}: got {_short(pair)}, expected a pair [file, number]")
        name, label = pair
        if isinstance(label, bool) or not isinstance(label, int) or label < 0:
            raise ReadError(
                f"{place}: got {_short(label)} for {name}, expected the number of a class from 0; vectors and other "
                f"labels are not read, use {CSV} for names"
            )
        yield place, name, str(label)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _parse_csv(content: bytes, where: str) -> Iterator[Named]:
    """Yields the labels of a table of files and labels, in either order; a header is a row like the others."""
    try:
        rows = list(
            csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), skipinitialspace=True, strict=True)
        )
    except (UnicodeDecodeError, csv.Error) as error:
        raise ReadError(f"{where}: cannot be read as a table ({error}); save it as CSV with commas in UTF-8") from error
    for number, row in enumerate(rows, 1):
        fields = [field.strip() for field in row]
        if not any(fields):
            continue
        if len(fields) != 2:
            raise ReadError(
                f"{where}: row {number}: got {len(fields)} column{'s' * (len(fields) > 1)} "
                f"({_short(','.join(fields))}), expected two, file,label, separated by a comma; names with "
                "commas are put in double quotes"
            )
        file_first, label_first = (has_image_suffix(split_path(field)) for field in fields)
        name, label = fields if file_first or not label_first else reversed(fields)
        if not label:
            raise ReadError(f"{where}: row {number}: no label for {name}; add one")
        yield f"{where}: row {number}", name, unicodedata.normalize("NFC", label)


def _match(named: list[Named], images: Mapping[Parts, str], where: str) -> dict[str, str | None]:
    """Returns the classes by the images' paths in the root.

    Suffixes may be left out where one image has the name. The first row of a table is a header if it names no image.

    Args:
        images: paths in the root by the names in their paths below the folder of the file of labels.
    """
    if named and named[0][2] is None:
        return dict.fromkeys(images.values())
    known = {(*names[:-1], PurePosixPath(names[-1]).stem): path for names, path in images.items()} | dict(images)
    first = split_path(named[0][1]) if named else ()
    if where.endswith(CSV) and first not in known and not has_image_suffix(first):
        named = named[1:]
    found: dict[str, str | None] = {}
    for place, name, label in named:
        path = known.get(split_path(name))
        if path is None:
            raise ReadError(f"{place}: there is no image {name!r} beside {_where_instead(name, known, where)}")
        if path in found:
            raise ReadError(f"{place}: a second label for {name}; remove one of them")
        found[path] = label
    return found


def _where_instead(name: str, known: Mapping[Parts, str], where: str) -> str:
    file, wanted = CSV if where.endswith(CSV) else JSON, split_path(name)
    below = [path for names, path in known.items() if wanted and names[-len(wanted) :] == wanted]
    if below:
        return f"{file} but {min(below)}: move {file} into that folder, or correct its paths, which are relative to it"
    example = f", such as {'/'.join(min(filter(has_image_suffix, known)))}" if known else ""
    return f"{file}; remove it, or correct its path, which is relative to the file{example}"
