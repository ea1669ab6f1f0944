"""Tests that the losses of ten steps per normalization equal tests/golden/losses.json."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from gan.normalization import NORMALIZATIONS


def _make_losses() -> ModuleType:
    path = Path(__file__).with_name("golden") / "make_losses.py"
    spec = importlib.util.spec_from_file_location("make_losses", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


golden = _make_losses()


def test_every_normalization_has_its_losses() -> None:
    assert json.loads(golden.FILE.read_text()).keys() == golden.CASES.keys() >= NORMALIZATIONS.keys(), (
        "run python tests/golden/make_losses.py --missing"
    )


@pytest.mark.parametrize("case", golden.CASES)
def test_the_losses_of_ten_steps_are_what_they_were(case: str) -> None:
    """make_losses.py defines the tolerances and says how they were measured."""
    expected = json.loads(golden.FILE.read_text())[case]
    tolerance = golden.TOLERANCES.get(case, golden.TOLERANCE)
    for name, losses in golden.losses_of(case).items():
        assert losses == pytest.approx(expected[name], rel=tolerance, abs=tolerance), name
