"""Names of files and folders: which are read, and which of them are images."""

import unicodedata

from evaluation.images.reader.decoding import SUFFIXES

Parts = tuple[str, ...]

SYSTEM_FOLDERS = {
    *("__macosx", "lost+found", "system volume information"),
    *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "$recycle.bin"),
}
"""Folders of archivers, file systems and storage devices, in lower case."""


def split_path(path: str) -> Parts:
    """Returns the names in a path, in Unicode's composed form (NFC)."""
    return raw_parts(unicodedata.normalize("NFC", path))


def raw_parts(path: str) -> Parts:
    """Returns the names in a path as they are."""
    return tuple(name for name in path.replace("\\", "/").split("/") if name not in ("", "."))


def is_hidden(name: str) -> bool:
    """Returns whether a file or folder is passed over: its name begins with a dot or is one of SYSTEM_FOLDERS."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def is_visible(parts: Parts) -> bool:
    """Returns whether neither a file nor a folder it is in is hidden."""
    return bool(parts) and not any(is_hidden(name) for name in parts)


def has_image_suffix(parts: Parts) -> bool:
    """Returns whether a file, hidden or not, has the suffix of an image."""
    return bool(parts) and parts[-1].lower().endswith(SUFFIXES)


def is_image(parts: Parts) -> bool:
    """Returns whether a visible file has the suffix of an image."""
    return is_visible(parts) and has_image_suffix(parts)
