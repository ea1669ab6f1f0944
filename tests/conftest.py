"""Small configurations and runs for the tests."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, settings

from gan.config import Config, load_config
from gan.data import ImageData, load_images
from gan.data.packed import pack
from gan.train import main as gan_train

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
def train(tmp_path: Path, small_shapes: Path) -> Callable[..., Result]:
    """Runs gan-train on the smoke configuration in `tmp_path / run`; further arguments as on the command line."""

    def call(run: str, *arguments: str) -> Result:
        start = ["--config", "smoke", "--set", f"data.root={small_shapes}", "--device", "cpu"]
        return CliRunner().invoke(gan_train, [*start, "--run", str(tmp_path / run), *arguments])

    return call
