"""Imports code of a user's own that adds entries to the registries."""

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from evaluation.generalization.values import MEASURES, Measure
from evaluation.metrics.needs import Metric
from evaluation.reporting.value import Value
from evaluation.settings.schema import READ_BY_OWN
from gan.build import REGISTRIES
from gan.build_classifier import classifier_registries
from gan.config.gan import DiscriminatorSettings
from gan.config.imported import IMPORTED, Imported
from gan.config.reading import parse_yaml
from gan.data import AUGMENTATIONS, DataSource
from gan.data.augment import Augmentation
from gan.errors import ConfigError
from gan.losses import Loss
from gan.measuring.checks import registries
from gan.normalization import PENALTIES, Normalization, PenaltyChoice

MEASURED = "eval.metrics of a classifier"

ENTRIES: dict[str, type] = {
    "data.name": DataSource,
    "discriminator.normalization": Normalization,
    "classifier.normalization": Normalization,
    "discriminator.penalty": PenaltyChoice,
    "train.loss": Loss,
    "train.augment": Augmentation,
    "eval.metrics": Metric,
    MEASURED: Measure,
}
"""Type of the entries of a registry, by setting; other registries hold functions or classes."""

Registered = dict[str, dict[str, Any]]


def import_own(sources: Sequence[str | Path]) -> None:
    """Executes files or modules whose code adds entries to the registries, and records the names they add.

    Args:
        sources: a file ends with .py and must be complete in itself; other values are names of installed modules. The
            recorded SHA-256 is that of the file, of a package or a part of it that of its *.py files with their paths.

    Raises:
        ConfigError: a source does not exist, fails, registers nothing, replaces an entry or adds one of a wrong type.
    """
    for source in dict.fromkeys(map(str, sources)):
        found = _from_file(Path(source)) if source.endswith(".py") else _from_module(source)
        if any(each.sha256 == found.sha256 for each in IMPORTED):
            continue
        before = _registered()
        try:
            found.execute()
            names = _new_names(before, _registered(), source)
        except BaseException:
            _restore(before)
            raise
        _note_code(names, found.sha256)
        for place, entries in names.items():
            READ_BY_OWN.update(_settings_read(place, entries))
        if measures := names.pop(MEASURED, ()):
            names["eval.metrics"] = (*names.get("eval.metrics", ()), *measures)
        IMPORTED.append(Imported(source, found.sha256, names, found.content))


class _Source(NamedTuple):
    """Code to execute; content: of a single file."""

    sha256: str
    content: bytes | None
    execute: Callable[[], object]


def _from_file(path: Path) -> _Source:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"--import {path}: {error.strerror or error}; expected a Python file") from None
    digest = hashlib.sha256(content).hexdigest()
    name = f"imported_{path.stem}_{digest[:8]}"

    def execute() -> None:
        module = ModuleType(name)
        module.__file__ = str(path)
        module.__package__ = ""  # in no package: relative imports fail without a warning first
        sys.modules[name] = module  # dataclasses and inspect look it up
        with _explained(str(path)):
            exec(compile(content, str(path), "exec"), module.__dict__)  # the content that was hashed

    return _Source(digest, content, execute)


def _from_module(name: str) -> _Source:
    try:
        spec = importlib.util.find_spec(name.partition(".")[0])  # of a part of a package it would execute the package
    except (ImportError, ValueError) as error:
        raise ConfigError(f"--import {name}: {error}; {_advice(name)}") from None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise ConfigError(f"--import {name}: no such module; {_advice(name)}")
    origin = Path(spec.origin)
    files = sorted(origin.parent.rglob("*.py")) if spec.submodule_search_locations else []
    content = None if files else origin.read_bytes()
    digest = hashlib.sha256(content or b"")
    for file in files:
        digest.update(f"{file.relative_to(origin.parent).as_posix()}\0".encode() + file.read_bytes() + b"\0")

    def execute() -> None:
        if name in sys.modules:
            raise ConfigError(f"--import {name}: Python has imported this module already; leave the option out")
        with _explained(name):
            importlib.import_module(name)

    return _Source(digest.hexdigest(), content, execute)


def _advice(name: str) -> str:
    file = Path(f"{name}.py")
    if file.is_file():
        return f"expected a file: --import {file}"
    if Path(name).is_dir():
        folder = Path(name).resolve()
        return f"expected the name of a package, as in PYTHONPATH={folder.parent} gan-train --import {folder.name}"
    return "expected a file that ends with .py, or a module that is installed or on PYTHONPATH"


class _explained:
    """Context manager: turns an exception of a user's code into a ConfigError that names the line."""

    def __init__(self, source: str) -> None:
        self.source = source

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, Exception | SystemExit) or isinstance(error, ConfigError):
            return
        own = [frame for frame in traceback.extract_tb(trace) if frame.filename == self.source]
        line = error.lineno if isinstance(error, SyntaxError) else own[-1].lineno if own else None
        place = f"--import {self.source}" + (f", line {line}" if line else "")
        raise ConfigError(f"{place}: {type(error).__name__}: {error}{_advice_on(error)}") from None


def _advice_on(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return '; put what is for a command of its own below if __name__ == "__main__":'
    together = "put code of several files into a package, and give its name, with its folder on PYTHONPATH"
    if isinstance(error, ModuleNotFoundError):
        return f"; install it, or if it is of your own: {together}"
    return f"; {together}" if "relative import" in str(error) else ""


def _tables() -> dict[str, Any]:
    """Returns every registry of GANs, classifiers and metrics by setting."""
    return {
        **REGISTRIES,
        "train.augment": AUGMENTATIONS,
        **classifier_registries(),
        **registries(),
        MEASURED: MEASURES,
    }


def _registered() -> Registered:
    """Returns a copy of every registry."""
    return {place: dict(table) for place, table in _tables().items()}


def _restore(before: Registered) -> None:
    """Sets every registry to a copy."""
    for place, table in _tables().items():
        table.clear()
        table.update(before[place])


def _new_names(before: Registered, after: Registered, source: str) -> dict[str, tuple[str, ...]]:
    """Returns the names that a file registered, by setting, after checks of each entry."""
    names = {}
    for place, entries in after.items():
        if lost := [name for name, entry in before[place].items() if entries.get(name, ...) is not entry]:
            raise ConfigError(
                f"--import {source}: {place}: {lost[0]!r} exists already and was replaced or removed; register it "
                "under a name of your own"
            )
        new = {name: entry for name, entry in entries.items() if name not in before[place]}
        for name, entry in new.items():
            _check_entry(place, name, entry, source)
        if new:
            names[place] = tuple(new)
    if not names:
        raise ConfigError(
            f"--import {source}: registers nothing; expected a line such as "
            'GENERATORS["mine"] = Mine, after from gan.models import GENERATORS; see docs/extending.md'
        )
    return names


def _check_entry(place: str, name: object, entry: object, source: str) -> None:
    """Raises ConfigError for an entry that cannot be used by a setting."""
    where = f"--import {source}: {place}: {name!r}"
    if not isinstance(name, str) or not name or set(name) & set(",/\\") or name != name.strip():
        raise ConfigError(f"{where}: expected a name without commas, slashes and spaces around it")
    if parse_yaml(name, where) != name:
        raise ConfigError(f"{where}: YAML reads it as {parse_yaml(name, where)!r}; expected a word")
    wanted = ENTRIES.get(place)
    if not (callable(entry) if wanted is None else isinstance(entry, wanted)):
        expected = f"a {wanted.__name__}" if wanted else "a class or function that builds it"
        raise ConfigError(f"{where}: got a {type(entry).__name__}, expected {expected}")
    known = DiscriminatorSettings.model_fields
    if isinstance(entry, Normalization):
        unknown = [setting for setting in entry.settings if setting not in known]
        if unknown:
            raise ConfigError(f"{where}: settings: got {unknown[0]!r}, expected settings of discriminator that exist")
        if entry.penalty not in PENALTIES:
            raise ConfigError(f"{where}: penalty: got {entry.penalty!r}, expected one of {', '.join(PENALTIES)}")
    if isinstance(entry, PenaltyChoice) and entry.coefficient not in known:
        coefficients = ", ".join(setting for setting in known if setting.endswith("_coefficient"))
        raise ConfigError(f"{where}: coefficient: got {entry.coefficient!r}, expected one of {coefficients}")


def _settings_read(place: str, names: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Yields (setting, key, name) of each setting beside `key` that an entry reads: it is part of identities then."""
    key = place.split(".")[1]
    for name in names:
        entry = _tables()[place][name]
        if isinstance(entry, Normalization):
            read = [*entry.settings, PENALTIES[entry.penalty].coefficient]
        elif isinstance(entry, PenaltyChoice):
            read = [entry.coefficient]
        elif key == "initialization":
            read = ["initialization_std"]
        else:
            read = [*inspect.signature(entry).parameters] if key == "name" and callable(entry) else []
        yield from ((setting, key, name) for setting in read)


def _note_code(names: Mapping[str, Sequence[str]], sha256: str) -> None:
    """Adds the SHA-256 of its code to the protocol of every value of new metrics and measures."""
    for place, function in (("eval.metrics", "measure"), (MEASURED, "values")):
        table = _tables()[place]
        for name in names.get(place, ()):
            measure = partial(_with_code, getattr(table[name], function), sha256)
            table[name] = table[name]._replace(**{function: measure})


def _with_code(measure: Callable[[Any], list[Value]], sha256: str, subject: Any) -> list[Value]:
    return [replace(value, fields={**value.fields, "code": sha256}) for value in measure(subject)]


__all__ = ["import_own"]
