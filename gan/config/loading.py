"""How settings are written, read and checked: typed and frozen models, YAML with one level of `base:`, overrides.

What there is to set stands in gan/config/gan.py and gan/config/classifier.py. This module imports no torch.
"""

import difflib
import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from gan.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent.parent
INSTALLED = (_PACKAGE / "configs", _PACKAGE.parent / "configs")
"""Where the configurations of this project lie: in an installed package, and in a checkout."""

CLASSIFIERS = "classifier_"
"""What the names of classifiers' configurations begin with: what they are for."""

MAX_FILE_BYTES = 100_000
"""Of a configuration file, thirty times the longest there is: YAML is slow to read."""
MAX_DEPTH = 3
"""Names in the place of a setting, as in eval.nd.steps."""
MAX_MISTAKES = 5
"""That one message lists."""


def _text(most: int, forbidden: str, expected: str) -> Callable[[str], str]:
    """A check of a text: at most so many characters, none of them forbidden, a control character or half of one."""

    def check(text: str) -> str:
        odd = any(letter in forbidden or unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in text)
        if odd or len(text) > most or text in (".", ".."):
            raise ValueError(f"{expected} of at most {most} characters")
        return text

    return check


Probability = Annotated[float, Field(ge=0, lt=1)]
Factor = Annotated[float, Field(ge=0, le=1e6)]
Count = Annotated[int, Field(ge=1, lt=2**31)]
Interval = Annotated[int, Field(ge=0, lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
# Absurd sizes are refused here, in words, not by the machine's memory after minutes.
Width = Annotated[int, Field(ge=1, le=4096)]
Size = Annotated[int, Field(ge=1, le=2**16)]
Few = Annotated[int, Field(ge=1, le=1000)]
Images = Annotated[int, Field(ge=0, le=10**7)]
Draws = Annotated[int, Field(ge=1, le=10**7)]
Text = Annotated[str, AfterValidator(_text(4096, "", "one line"))]
Name = Annotated[str, AfterValidator(_text(100, "/\\", "a name without slashes"))]


def without_effect(default: Any, description: str) -> Any:
    """A setting that does not change the result: intervals, paths, names. It is left out of the identity."""
    return Field(default=default, description=description, json_schema_extra={"identity": False})


def setting(default: Any, description: str) -> Any:
    """A setting that changes the result."""
    return Field(default=default, description=description)


def later_setting(default: Any, description: str) -> Any:
    """A setting that earlier versions did not have. At its default, which is what they did, it is left out of the
    identity, so that their runs keep theirs."""
    return Field(default=default, description=description, json_schema_extra={"identity": "unless default"})


class Settings(BaseModel):
    """Strict, frozen, no unknown names, no infinities."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Experiment(Settings):
    """Everything that a run of some kind depends on.

    kind: what is trained, as run.json says it.
    renamed: settings (section, name) by the names that earlier versions gave them -> what they are called now.
    elsewhere: sections that other kinds of experiments have -> the command that those are for.
    """

    kind: ClassVar[str] = ""
    renamed: ClassVar[Mapping[tuple[str, str], str]] = {}
    elsewhere: ClassVar[Mapping[str, str]] = {}

    name: Name = without_effect("", "of the experiment; empty: the file's name")

    def identity(self) -> str:
        """SHA-256 (16 hex digits) over the settings of training that change the result."""
        settings = dict(training_settings(self))
        for place, field, value in leaves(self):
            extra = field.json_schema_extra
            if isinstance(extra, dict) and extra.get("identity") == "unless default" and value == field.default:
                del settings[place]
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]

    def to_yaml(self) -> str:
        return yaml.dump(self.model_dump(), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


Kind = TypeVar("Kind", bound=Experiment)


def training_settings(config: Experiment) -> Iterator[tuple[str, Any]]:
    """(place, value) of every setting that changes what training produces; evaluation is not among them."""
    for place, field, value in leaves(config):
        extra = field.json_schema_extra
        if not place.startswith("eval.") and not (isinstance(extra, dict) and extra.get("identity") is False):
            yield place, value


def differences(ours: Experiment, theirs: Experiment) -> list[str]:
    """Settings of training in which two configurations differ, as "place: ours, theirs"."""
    other = dict(training_settings(theirs))
    return [
        f"{place}: {value!r}, {other[place]!r}" for place, value in training_settings(ours) if other[place] != value
    ]


def leaves(settings: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(place, field, value) of every setting, in order; a place is its names with dots between."""
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field, value


class _Loader(yaml.SafeLoader):
    """YAML as people read it: 2e-4 is a number, 010 and 1:30 are none, only true and false are booleans.

    No key twice, no aliases, no tags.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError(f"line {line}: aliases (*name) are not allowed")
        if event.tag is not None:
            raise yaml.YAMLError(f"line {line}: tags (!name) are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: a name is expected before the colon")
            if key.value in seen:
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: {key.value!r} is given twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag.endswith(":null")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(  # type: ignore[no-untyped-call]
    "tag:yaml.org,2002:int", re.compile(r"[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(  # type: ignore[no-untyped-call]
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$"
        r"|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
    ),
    list("-+.0123456789"),
)
_Loader.add_implicit_resolver(  # type: ignore[no-untyped-call]
    "tag:yaml.org,2002:bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


class _Dumper(yaml.SafeDumper):
    """Quotes every text that `_Loader` would read as something else."""


_Dumper.yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


def _parse_yaml(text: str, place: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{place}: not readable as YAML: {_short(' '.join(str(error).split()), 300)}") from None


def _short(text: str, most: int = 80) -> str:
    """A text on one line of a message: control characters written out, the end left off."""
    shown = repr(text)[1:-1]
    return shown if len(shown) <= most else shown[: most - 3] + "..."


def find_config(path_or_name: str | Path) -> Path:
    """A path as given, then ./configs, then the configurations that come with the package; ".yaml" may be left out.

    Raises:
        ConfigError: found nowhere; with the nearest name there is.
    """
    given = Path(path_or_name)
    named = given if given.suffix in (".yaml", ".yml") else given.parent / f"{given.name}.yaml"
    if _is_file(given):
        return given
    for folder in (Path(), Path("configs"), *INSTALLED):
        if _is_file(folder / named):
            return folder / named
    names = find_configs()
    raise ConfigError(f"configuration '{_short(str(path_or_name))}': no such file{nearest(named.name, names)}")


def _is_file(path: Path) -> bool:
    """Whether it is a file that can be looked at; a name too long for one is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def find_configs() -> list[str]:
    """Names of the configurations in ./configs and in the package."""
    return sorted({path.name for folder in (Path("configs"), *INSTALLED) for path in folder.glob("*.yaml")})


def nearest(name: str, valid: Iterable[str]) -> str:
    """ "; did you mean ...?" with the closest of the valid names, or nothing."""
    close = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _read_mapping(kind: type[Experiment], path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES:,} bytes, which no configuration is")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    content = _parse_yaml(text, str(path))
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: got {type(content).__name__}, expected settings as 'name: value'")
    return _with_new_names(kind, content, str(path))


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _with_new_names(kind: type[Experiment], content: dict[str, Any], place: str) -> dict[str, Any]:
    """Settings under the names they have now.

    Raises:
        ConfigError: one is given under its old name and its new one.
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


def _apply_override(kind: type[Experiment], content: dict[str, Any], override: str) -> dict[str, Any]:
    place, equals, text = override.partition("=")
    keys = place.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"--set '{_short(override)}': expected section.name=value, such as train.steps=200")
    if len(keys) > MAX_DEPTH:
        raise ConfigError(f"--set {_short(override)}: unknown setting, expected at most {MAX_DEPTH} names")
    value = _parse_yaml(text, f"--set {_short(override)}")
    changes: Any = value
    for key in reversed(keys):
        changes = {key: changes}
    return _merge(content, _with_new_names(kind, changes, f"--set {override}"))


def _place(source: str, overrides: Sequence[str]) -> str:
    return " with ".join([source, *(f"--set {_short(override)}" for override in overrides)])


def validated(kind: type[Kind], content: dict[str, Any], place: str) -> Kind:
    """Settings from a mapping of plain values.

    Raises:
        ConfigError: an experiment of another kind; or the first few mistakes: where, what was got, what was expected,
            the nearest valid name.
    """
    for section, command in kind.elsewhere.items():
        if section in content:
            raise ConfigError(f"{place}: has a section {section}, which is for {command}")
    try:
        return kind.model_validate(_with_new_names(kind, content, place))
    except ValidationError as error:
        mistakes = error.errors()
        lines = [_explain(kind, mistake) for mistake in mistakes[:MAX_MISTAKES]]
        lines += [f"{len(mistakes) - MAX_MISTAKES} more mistakes"] if len(mistakes) > MAX_MISTAKES else []
        raise ConfigError(f"{place}: " + "; ".join(lines)) from None


def _explain(kind: type[Experiment], mistake: Any) -> str:
    path = [str(part) for part in mistake["loc"]]
    where = _short(".".join(path))
    if mistake["type"] == "extra_forbidden":
        return f"{where}: unknown setting{_nearest_setting(kind, path)}"
    got = mistake["input"]
    expected = mistake["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    expected = expected.replace("a valid dictionary or instance of ", "a section ")
    shown = repr(got) if isinstance(got, int | float | str | None) and len(repr(got)) < 80 else type(got).__name__
    hint = nearest(got, re.findall(r"'(\w+)'", expected)) if isinstance(got, str) else ""
    return f"{where}: got {shown}, expected {expected}{hint}"


def _nearest_setting(kind: type[Experiment], path: list[str]) -> str:
    section: Any = kind
    for part in path[:-1]:
        section = section.model_fields[part].annotation
    valid = list(section.model_fields)
    close = nearest(path[-1], valid)
    everywhere = [place for place, _, _ in leaves(kind()) if place.rsplit(".", 1)[-1] == path[-1]]
    if everywhere:
        return f"; did you mean {everywhere[0]!r}?"
    return close or f", expected one of {', '.join(valid)}"


def load(kind: type[Kind], path_or_name: str | Path, overrides: Sequence[str] = ()) -> Kind:
    """Reads a configuration file, what it is based on, and overrides of the form "section.name=value".

    `base:` names another file, in the same folder or found as `find_config` does; a base has no base of its own.

    Raises:
        ConfigError: see `find_config` and `validated`.
    """
    path = find_config(path_or_name)
    content = _read_mapping(kind, path)
    base_name = content.pop("base", None)
    if base_name is not None:
        if not isinstance(base_name, str):
            raise ConfigError(f"{path}: base: got {base_name!r}, expected the name of a file")
        beside = path.parent / base_name
        base = _read_mapping(kind, beside if _is_file(beside) else find_config(base_name))
        if "base" in base:
            raise ConfigError(f"{path}: base {base_name} has a base itself: one level is allowed")
        content = _merge(base, content)
    content.setdefault("name", path.stem)
    for override in overrides:
        content = _apply_override(kind, content, override)
    return validated(kind, content, _place(str(path), overrides))


def override_config(config: Kind, overrides: Sequence[str], place: str) -> Kind:
    """A configuration with overrides of the form "section.name=value" applied."""
    kind, content = type(config), config.model_dump()
    for override in overrides:
        content = _apply_override(kind, content, override)
    return validated(kind, content, _place(place, overrides))
