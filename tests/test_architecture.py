"""Who may import whom: docs/design.md and the rules behind it, held by reading the imports."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("gan", "evaluation")
    for path in (ROOT / package).rglob("*.py")
}
FAMILIES = (
    "gan.normalization",
    "gan.models",
    "gan.losses",
    "gan.data",
    "gan.noise",
    "gan.training.ema",
    "gan.runtime.distributed",
)


def imports_of(name: str) -> set[str]:
    """Every module of this project that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: imports are absolute"
            module = node.module or ""
            found |= {f"{module}.{alias.name}" if f"{module}.{alias.name}" in FILES else module for alias in node.names}
    return {module for module in found if module.split(".")[0] in ("gan", "evaluation", "torch", "numpy")}


def family_of(name: str) -> str | None:
    return next((family for family in FAMILIES if name == family or name.startswith(family + ".")), None)


@pytest.mark.parametrize("name", sorted(FILES))
def test_evaluation_never_imports_gan(name: str) -> None:
    if name.split(".")[0] == "evaluation":
        assert not [module for module in imports_of(name) if module.split(".")[0] == "gan"]


@pytest.mark.parametrize("name", sorted(FILES))
def test_only_the_commands_import_evaluation(name: str) -> None:
    if name.split(".")[0] == "gan" and name not in ("gan.train", "gan.evaluate", "gan.evaluate_classifier"):
        assert not [module for module in imports_of(name) if module.split(".")[0] == "evaluation"]


@pytest.mark.parametrize("name", sorted(FILES))
def test_families_import_nothing_of_each_other(name: str) -> None:
    own = family_of(name)
    if own is None:
        return
    allowed = {own, "gan.errors"} | ({"gan.noise", "gan.runtime.distributed"} if own == "gan.data" else set())
    ours = {module for module in imports_of(name) if module.split(".")[0] == "gan"}
    assert not {module for module in ours if (family_of(module) or module) not in allowed}


def test_config_imports_no_torch() -> None:
    for name in (name for name in FILES if name.split(".")[:2] == ["gan", "config"]):
        assert all(module == "gan.errors" or module.startswith("gan.config") for module in imports_of(name))


def test_the_trainer_is_handed_finished_objects() -> None:
    assert not {"gan.build", "gan.runs.checkpoint", "gan.models"} & imports_of("gan.training.trainer")


def test_nothing_below_imports_build() -> None:
    above = {"gan.train", "gan.evaluate", "gan.sample", "gan.train_classifier", "gan.evaluate_classifier"}
    assert {name for name in FILES if "gan.build" in imports_of(name)} <= above


def test_every_file_is_in_a_listed_package() -> None:
    setup = (ROOT / "setup.cfg").read_text()
    for name, path in FILES.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        assert f"    {package}\n" in setup, f"{package} is missing in setup.cfg"
