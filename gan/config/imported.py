"""Names that code of a user's own registered by --import: which file each is from, and what uses it. Imports no torch.

Only the option executes code. Checkpoints and run.json hold the records of `used_by`, which are plain values.
"""

import hashlib
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gan.errors import ConfigError

COPIES = "imports"
"""Folder in a run for copies of the files that it was trained with."""


class Imported(NamedTuple):
    """One executed file or module.

    Attributes:
        source: value of --import.
        sha256: of the file; of a package, see `gan.measuring.importing.import_own`.
        names: maps settings, such as generator.name, to the names it registered for them.
        content: the file, None for a package.
    """

    source: str
    sha256: str
    names: Mapping[str, Sequence[str]]
    content: bytes | None


class MissingImportError(ConfigError):
    """A name of a user's own is not registered."""


IMPORTED: list[Imported] = []
"""Files and modules that this process has executed, in order."""


def used_by(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns a record of each imported file that registered a name in these settings, given as nested plain values.

    A record has the keys source, sha256 and names, which maps settings to names, separated by commas.
    """
    found = []
    for each in IMPORTED:
        names: dict[str, str] = {}
        for place, name in _names_in(config):
            if name in each.names.get(place, ()):
                names[place] = f"{names[place]},{name}" if place in names else name
        if names:
            found.append({"source": each.source, "sha256": each.sha256, "names": names})
    return found


def _names_in(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields (place, name) of each text in the sections of a configuration; commas separate several names."""
    for section, settings in config.items():
        for key, value in settings.items() if isinstance(settings, Mapping) else ():
            for name in value.split(",") if isinstance(value, str) else ():
                yield f"{section}.{key}", name.strip()


def copies(config: Mapping[str, Any]) -> dict[str, bytes]:
    """Returns the imported files that these settings use, by their path in a run folder."""
    used = {record["sha256"] for record in used_by(config)}
    return {_copy(each.source, each.sha256): each.content for each in IMPORTED if each.content and each.sha256 in used}


def _copy(source: str, sha256: str) -> str:
    return f"{COPIES}/{Path(source).stem}-{sha256[:8]}.py"


def import_options(config: Mapping[str, Any]) -> str:
    """Returns the options that a command needs to find all names in these settings, such as " --import my_gan.py"."""
    return "".join(f" --import {shlex.quote(record['source'])}" for record in used_by(config))


def check_present(recorded: object, registries: Mapping[str, Collection[str]], owner: Path) -> None:
    """Checks that the names of a run's own are registered.

    Args:
        recorded: records of `used_by`; anything else is ignored, as users may edit run.json.
        registries: names that each setting accepts; other settings are not checked.
        owner: run folder, checkpoint file or file of gan-export.

    Raises:
        MissingImportError: names are missing; the message says which files to import.
    """
    missing = {
        f"{place}: {name!r} is from {record['source']}": f"--import {shlex.quote(_where(record, owner))}"
        for record in recorded_imports(recorded)
        for place, name in _used(record)
        if place in registries and name not in registries[place]
    }
    if missing:
        raise MissingImportError(f"{owner}: {', '.join(missing)}; add {' '.join(dict.fromkeys(missing.values()))}")


def other_code(recorded: object, owner: Path) -> list[str]:
    """Returns a sentence for each file that was imported with another content than is recorded, with a way out."""
    now = {(place, name): each for each in IMPORTED for place, names in each.names.items() for name in names}
    found = {}
    for record in recorded_imports(recorded):
        for used in _used(record):
            each = now.get(used)
            if each is not None and each.sha256 != record["sha256"]:
                found[each.source] = (
                    f"{owner}: trained with {record['source']} of SHA-256 {record['sha256'][:8]}, but --import "
                    f"{each.source} has {each.sha256[:8]}; {_as_trained(record, owner)}"
                )
    return list(found.values())


def _used(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields (place, name) of each name of a record."""
    for place, names in record["names"].items():
        for name in names.split(","):
            yield place, name


def _as_trained(record: Mapping[str, Any], owner: Path) -> str:
    """Returns where the code is that a run was trained with."""
    if copy := _copy_of(record, owner):
        return f"the file as it was in training: --import {shlex.quote(str(copy))}"
    return "no copy of it is kept here: restore it as it was in training"


def _where(record: Mapping[str, Any], owner: Path) -> str:
    """Returns the value of --import for a recorded file: its source if unchanged, else its copy if there is one."""
    source = Path(record["source"])
    try:
        unchanged = hashlib.sha256(source.read_bytes()).hexdigest() == record["sha256"]
    except OSError:
        unchanged = False
    return str(record["source"] if unchanged else _copy_of(record, owner) or record["source"])


def _copy_of(record: Mapping[str, Any], owner: Path) -> Path | None:
    """Returns the copy of a file in a run folder, or beside a file of gan-export; None if there is none."""
    paths = (
        folder / _copy(record["source"], record["sha256"]) for folder in (owner, owner.parent, owner.parent.parent)
    )
    return next((path for path in paths if path.is_file()), None)


def recorded_imports(recorded: object) -> Iterator[dict[str, Any]]:
    """Yields the valid records of a list."""
    for record in recorded if isinstance(recorded, list) else ():
        if isinstance(record, dict):
            names = record.get("names")
            texts = [record.get("source"), record.get("sha256")]
            if isinstance(names, dict) and all(isinstance(text, str) for text in [*texts, *names, *names.values()]):
                yield record


__all__ = [
    "COPIES",
    "IMPORTED",
    "Imported",
    "MissingImportError",
    "check_present",
    "copies",
    "import_options",
    "other_code",
    "recorded_imports",
    "used_by",
]
