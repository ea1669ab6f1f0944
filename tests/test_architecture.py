"""Rules of docs/design.md on which module may import which, checked by reading the imports."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
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
LONGEST_FUNCTION = 77  # lines
FAMILIES = (
    "gan.normalization",
    "gan.models",
    "gan.losses",
    "gan.data",
    "gan.noise",
    "gan.training.ema",
    "gan.runtime.distributed",
)


@cache
def imports_of(name: str) -> set[str]:
    """Modules of this project, torch and numpy that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: imports are absolute"
            inside = {f"{node.module}.{alias.name}": node.module for alias in node.names}
            found |= {one if one in FILES else module for one, module in inside.items()}
    return {one for one in found if one.split(".")[0] in ("gan", "evaluation", "torch", "numpy")}


def imports_of_package(importer: str, imported: str) -> dict[str, set[str]]:
    """Modules of one package that import from another, with what they import."""
    names = (name for name in FILES if name.split(".")[0] == importer)
    found = {name: {one for one in imports_of(name) if one.split(".")[0] == imported} for name in names}
    return {name: modules for name, modules in found.items() if modules}


def family_of(name: str) -> str | None:
    return next((family for family in FAMILIES if name == family or name.startswith(family + ".")), None)


def test_evaluation_never_imports_gan() -> None:
    assert imports_of_package("evaluation", "gan") == {}


def test_only_the_commands_import_evaluation() -> None:
    """gan.config embeds the settings of evaluation, which import no torch."""
    others = {
        name: modules
        for name, modules in imports_of_package("gan", "evaluation").items()
        if not (name.startswith("gan.config") and all(module.startswith("evaluation.settings") for module in modules))
    }
    assert others.keys() <= {"gan.train", "gan.evaluate", "gan.evaluate_classifier"}


def test_families_import_nothing_of_each_other() -> None:
    offenders = {}
    for name in FILES:
        own = family_of(name)
        allowed = {own, "gan.errors"} | ({"gan.noise", "gan.runtime.distributed"} if own == "gan.data" else set())
        ours = {module for module in imports_of(name) if module.split(".")[0] == "gan"} if own else set()
        offenders[name] = {module for module in ours if (family_of(module) or module) not in allowed}
    assert not {name: modules for name, modules in offenders.items() if modules}


def test_config_imports_no_torch() -> None:
    for name in (name for name in FILES if name.split(".")[:2] == ["gan", "config"]):
        allowed = ("gan.errors", "gan.config", "evaluation.settings")
        assert all(module.startswith(allowed) for module in imports_of(name))


def test_training_is_handed_finished_objects() -> None:
    """And a log to write to: it knows neither run folders nor how objects are built."""
    found = {name: imports_of(name) for name in FILES if name.startswith("gan.training")}
    above = ("gan.build", "gan.models", "gan.runs", "gan.launch")
    assert not {name: modules for name, modules in found.items() if any(one.startswith(above) for one in modules)}


def test_nothing_below_imports_build() -> None:
    above = {"gan.train", "gan.evaluate", "gan.sample", "gan.train_classifier", "gan.evaluate_classifier"}
    assert {name for name in FILES if "gan.build" in imports_of(name)} <= above


def definitions(kind: type[ast.FunctionDef] | type[ast.ClassDef]) -> Iterator[tuple[str, int]]:
    """Name with its file, and number of lines, of every function or class."""
    for path in (path for package in ("gan", "evaluation", "tools") for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, kind):
                yield f"{path.relative_to(ROOT)}: {node.name}", (node.end_lineno or 0) - node.lineno + 1


def test_functions_fit_a_screen() -> None:
    """Options of commands count: they stand in the signature."""
    assert not {name: length for name, length in definitions(ast.FunctionDef) if length > LONGEST_FUNCTION}


def test_a_public_class_has_a_name_of_its_own() -> None:
    """Settings are evaluation's and, until both have one schema, the sections of a configuration."""
    times = Counter(name.rpartition(" ")[2] for name, _ in definitions(ast.ClassDef))
    assert not {name for name, count in times.items() if count > 1 and not name.startswith("_")} - {"Settings"}


def test_every_file_is_in_a_listed_package() -> None:
    setup = (ROOT / "setup.cfg").read_text()
    for name, path in FILES.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        assert f"    {package}\n" in setup, f"{package} is missing in setup.cfg"


def test_metrics_need_no_pages_and_no_plots() -> None:
    """Values are data: whoever returns one imports neither matplotlib nor the writers of reports."""
    found = imports_of("evaluation.reporting.value")
    assert not {module for module in found if module.startswith("evaluation.reporting")}


def test_evaluation_has_no_circular_imports() -> None:
    """Imports for type checkers only and inside functions count, too."""
    below = {name: imports_of(name) & FILES.keys() for name in FILES if name.split(".")[0] == "evaluation"}
    while free := {name for name, imported in below.items() if not imported & below.keys()}:
        below = {name: imported for name, imported in below.items() if name not in free}
    assert not below, "these modules import each other, or import modules that do"


@pytest.mark.parametrize("module", ["evaluation", "evaluation.settings", "gan.config", "gan.config.classifier"])
def test_evaluation_is_imported_without_torch(module: str) -> None:
    code = f"import sys, {module}; assert not {{'torch', 'numpy'}} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_evaluation_lists_its_public_names() -> None:
    names = set(evaluation.__all__)
    assert {"METRICS", "Settings", "evaluate"} <= names <= set(dir(evaluation))
    assert all(hasattr(evaluation, name) for name in names)
    assert not hasattr(evaluation, "nothing")
