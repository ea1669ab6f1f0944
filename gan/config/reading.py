"""Strict YAML: 2e-4 is a number, only true and false are booleans; no repeated keys, aliases or tags."""

import re
from pathlib import Path
from typing import Any

import yaml

from evaluation.settings.mistakes import short
from gan.errors import ConfigError

MAX_FILE_BYTES = 100_000
"""Maximum size of a configuration file, thirty times the largest one: parsing YAML is slow."""


class _Loader(yaml.SafeLoader):
    """Safe loader that resolves numbers, booleans and nulls as below and refuses repeated keys, aliases and tags."""

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


# YAML 1.1 reads 2e-4 as text, 010 as 8, 1:30 as 90, and no, off and on as booleans.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag.endswith(":null")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$"
        r"|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
    ),
    list("-+.0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


class _Dumper(yaml.SafeDumper):
    """Safe dumper that quotes all strings that `_Loader` would not read as strings."""


_Dumper.yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


def parse_yaml(text: str, place: str) -> Any:
    """Returns the plain values of a YAML text.

    Raises:
        ConfigError: the text is not YAML, or has repeated keys, aliases or tags; the message names `place`.
    """
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{place}: not readable as YAML: {short(' '.join(str(error).split()), 300)}") from None


def split_items(text: str, place: str) -> list[str]:
    """Returns the texts of the items of a YAML list in one line without its brackets.

    `1e-4, [8, 4], "a,b"` has the items `1e-4`, `[8, 4]` and `"a,b"`.

    Raises:
        ConfigError: the text is no such list; the message names `place`.
    """
    listed = f"[{text}]"
    try:
        node = yaml.compose(listed, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError):
        node = None
    if node is None or node.end_mark.index != len(listed):
        raise ConfigError(
            f"{place}: expected values separated by commas; a list in brackets, text with commas in quotes "
            "within the shell's: '[8, 4],[4, 2]', '\"fid,is\",fid'"
        )
    return [listed[item.start_mark.index : item.end_mark.index].strip() for item in node.value]


def write_yaml(content: dict[str, Any]) -> str:
    """Returns plain values as a YAML text that `parse_yaml` reads back unchanged."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def read_mapping(path: Path) -> dict[str, Any]:
    """Returns the settings in a file, {} for an empty one.

    Raises:
        ConfigError: the file is too large, cannot be read, or holds no mapping.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES:,} bytes; expected a configuration file")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    content = parse_yaml(text, str(path))
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: got {type(content).__name__}, expected settings as 'name: value'")
    return content
