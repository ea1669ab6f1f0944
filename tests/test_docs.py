"""Tests that the examples in README and docs run, and that the pages list every setting and name."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from evaluation import EXTRACTORS, METRICS
from gan.build import REGISTRIES
from gan.build_classifier import classifier_registries
from gan.config import Config
from gan.config.classifier import ClassifierConfig
from gan.config.loading import leaves
from gan.data import AUGMENTATIONS
from gan.train import main as gan_train

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
REGISTERING = [
    ROOT / place
    for place in (
        "evaluation/extractors/__init__.py",
        "evaluation/metrics/__init__.py",
        "gan/data/__init__.py",
        "gan/losses.py",
        "gan/models/__init__.py",
        "gan/models/classifiers/__init__.py",
        "gan/normalization/__init__.py",
        "gan/normalization/penalties.py",
    )
]
"""Modules with the registries; a docstring there documents an entry as well as a page."""
PAGES = [ROOT / "README.md", ROOT / "LOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_python_of_the_readme_runs(
    copied: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copied("runs/quickstart", "train.steps=1", "conditional=true")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    assert tuple(names["images"].shape) == (16, 3, 32, 32)  # type: ignore[attr-defined]
    assert float(capsys.readouterr().out) <= 32 * 1.01


def test_the_training_commands_of_the_readme_are_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every gan-train line without --resume is accepted with --dry-run, in tables too."""
    monkeypatch.chdir(tmp_path)
    lines = re.findall(r"gan-train (--config [^`#\n]*)", README)
    assert len(lines) >= 5
    for line in lines:
        if "--resume" not in line:
            result = CliRunner().invoke(gan_train, [*line.split(), "--dry-run"])
            assert result.exit_code == 0, (line, result.output)


def test_every_setting_is_documented() -> None:
    """The table of docs/configuration.md has each setting's last name or a dotted form of it."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    missing = [
        place for place, _, _ in leaves(Config()) if f".{place.split('.')[-1]}`" not in text and place not in text
    ]
    assert not missing


def test_every_setting_of_classifiers_is_documented() -> None:
    """docs/classifiers.md lists all settings except those of data, which GANs share."""
    text = (ROOT / "docs" / "classifiers.md").read_text()
    shared = {place for place, _, _ in leaves(Config()) if place.startswith("data.")}
    places = {place for place, _, _ in leaves(ClassifierConfig())} - shared
    assert not [place for place in places if f".{place.split('.')[-1]}`" not in text and place not in text]


def test_the_python_of_the_classifiers_page_runs(
    small_shapes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs" / "classifiers.md").read_text()
    (code,) = (found for found in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "take_epoch" in found)
    small = f'"data.root={small_shapes}", "train.epochs=1", "data.num_train=100", "classifier.normalization=sn"'
    exec(code.replace('"classifier.normalization=sn"', small), {})
    assert "Epoch(epoch=1" in capsys.readouterr().out


def test_every_registered_name_is_documented() -> None:
    text = "".join(page.read_text() for page in (*PAGES, *REGISTERING))
    lists = {"--metrics": METRICS, "eval.extractor": EXTRACTORS, "train.augment": AUGMENTATIONS}
    for place, registry in (REGISTRIES | classifier_registries() | lists).items():
        missing = [name for name in registry if f"`{name}`" not in text]
        assert not missing, f"{place}: name each in backticks, in docs/ or a docstring of the module with the registry"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_waits_for_a_number(page: Path) -> None:
    assert not re.search(r"[A-Z]+_NUMBERS|@[A-Z]+@|TODO|TBD", page.read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target
