"""Writes losses.json beside this file: both losses of ten training steps for every normalization.

    python tests/golden/make_losses.py --missing    # adds a new normalization, keeps all other numbers
    python tests/golden/make_losses.py

Run the second after an intended change of the numbers, and name the cause in the commit. The images are noise, so the
numbers depend on no data set, drawing or decoding library.
"""

import json
import sys
from pathlib import Path

import torch

from gan import build
from gan.config import Config, load_config
from gan.data import Batches, ImageData
from gan.noise import random_generator
from gan.normalization import NORMALIZATIONS
from gan.training.trainer import Trainer

FILE = Path(__file__).with_name("losses.json")
STEPS, CLASSES = 10, 3
CASES: dict[str, tuple[str, ...]] = {
    **{name: (f"discriminator.normalization={name}",) for name in NORMALIZATIONS},
    "ssn": ("discriminator.normalization=ssn", "discriminator.scale=2"),
    "bssn": ("discriminator.normalization=bssn", "discriminator.scale=2"),
    "srn conditional": ("discriminator.normalization=srn", "conditional=true"),
    "srn bf16": ("discriminator.normalization=srn", "train.precision=bf16"),
}
"""Overrides of configs/smoke.yaml. With the default scale, ssn and bssn would equal sn and bsn."""

TOLERANCES = {
    **{name: 5e-3 for name, entry in NORMALIZATIONS.items() if entry.penalty == "gradient"},
    "srn bf16": 2e-2,
}
TOLERANCE = 1e-4
"""Maximum difference of losses: relative above 1, absolute below. Adam turns the rounding of small gradients into
steps, so differences grow with the steps. Measured over the ten, as the largest difference between 1 and 2 threads,
weights with channels last and contiguous, normalized one by one and together, and kernels with AVX-512, AVX2 and
neither: 1.6e-5; with the gradient penalty, whose gradient goes through a square root and second derivatives, 5e-4; with
bfloat16, whose numbers have 8 bits, 1.6e-3. Each bound is about six to ten times that.
"""


def config_of(case: str) -> Config:
    """Configuration of a case."""
    return load_config("smoke", [*CASES[case], "train.flip=true", "train.log_every=1"])


def noise_images() -> ImageData:
    """Noise images in 3 classes: 40, or two and a half batches, so that an epoch ends within a batch."""
    random = random_generator(0, "golden images")
    pixels = torch.randint(256, (40, 3, 32, 32), dtype=torch.uint8, generator=random)
    classes = tuple(f"class {number}" for number in range(CLASSES))
    return ImageData(pixels, torch.arange(40) % CLASSES, classes, "noise", "train")


def losses_of(case: str) -> dict[str, list[float]]:
    """d_loss and g_loss of each of STEPS steps."""
    config = config_of(case)
    state = build.build_state(config, "cpu", CLASSES if config.conditional else 0)
    train = config.train
    batches = Batches(noise_images(), train.batch_size, seed=train.seed, device="cpu", flip=train.flip)
    trainer = Trainer(state, batches, build.build_loss(config), train, z_dim=config.generator.z_dim)
    losses: dict[str, list[float]] = {"d_loss": [], "g_loss": []}
    for _ in range(STEPS):
        trainer.train_step()
        scalars = trainer.take_scalars()
        for name, values in losses.items():
            values.append(scalars[name])
    return losses


if __name__ == "__main__":
    kept = json.loads(FILE.read_text()) if sys.argv[1:] == ["--missing"] else {}
    FILE.write_text(json.dumps({case: kept.get(case) or losses_of(case) for case in CASES}, indent=1) + "\n")
