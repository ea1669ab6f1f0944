"""Trainers of three network sizes on random images."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from gan import build
from gan.config import Config
from gan.config.loading import override_config
from gan.data import ImageData
from gan.training.graph import Choice, choose_step
from gan.training.trainer import Trainer


class Size(NamedTuple):
    """Number of real images per discriminator step, and the widths of both networks."""

    batch: int
    generator: int
    discriminator: int

    def __str__(self) -> str:
        return f"batch {self.batch}, generator {self.generator}, discriminator {self.discriminator} channels"


SIZES = {"full": Size(64, 256, 128), "quarter": Size(32, 64, 32), "small": Size(4, 8, 8)}


def configure(size: Size, overrides: Sequence[str] = ()) -> Config:
    """Configuration of the published recipe at a size, with overrides such as "train.precision=bf16"."""
    sizes = [
        f"train.batch_size={size.batch}",
        f"generator.channels={size.generator}",
        f"discriminator.channels={size.discriminator}",
    ]
    return override_config(Config(), [*sizes, *overrides], "benchmark")


def make_trainer(config: Config, device: str, num_classes: int = 0) -> Trainer:
    """Trainer as gan-train builds it, on 1,024 random images of `num_classes` classes; 0: unconditional."""
    pixels = config.data.image_size
    shape = (1024, 3, pixels, pixels)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(len(images)) % max(1, num_classes)
    data = ImageData(images, labels, tuple(map(str, range(num_classes))) or ("any",), "random", "train")
    return Trainer(
        build.build_state(config, device, num_classes=num_classes),
        build.build_batches(config, data, device),
        build.build_loss(config),
        config.train,
        z_dim=config.generator.z_dim,
        batched=torch.device(device).type == "cuda",
    )


def make_step(config: Config, device: str) -> Choice:
    """Training step, plain or fast, that gan-train chooses according to train.fast."""
    return make_trainer_and_step(config, device)[1]


def make_trainer_and_step(config: Config, device: str, num_classes: int = 0) -> tuple[Trainer, Choice]:
    """Trainer, see `make_trainer`, and its training step, plain or fast, that gan-train chooses by train.fast."""
    trainer = make_trainer(config, device, num_classes)
    return trainer, choose_step(trainer)
