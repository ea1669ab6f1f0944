"""Fixtures: small configurations, data and runs."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from capturing import meta_device as meta_device
from click.testing import Result
from commands import call, done
from hypothesis import HealthCheck, settings

from gan.config import Config, load_config
from gan.data import ImageData, load_images
from gan.data.packed import pack, verify_packed

Train = Callable[..., Result]

# The same examples in every run, so that a failure comes from the change at hand; "thorough" searches for new ones.
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
    """Hides the user's caches and any weights on the machine from every test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path_factory.getbasetemp() / "torch"))
    monkeypatch.delenv("INCEPTION_WEIGHTS", raising=False)
    monkeypatch.delenv("CLASSIFIER_WEIGHTS", raising=False)


@pytest.fixture(scope="session")
def small_shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packed data set of 600 training and 300 test images of `shapes`."""
    splits = {}
    for split, count in (("train", 600), ("test", 300)):
        drawn = load_images("shapes", root="", split=split, image_size=32, crop=0, resize="none", download=False)
        splits[split] = ImageData(drawn.images[:count], drawn.labels[:count], drawn.classes, drawn.name, split)
    folder = tmp_path_factory.mktemp("data") / "shapes"
    return pack(splits, folder, image_size=32, crop=0, resize="none", overwrite=False)


@pytest.fixture(scope="session")
def other_shapes(tmp_path_factory: pytest.TempPathFactory, small_shapes: Path) -> Callable[[str], Path]:
    """Packs the data set `small_shapes` with the images of a split inverted; returns its folder."""

    def make(changed: str) -> Path:
        splits = verify_packed(small_shapes)
        splits[changed] = replace(splits[changed], images=255 - splits[changed].images, stored_fingerprint="")
        folder = tmp_path_factory.mktemp("data") / changed
        return pack(splits, folder, image_size=32, crop=0, resize="none", overwrite=False)

    return cache(make)


@pytest.fixture
def smoke(small_shapes: Path) -> Callable[..., Config]:
    """Loads configs/smoke.yaml on few images, with overrides."""
    return lambda *overrides: load_config("smoke", [f"data.root={small_shapes}", *overrides])


@pytest.fixture
def train(tmp_path: Path, small_shapes: Path) -> Train:
    """Runs gan-train on the smoke configuration in `tmp_path / run`; further arguments are the command's."""
    return lambda run, *arguments: train_smoke(small_shapes, tmp_path / run, *arguments)


def train_smoke(small_shapes: Path, run: Path, *arguments: object) -> Result:
    """Runs gan-train on the smoke configuration."""
    return call(
        "gan-train", "--config=smoke", f"--set=data.root={small_shapes}", "--device=cpu", f"--run={run}", *arguments
    )


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, small_shapes: Path) -> Callable[..., Path]:
    """Returns a run of the smoke configuration with these settings, trained at the first call; must not be changed.

    Call it before patching anything that affects training, because the run is shared.
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
    """Copies a trained run to `tmp_path / run`, where a test may change it."""
    return lambda run, *settings: shutil.copytree(trained(*settings), tmp_path / run)
