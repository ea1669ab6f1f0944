"""Finds configuration files and variants by name, and lists them."""

from collections.abc import Container, Iterable
from itertools import groupby
from pathlib import Path

from evaluation.settings.mistakes import nearest, short
from gan.config.old_names import OLD_ADAM, REMOVED, new_form
from gan.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent.parent
INSTALLED = (_PACKAGE / "configs", _PACKAGE.parent / "configs")
"""Folders of this project's configurations: in an installed package, and in a checkout."""

CLASSIFIERS = "classifier_"
"""Prefix of the names of classifiers' configurations."""


def find_config(name: str | Path, beside: Path | None = None) -> Path:
    """Returns `name` if it is the path of a file, else the file of that name in ./configs or the installed package.

    Args:
        name: path or name, with or without ".yaml".
        beside: folder that is searched first, for a base.

    Raises:
        ConfigError: there is no such file; the message has the new form of an old name, or the nearest name.
    """
    folders = (*((beside,) if beside is not None else ()), Path(), Path("configs"), *INSTALLED)
    found = _find(name, folders)
    if found is not None:
        return found
    shown, known = short(str(name)), find_configs()
    stem, stems = Path(name).name.removesuffix(".yaml"), [Path(each).stem for each in known]
    replacement = new_form(stem, stems) or _with_variants(stem, stems)
    if replacement is not None:
        adam = "; without that setting, Adam is the SRN paper's, 0.999" if OLD_ADAM in replacement[1] else ""
        raise ConfigError(f"{shown}: is now {(_as_options if beside is None else _as_base)(*replacement)}{adam}")
    if stem in REMOVED:
        raise ConfigError(f"{shown}: no longer exists; its successor is {REMOVED[stem]}")
    raise ConfigError(f"configuration '{shown}': no such file{nearest(_with_suffix(Path(name)).name, known)}")


def _with_variants(name: str, configs: Container[str]) -> tuple[str, list[str]] | None:
    """Returns the configuration and variants that a run's name consists of, as in "cifar10_sn-srn30-jpeg"."""
    config, *variants = name.split("-")
    known = find_variants("classifier" if config.startswith(CLASSIFIERS) else "gan")
    return (config, variants) if config in configs and variants and set(variants) <= set(known) else None


def _as_options(config: str, changes: Iterable[str]) -> str:
    """Returns command-line options for a configuration with variants and settings."""
    return " ".join([f"--config {config}", *(f"--{'set' if '=' in each else 'with'} {each}" for each in changes)])


def _as_base(config: str, changes: Iterable[str]) -> str:
    """Returns a list of bases for a configuration with variants, and the settings to add."""
    kind = "classifier" if config.startswith(CLASSIFIERS) else "gan"
    bases = ", ".join([config, *(f"variants/{kind}/{each}" for each in changes if "=" not in each)])
    settings = " and ".join(each for each in changes if "=" in each)
    return f"[{bases}]" + (f" with {settings}" if settings else "")


def find_variant(kind: str, name: str | Path) -> Path:
    """Returns `name` if it is the path of a file, else the variant of that name for "gan" or "classifier".

    Raises:
        ConfigError: there is no such file; the message has the nearest name, or lists all.
    """
    found = _find(name, (Path(), *_variant_folders(kind)))
    if found is not None:
        return found
    names = find_variants(kind)
    hint = nearest(Path(name).stem, names) or f", expected a file or one of {', '.join(names)}"
    raise ConfigError(f"--with {short(str(name))}: no such variant{hint}")


def find_configs() -> list[str]:
    """Returns the names of all configurations in ./configs and in the package."""
    return sorted(path.name for path in _unique((Path("configs"), *INSTALLED)))


def find_variants(kind: str) -> list[str]:
    """Returns the names of all variants for "gan" or "classifier" in ./configs and in the package."""
    return [path.stem for path in _unique(_variant_folders(kind))]


def catalogue(kind: str) -> str:
    """Returns all configurations and variants for "gan" or "classifier" in groups, with a line of description each.

    The first line of a file has the form "# GROUP: DESCRIPTION".
    """
    configs = [
        path
        for path in _unique((Path("configs"), *INSTALLED))
        if path.stem.startswith(CLASSIFIERS) == (kind == "classifier")
    ]
    described = sorted((group, path.stem, text) for path in configs for group, text in [_description(path)])
    lines: list[str] = []
    for group, members in groupby(described, lambda entry: entry[0]):
        lines += [f"--config, {group}:", *_table([(name, text) for _, name, text in members])]
    variants = [(path.stem, ": ".join(filter(None, _description(path)))) for path in _unique(_variant_folders(kind))]
    return "\n".join([*lines, "--with, variants of them:", *_table(variants)])


def _description(path: Path) -> tuple[str, str]:
    """Returns group and description from the first line of a file, ("others", "") without a comment there."""
    with path.open(encoding="utf-8", errors="replace") as file:
        first = file.readline()
    if not first.startswith("#"):
        return "others", ""
    group, colon, description = first.lstrip("# ").strip().partition(": ")
    return (group, description) if colon else ("others", group)


def _table(rows: Iterable[tuple[str, str]]) -> list[str]:
    rows = list(rows)
    width = max((len(name) for name, _ in rows), default=0)
    return [f"  {name:{width}}  {description}".rstrip() for name, description in rows]


def _variant_folders(kind: str) -> tuple[Path, ...]:
    return tuple(folder / "variants" / kind for folder in (Path("configs"), *INSTALLED))


def _unique(folders: Iterable[Path]) -> list[Path]:
    """Returns the YAML files in the folders, sorted by name; if names are equal, only the file in the first folder."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in folder.glob("*.yaml"):
            found.setdefault(path.name, path)
    return [found[name] for name in sorted(found)]


def _find(name: str | Path, folders: Iterable[Path]) -> Path | None:
    """Returns the path of this name, with or without its suffix, in the first folder that has it."""
    name = Path(name)
    candidates = (folder / named for folder in folders for named in (name, _with_suffix(name)))
    return next(filter(_is_file, candidates), None)


def _with_suffix(name: Path) -> Path:
    return name if name.suffix in (".yaml", ".yml") else name.parent / f"{name.name}.yaml"


def _is_file(path: Path) -> bool:
    """Returns whether a path is a file; False if its name is too long for the file system."""
    try:
        return path.is_file()
    except OSError:
        return False
