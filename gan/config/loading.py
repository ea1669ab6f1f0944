"""Composes a typed and frozen configuration from files, variants and overrides. Imports no torch.

The settings themselves are in gan/config/gan.py and gan/config/classifier.py.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import ValidationError

from evaluation.settings.mistakes import explain, short
from evaluation.settings.schema import Name, Section, leaves, places, without_effect
from gan.config.files import find_config, find_variant
from gan.config.reading import parse_yaml, read_mapping, write_yaml
from gan.errors import ConfigError

MAX_DEPTH = 3
"""Maximum number of names in the place of a setting, such as eval.nd.steps."""
MAX_FILES = 100
"""Maximum number of files that a configuration is composed of, counted with repetitions."""


class Experiment(Section):
    """Configuration of a run, of any kind.

    Attributes:
        kind: kind of the run, as stored in run.json.
        renamed: maps settings (section, old name) of earlier versions to their present names.
        elsewhere: maps sections of other kinds of runs to the commands that read them.
    """

    kind: ClassVar[str] = ""
    renamed: ClassVar[Mapping[tuple[str, str], str]] = {}
    elsewhere: ClassVar[Mapping[str, str]] = {}

    name: Name = without_effect("", "name of the experiment; empty: the file's name")

    def identity(self) -> str:
        """Returns the SHA-256 (16 hex digits) of the settings that change the result of training."""
        settings = json.dumps(dict(training_settings(self)), sort_keys=True)
        return hashlib.sha256(settings.encode()).hexdigest()[:16]

    def to_yaml(self) -> str:
        """Returns all settings as YAML that `load` reads back unchanged."""
        return write_yaml(self.model_dump())


SomeExperiment = TypeVar("SomeExperiment", bound=Experiment)


def training_settings(config: Experiment) -> Iterator[tuple[str, Any]]:
    """Yields (place, value) of every setting that changes the result of training, without evaluation settings."""
    for place, has_effect, value in leaves(config):
        if has_effect and not place.startswith("eval."):
            yield place, value


def unequal(ours: Experiment, theirs: Experiment) -> list[str]:
    """Returns the places of all settings that differ, with or without an effect, except the name."""
    values = {place: value for place, _, value in leaves(theirs)}
    return [place for place, _, value in leaves(ours) if place != "name" and values.get(place) != value]


def differences(ours: Experiment, theirs: Experiment) -> list[str]:
    """Returns the training settings in which two configurations differ, as "place: ours, theirs"."""
    relevant = {place for config in (ours, theirs) for place, _ in training_settings(config)}
    others = {place: value for place, _, value in leaves(theirs)}
    values = [(place, value) for place, _, value in leaves(ours) if place in relevant]
    return [f"{place}: {value!r}, {others[place]!r}" for place, value in values if value != others[place]]


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Merges settings over others; a title is dropped with the data it names, see `_names_other_data`."""
    merged = _merge(below, above)
    if _names_other_data(below.get("data"), above.get("data")):
        merged["data"] = {key: value for key, value in merged["data"].items() if key != "title"}
    return merged


def _names_other_data(below: Any, above: Any) -> bool:
    """Whether `data` settings replace the data set or its place below them without a title of their own."""
    if not isinstance(below, dict) or not isinstance(above, dict) or "title" in above:
        return False
    return any(above.get(key, below.get(key)) != below.get(key) for key in ("name", "root"))


def _with_new_names(kind: type[Experiment], content: dict[str, Any], place: str) -> dict[str, Any]:
    """Replaces old names of settings by their present ones.

    Raises:
        ConfigError: a setting is given under both its old and its new name.
    """
    for (section, old), new in kind.renamed.items():
        settings = content.get(section)
        if not isinstance(settings, dict) or old not in settings:
            continue
        if new in settings:
            raise ConfigError(f"{place}: {section}.{old} is the old name of {section}.{new}: give one of them")
        renamed = {new if name == old else name: value for name, value in settings.items()}
        content = {**content, section: renamed}
    return content


def _parse_override(kind: type[Experiment], override: str) -> dict[str, Any]:
    """Returns an override of the form "section.name=value" as nested settings."""
    place, equals, text = override.partition("=")
    keys = place.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"--set '{short(override)}': expected section.name=value, such as train.steps=200")
    if len(keys) > MAX_DEPTH:
        raise ConfigError(f"--set {short(override)}: unknown setting, expected at most {MAX_DEPTH} names")
    value = parse_yaml(text, f"--set {short(override)}")
    changes: Any = value
    for key in reversed(keys):
        changes = {key: changes}
    return _with_new_names(kind, changes, f"--set {override}")


class OtherKindError(ConfigError):
    """A configuration of another kind of run."""


def validated(kind: type[SomeExperiment], content: dict[str, Any], place: str) -> SomeExperiment:
    """Validates a mapping of plain values and returns the configuration.

    Raises:
        ConfigError: a configuration of another kind, or invalid settings. The message lists the first few: the place,
            the value, the expected values and the nearest valid name.
    """
    for section, command in kind.elsewhere.items():
        if section in content:
            raise OtherKindError(f"{place}: has a section {section}, which is for {command}")
    try:
        return kind.model_validate(_with_new_names(kind, content, place))
    except ValidationError as error:
        raise ConfigError(f"{place}: {explain(kind, error, places(kind))}") from None


def load(
    kind: type[SomeExperiment],
    path_or_name: str | Path,
    overrides: Sequence[str] = (),
    variants: Sequence[str | Path] = (),
) -> SomeExperiment:
    """Composes a configuration: defaults, the file's bases in order, the file's own settings, variants, overrides.

    `base:` in a file names another file or a list of files, in the same folder or found by `find_config`; bases may
    have bases. The default name is that of the file and of the variants, such as "cifar10_srn50-jpeg". A part that
    changes data.name or data.root and gives no data.title drops the title of the earlier data.

    Args:
        overrides: settings in the form "section.name=value".
        variants: names or paths of variants, see `find_variant`.

    Raises:
        ConfigError: bases form a cycle, or see `find_config`, `find_variant` and `validated`.
    """
    path = find_config(path_or_name)
    content = {"name": path.stem, **_composed(kind, path)}
    files = [find_variant(kind.kind, variant) for variant in variants]
    if isinstance(content["name"], str):
        content["name"] = "-".join([content["name"], *(file.stem for file in files)])
    for file in files:
        content = _laid_over(content, _composed(kind, file))
    place = " ".join([str(path), *(f"--with {short(str(variant), 300)}" for variant in variants)])
    return _overridden(kind, content, overrides, place)


def override_config(config: SomeExperiment, overrides: Sequence[str], place: str) -> SomeExperiment:
    """Returns a configuration with overrides of the form "section.name=value" applied."""
    return _overridden(type(config), config.model_dump(), overrides, place)


def _overridden(
    kind: type[SomeExperiment], content: dict[str, Any], overrides: Sequence[str], place: str
) -> SomeExperiment:
    changes: dict[str, Any] = {}
    for override in overrides:
        changes = _merge(changes, _parse_override(kind, override))
    content = _laid_over(content, changes)
    return validated(kind, content, " ".join([place, *(f"--set {short(override)}" for override in overrides)]))


def _composed(kind: type[Experiment], path: Path) -> dict[str, Any]:
    """Merges the settings of a file into those of its bases.

    Raises:
        ConfigError: a file is among its own bases, or there are more than MAX_FILES files.
    """
    num_files = 0

    def compose(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
        nonlocal num_files
        num_files += 1
        here = path.resolve()
        if here in above:
            ring = " -> ".join(each.name for each in [*above[above.index(here) :], here])
            raise ConfigError(f"{path}: base: is based on itself ({ring}); remove one of these bases")
        if num_files > MAX_FILES:
            raise ConfigError(f"{above[0].name}: base: got more than {MAX_FILES} files in all; remove bases")
        content = _with_new_names(kind, read_mapping(path), str(path))
        names = content.pop("base", [])
        names = [names] if isinstance(names, str) else names
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ConfigError(f"{path}: base: got {short(str(names))}, expected the name of a file, or a list of names")
        merged: dict[str, Any] = {}
        for name in names:
            merged = _laid_over(merged, compose(_find_base(path, name), (*above, here)))
        return _laid_over(merged, content)

    return compose(path, ())


def _find_base(path: Path, name: str) -> Path:
    try:
        return find_config(name, beside=path.parent)
    except ConfigError as error:
        raise ConfigError(f"{path}: base: {error}") from None
