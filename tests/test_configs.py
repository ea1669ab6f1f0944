"""Tests of all installed configurations and variants with narrow networks: training, resuming, evaluation, samples."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from commands import done
from equality import same

from gan.config import available_configs, load_config
from gan.config.files import find_variants
from gan.data import ImageData
from gan.data.packed import pack
from gan.evaluate import main as gan_eval
from gan.runs.checkpoint import read_checkpoint
from gan.runs.finding import list_checkpoints
from gan.sample import main as gan_sample
from gan.train import main as gan_train


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Packed random images of a size in three classes: 24 for training and 24 for testing."""
    found: dict[int, Path] = {}

    def make(size: int) -> Path:
        if size not in found:
            random = torch.Generator().manual_seed(size)
            splits = {
                split: ImageData(
                    torch.randint(0, 256, (24, 3, size, size), dtype=torch.uint8, generator=random),
                    torch.arange(24) % 3,
                    ("a", "b", "c"),
                    "folder",
                    split,
                )
                for split in ("train", "test")
            }
            folder = tmp_path_factory.mktemp("random") / str(size)
            found[size] = pack(splits, folder, image_size=size, crop=0, resize="none", overwrite=False)
        return found[size]

    return make


def call(command: object, *arguments: object) -> Result:
    return done(CliRunner().invoke(command, [str(argument) for argument in arguments]))


SHORT = [
    ("smoke", ()),
    ("cifar10_cond_srn70", ("compact",)),
    ("cifar10_sndcgan_sn", ()),
    ("stl10_sn", ()),
    ("cifar10_wgan_gp", ("jpeg",)),
    ("celeba_sn", ("small64",)),
]
FITTING = {"small64": "celeba_sn"}
LONG = [
    *((name, ()) for name in available_configs()),
    *((FITTING.get(variant, "cifar10_sn"), (variant,)) for variant in find_variants("gan")),
]
"""Configurations, each with variants."""


@pytest.mark.parametrize(
    ("name", "variants"), [*SHORT, *(pytest.param(*case, marks=pytest.mark.slow) for case in LONG if case not in SHORT)]
)
def test_a_configuration_trains_resumes_evaluates_and_samples(
    name: str, variants: tuple[str, ...], tmp_path: Path, packed: Callable[[int], Path]
) -> None:
    config = load_config(name, variants=variants)
    narrow = [
        *("data.name=folder", f"data.root={packed(config.data.image_size)}", "data.resize=none", "data.crop=0"),
        *("generator.channels=2", "discriminator.channels=4", "train.batch_size=2", "train.steps=10"),
        *(f"train.d_steps={min(2, config.train.d_steps)}", "train.lr_decay_start=0", "train.eval_every=0"),
        *("train.checkpoint_every=5", "eval.extractor=pixels", "eval.num_fid=16", "eval.num_real=16"),
    ]
    composed = ["--config", name, *(f"--with={variant}" for variant in variants)]
    settings = [*composed, "--device=cpu", *(f"--set={override}" for override in narrow)]
    call(gan_train, *settings, "--run", tmp_path / "whole")
    call(gan_train, *settings, "--run", tmp_path / "parts", "--stop-after=5")
    call(gan_train, *settings, "--run", tmp_path / "parts", "--resume")
    whole, parts = (read_checkpoint(list_checkpoints(tmp_path / run)[-1]) for run in ("whole", "parts"))
    assert whole.state["step"] == 10
    same(whole.state, parts.state)
    call(gan_eval, "--run", tmp_path / "whole", "--metrics=fid", "--device=cpu", "--out", tmp_path / "report")
    assert (tmp_path / "report" / "report.json").is_file()
    call(gan_sample, "--run", tmp_path / "whole", "--num=4", "--device=cpu", "--out", tmp_path / "images")
    assert len(list((tmp_path / "images").rglob("*.png"))) == 4
