"""Small configurations and runs for the tests."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from commands import call, done
from hypothesis import HealthCheck, settings

from gan.config import Config, load_config
from gan.data import ImageData, load_images
from gan.data.packed import pack

Train = Callable[..., Result]

# The same examples in every run: a failure is about the change at hand. `--hypothesis-profile=thorough` explores.
settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
settings.register_profile(
    "thorough", max_examples=3000, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's caches, or finds weights that happen to lie on the machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path_factory.getbasetemp() / "torch"))
    monkeypatch.delenv("INCEPTION_WEIGHTS", raising=False)
    monkeypatch.delenv("CLASSIFIER_WEIGHTS", raising=False)


@pytest.fixture(scope="session")
def small_shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 training and 300 test images of `shapes`, drawn once and packed."""
    splits = {}
    for split, count in (("train", 600), ("test", 300)):
        drawn = load_images("shapes", root="", split=split, image_size=32, crop=0, resize="none", download=False)
        splits[split] = ImageData(drawn.images[:count], drawn.labels[:count], drawn.classes, drawn.name, split)
    folder = tmp_path_factory.mktemp("data") / "shapes"
    return pack(splits, folder, image_size=32, crop=0, resize="none", overwrite=False)


@pytest.fixture
def smoke(small_shapes: Path) -> Callable[..., Config]:
    """configs/smoke.yaml on few images, with overrides."""
    return lambda *overrides: load_config("smoke", [f"data.root={small_shapes}", *overrides])


@pytest.fixture
def train(tmp_path: Path, small_shapes: Path) -> Train:
    """Runs gan-train on the smoke configuration in `tmp_path / run`; further arguments as on the command line."""
    return lambda run, *arguments: train_smoke(small_shapes, tmp_path / run, *arguments)


def train_smoke(small_shapes: Path, run: Path, *arguments: object) -> Result:
    return call(
        "gan-train", "--config=smoke", f"--set=data.root={small_shapes}", "--device=cpu", f"--run={run}", *arguments
    )


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, small_shapes: Path) -> Callable[..., Path]:
    """A run of the smoke configuration with these settings, trained when first asked for; tests only read it.

    Ask before patching anything that trains: others get the same run.
    """
    made: dict[tuple[str, ...], Path] = {}

    def run(*settings: str) -> Path:
        if settings not in made:
            folder = tmp_path_factory.mktemp("trained") / "run"
            done(train_smoke(small_shapes, folder, *(f"--set={setting}" for setting in settings)))
            made[settings] = folder
        return made[settings]

    return run


@pytest.fixture
def copied(trained: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """A copy of a trained run in `tmp_path / run`, to be changed or added to."""
    return lambda run, *settings: shutil.copytree(trained(*settings), tmp_path / run)
