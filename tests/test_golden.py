"""Tests that files of earlier versions remain readable."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner

from gan.build import checkpoint_config, load_discriminator, load_generator
from gan.data import ImageData
from gan.data.packed import pack
from gan.runs.checkpoint import read_checkpoint
from gan.train import main as gan_train

GOLDEN = Path(__file__).parent / "golden" / "checkpoint-format1.pt"
LATENTS = torch.tensor([[0.5, -1.0, 1.5, -2.0], [1.0, 0.0, -0.5, 0.25]])
LABELS = torch.tensor([0, 1])


@pytest.fixture
def gradients(tmp_path: Path) -> Path:
    """Training images of the golden checkpoint: pixel (n, c, y, x) is (37 n + 85 c + 7 y + 3 x) mod 256."""
    n, c, y, x = (torch.arange(size) for size in (16, 3, 32, 32))
    images = 37 * n[:, None, None, None] + 85 * c[:, None, None] + 7 * y[:, None] + 3 * x
    data = ImageData((images % 256).to(torch.uint8), n % 2, ("even", "odd"), "shapes", "train")
    return pack({"train": data}, tmp_path / "gradients", image_size=32, crop=0, resize="none", overwrite=False)


def test_format_1_loads() -> None:
    """Made by revision e456ce0 with one thread on a CPU, torch 2.15, before files had a digest and when
    train.keep_last was called keep_checkpoints:

    gan-train --config smoke --device cpu --run golden --set data.root=gradients --set generator.channels=2
    --set discriminator.channels=4 --set generator.z_dim=4 --set train.batch_size=2 --set train.ema_decay=0.9
    --set conditional=true --set train.steps=8 --set train.keep_checkpoints=3 --set train.log_every=2 --stop-after 4
    """
    checkpoint = read_checkpoint(GOLDEN)
    assert checkpoint.state["step"] == 4
    assert checkpoint.config["train"]["keep_checkpoints"] == 3
    assert checkpoint_config(checkpoint).train.keep_last == 3
    assert torch.load(GOLDEN, weights_only=True)["format"] == 1


@pytest.mark.parametrize(
    ("ema", "means", "pixels", "logits"),
    [
        (True, [0.0748690379, 0.0260224118], [0.3542529345, 0.0187551491], [-0.1359612942, -1.2640280724]),
        (False, [0.0745724526, 0.0259944393], [0.3531928658, 0.0185294673], [-0.1170669794, -1.2486044168]),
    ],
)
def test_format_1_generates_what_it_did(
    ema: bool, means: list[float], pixels: list[float], logits: list[float]
) -> None:
    """Expected images are from the same revision. Tolerance: float32 summation order on another processor."""
    images = load_generator(GOLDEN, ema=ema)(LATENTS, LABELS)
    assert images.mean((1, 2, 3)).tolist() == pytest.approx(means, abs=1e-5)
    assert images[:, 1, 5, 7].tolist() == pytest.approx(pixels, abs=1e-4)
    assert load_discriminator(GOLDEN)(images, LABELS).tolist() == pytest.approx(logits, abs=1e-4)


def test_format_1_resumes(tmp_path: Path, gradients: Path) -> None:
    """Four more steps give the losses that this revision gave in steps 7 and 8."""
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    shutil.copy(GOLDEN, run / "checkpoints" / "step-00000004.pt")
    (run / "config.yaml").write_text(yaml.safe_dump(read_checkpoint(GOLDEN).config))
    arguments = ["--run", str(run), "--resume", "--set", f"data.root={gradients}", "--device", "cpu"]
    result = CliRunner().invoke(gan_train, arguments)
    assert result.exit_code == 0, result.output
    assert read_checkpoint(run).state["step"] == 8
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    expected = {"d_loss": 2.00252068, "real_logit": -0.51656026, "fake_logit": -1.80958800, "g_loss": 2.26544857}
    assert {name: last[name] for name in expected} == pytest.approx(expected, abs=1e-3)
