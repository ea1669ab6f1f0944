"""Tests of the import rules in docs/design.md and of limits on the size of modules and functions."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

import evaluation

ROOT = Path(__file__).resolve().parent.parent
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("gan", "evaluation")
    for path in (ROOT / package).rglob("*.py")
}
LONGEST_FUNCTION = 50  # lines
FAMILIES = (
    "gan.normalization",
    "gan.models",
    "gan.losses",
    "gan.data",
    "gan.noise",
    "gan.training.ema",
    "gan.runtime.distributed",
)
COMMANDS = {
    f"gan.{name}"
    for name in ("train", "train_classifier", "evaluate", "evaluate_classifier", "sample", "plot", "export")
}
MOST_IMPORTS = 15
MOST_MODULES, MOST_MODULES_WITH_ADDITIONS = 12, 18
GROWING = {ROOT / place for place in ("gan/data", "gan/models", "gan/normalization", "evaluation/metrics")}
"""Folders to which docs/extending.md adds a module per entry of a registry."""


@cache
def imports_of(name: str) -> set[str]:
    """Modules of this project, torch and numpy that a module imports, inside functions included."""
    return _imports(name, ast.walk(ast.parse(FILES[name].read_text())))


@cache
def top_imports_of(name: str) -> set[str]:
    """Modules that are loaded when this one is imported."""
    return _imports(name, ast.iter_child_nodes(ast.parse(FILES[name].read_text())))


def _imports(name: str, nodes: Iterable[ast.AST]) -> set[str]:
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: imports are absolute"
            inside = {f"{node.module}.{alias.name}": node.module for alias in node.names}
            found |= {one if one in FILES else module for one, module in inside.items()}
    return {one for one in found if one.split(".")[0] in ("gan", "evaluation", "torch", "numpy", "matplotlib")}


def package_of(name: str) -> str:
    """Package directly below `gan` or `evaluation` that contains a module."""
    return ".".join(name.split(".")[:2])


def imports_of_package(importer: str, imported: str) -> dict[str, set[str]]:
    """Modules of one package that import from another, with the imported modules."""
    names = (name for name in FILES if name.split(".")[0] == importer)
    found = {name: {one for one in imports_of(name) if one.split(".")[0] == imported} for name in names}
    return {name: modules for name, modules in found.items() if modules}


def family_of(name: str) -> str | None:
    return next((family for family in FAMILIES if name == family or name.startswith(family + ".")), None)


def test_evaluation_never_imports_gan() -> None:
    assert imports_of_package("evaluation", "gan") == {}


def test_only_the_bridge_imports_evaluation() -> None:
    """Networks, data and runs do not depend on metrics, so each half can be used and changed alone.

    gan.measuring connects them; commands and tools may import both. Three exceptions depend on neither torch nor
    networks: the evaluation settings are a section of the configuration, both halves share one image reader, and all
    commands prepare the terminal and refuse empty arguments in the same way.
    """
    exceptions = {
        "gan.config": "evaluation.settings",
        "gan.data": "evaluation.images.reader",
        "gan.command": ("evaluation.runtime.terminal", "evaluation.runtime.command"),
    }
    offenders = {}
    for name, modules in imports_of_package("gan", "evaluation").items():
        if name not in COMMANDS and package_of(name) != "gan.measuring":
            allowed = exceptions.get(package_of(name), "nothing")
            offenders[name] = {module for module in modules if not module.startswith(allowed)}
    assert not {name: modules for name, modules in offenders.items() if modules}


def test_nothing_below_imports_a_command() -> None:
    """Commands do not import each other: shared code is in the library, where Python callers can use it."""
    assert not {name: imports_of(name) & COMMANDS for name in FILES if imports_of(name) & COMMANDS}


def test_the_library_does_not_import_the_command_line() -> None:
    """gan.command parses options and prints; runs, training and launching work without it."""
    users = {name for name in FILES if any(package_of(module) == "gan.command" for module in imports_of(name))}
    assert {name for name in users if package_of(name) != "gan.command"} <= COMMANDS


def test_commands_load_torch_only_when_they_work() -> None:
    """Top-level imports of a command suffice for --help: click, the configuration and other modules without torch."""
    seen, left = set(), [*COMMANDS]
    while left:
        name = left.pop()
        if name not in seen:
            seen.add(name)
            left += [module for module in top_imports_of(name) if module in FILES]
    heavy = {name: top_imports_of(name) & {"torch", "numpy", "matplotlib"} for name in seen}
    assert not {name: modules for name, modules in heavy.items() if modules}
    allowed = {"evaluation.settings", "evaluation.errors", "evaluation.runtime"}
    assert {package_of(name) for name in seen if name.startswith("evaluation")} <= allowed


@pytest.mark.parametrize("package", ["gan", "evaluation"])
def test_there_are_no_circular_imports(package: str) -> None:
    """Imports inside functions and for type checkers are counted too."""
    below = {name: imports_of(name) & FILES.keys() for name in FILES if name.split(".")[0] == package}
    while free := {name for name, imported in below.items() if not imported & below.keys()}:
        below = {name: imported for name, imported in below.items() if name not in free}
    assert not below, "these modules import each other, or import modules that do"


def test_folders_are_small() -> None:
    tools = {path.parent for path in (ROOT / "tools").rglob("*.py")}
    for folder in {path.parent for path in FILES.values()} | tools:
        modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        packages = [path.parent for path in folder.glob("*/__init__.py")]
        most = MOST_MODULES_WITH_ADDITIONS if folder in GROWING else MOST_MODULES
        assert len(modules) <= most, f"{folder} has too many modules: group some into a package of their own"
        assert len(packages) <= MOST_MODULES, f"{folder} has too many packages: group some"


def test_no_module_needs_many_others() -> None:
    counts = {name: len([module for module in imports_of(name) if module in FILES]) for name in FILES}
    assert not {name: count for name, count in counts.items() if count > MOST_IMPORTS and name.startswith("gan")}


def test_families_import_nothing_of_each_other() -> None:
    offenders = {}
    for name in FILES:
        own = family_of(name)
        of_data = {"gan.noise", "gan.runtime.distributed", "gan.config"}  # of config, the sizes of networks
        allowed = {own, "gan.errors"} | (of_data if own == "gan.data" else set())
        ours = {module for module in imports_of(name) if module.split(".")[0] == "gan"} if own else set()
        offenders[name] = {module for module in ours if (family_of(module) or module) not in allowed}
    assert not {name: modules for name, modules in offenders.items() if modules}


def test_config_imports_no_torch() -> None:
    for name in (name for name in FILES if name.split(".")[:2] == ["gan", "config"]):
        allowed = ("gan.errors", "gan.config", "evaluation.settings")
        assert all(module.startswith(allowed) for module in imports_of(name))


def test_training_is_handed_finished_objects() -> None:
    """Training receives built objects and a log; it depends on neither run folders nor builders."""
    found = {name: imports_of(name) for name in FILES if name.startswith("gan.training")}
    above = ("gan.build", "gan.models", "gan.runs", "gan.launch")
    assert not {name: modules for name, modules in found.items() if any(one.startswith(above) for one in modules)}


def test_nothing_below_imports_build() -> None:
    """Only runs, sampling and evaluation build objects from names."""
    users = {name for name in FILES if {"gan.build", "gan.build_classifier"} & imports_of(name)}
    allowed = {"gan.runs.kinds.gan", "gan.runs.kinds.classifier", "gan.runs.samples", "gan.build_classifier"}
    assert {name for name in users if package_of(name) != "gan.measuring"} <= allowed


def definitions(kind: type[ast.FunctionDef] | type[ast.ClassDef]) -> Iterator[tuple[str, int]]:
    """Number of lines of every function or class, by name and file."""
    for path in (path for package in ("gan", "evaluation", "tools") for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, kind):
                yield f"{path.relative_to(ROOT)}: {node.name}", (node.end_lineno or 0) - node.lineno + 1


def test_functions_fit_a_screen() -> None:
    """Command options count, because they are in the signature."""
    assert not {name: length for name, length in definitions(ast.FunctionDef) if length > LONGEST_FUNCTION}


def test_a_public_class_has_a_name_of_its_own() -> None:
    """Exception: `Settings`, of evaluation and of sections of a configuration."""
    times = Counter(name.rpartition(" ")[2] for name, _ in definitions(ast.ClassDef))
    assert not {name for name, count in times.items() if count > 1 and not name.startswith("_")} - {"Settings"}


def test_every_file_is_in_a_listed_package() -> None:
    setup = (ROOT / "setup.cfg").read_text()
    for name, path in FILES.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        assert f"    {package}\n" in setup, f"{package} is missing in setup.cfg"


def test_metrics_need_no_pages_and_no_plots() -> None:
    """Modules that return values import neither matplotlib nor report writers."""
    found = imports_of("evaluation.reporting.value")
    assert not {module for module in found if module.startswith("evaluation.reporting")}


@pytest.mark.parametrize("module", ["evaluation", "evaluation.settings", "gan.config", "gan.config.classifier"])
def test_evaluation_is_imported_without_torch(module: str) -> None:
    code = f"import sys, {module}; assert not {{'torch', 'numpy'}} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_evaluation_lists_its_public_names() -> None:
    names = set(evaluation.__all__)
    assert {"METRICS", "Settings", "evaluate"} <= names <= set(dir(evaluation))
    assert all(hasattr(evaluation, name) for name in names)
    assert not hasattr(evaluation, "nothing")
