"""Tests of training on few images: DiffAugment in both updates, LeCam's penalty and its averages, JPEG files."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result
from commands import call, done, refused
from PIL import Image
from stepping import discriminator_step

from gan import build
from gan.config import Config
from gan.data.augment import augmented, num_draws
from gan.normalization import lecam_penalty
from gan.training.gradients import measure_gradients
from gan.training.trainer import Trainer

Smoke = Callable[..., Config]
AUGMENT = "train.augment=color,translation,cutout"
NAMES = ("color", "translation", "cutout")


def make_trainer(config: Config) -> Trainer:
    state = build.build_state(config)
    batches = build.build_batches(config, build.load_images(config, "train"), "cpu")
    return Trainer(state, batches, build.build_loss(config), config.train, z_dim=config.generator.z_dim)


def test_the_discriminator_sees_every_image_changed_by_numbers_of_its_own(smoke: Smoke) -> None:
    changed, plain = (make_trainer(smoke(*overrides)).iteration for overrides in ([AUGMENT], []))
    inputs = changed.draw_discriminator(3)
    (fake,) = plain.generate([inputs.fakes])
    both, before = changed.with_real(inputs, fake)[0], plain.with_real(plain.draw_discriminator(3), fake)[0]
    assert inputs.augmentation.shape == (8, 2 * num_draws(NAMES))
    assert torch.equal(both[:8], augmented(before[:8], inputs.augmentation[:, :7], NAMES))
    assert torch.equal(both[8:], augmented(before[8:], inputs.augmentation[:, 7:], NAMES))
    assert inputs.augmentation.unique().numel() > 100
    assert not torch.equal(inputs.augmentation, changed.draw_discriminator(4).augmentation)


def test_the_generator_is_trained_through_the_augmentation(smoke: Smoke) -> None:
    """Its gradients are those of the loss on changed images."""
    iteration = make_trainer(smoke(AUGMENT, "discriminator.normalization=sn")).iteration
    inputs, state = iteration.draw_generator(0), iteration.state
    images = augmented(state.generator.train()(*inputs.fakes), inputs.augmentation, NAMES)
    loss = iteration.loss.generator(state.discriminator.train()(images, inputs.fakes.labels))
    expected = torch.autograd.grad(loss, list(state.generator.parameters()))
    torch.testing.assert_close(iteration.update_generator(inputs), loss.detach())
    for parameter, gradient in zip(state.generator.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def test_lecams_penalty_is_one_sided() -> None:
    """Real 1 and 3 are 1.5 and 3.5 above -0.5, -1 is below it; generated -1 and 0 are 1.5 and 0.5 below 0.5."""
    averages = torch.tensor([0.5, -0.5])
    real, fake = torch.tensor([1.0, 3.0, -1.0, -1.0]), torch.tensor([-1.0, 0.0, 2.0, 0.5])
    assert float(lecam_penalty(real, fake, averages, coefficient=2.0)) == 2 * ((2.25 + 12.25) + (2.25 + 0.25)) / 4
    assert float(lecam_penalty(real[:1], fake[:1], averages)) == pytest.approx(0.3 * 4.5)


def test_averages_are_those_of_all_updates_and_a_record_of_gradients_leaves_them(smoke: Smoke) -> None:
    """Weights 0.99^k of the update k before the last, divided by their sum."""
    trainer = make_trainer(smoke("discriminator.penalty=lecam"))
    means = torch.stack([discriminator_step(trainer, index)[1:] for index in range(4)])  # (4, 2)
    weights = 0.99 ** torch.arange(3, -1, -1, dtype=torch.float64)
    averages = trainer.state.logit_averages
    assert averages is not None
    torch.testing.assert_close(averages[:2] / averages[2], weights @ means / weights.sum(), rtol=1e-6, atol=1e-7)
    before = averages.clone()
    measure_gradients(trainer.iteration)
    assert torch.equal(trainer.state.logit_averages, before)
    assert "logit_averages" in trainer.state.state_dict()
    assert "logit_averages" not in build.build_state(smoke()).state_dict()


@pytest.mark.parametrize(
    ("setting", "parts"),
    [
        ("train.augment=colour", ["train.augment: got 'colour', expected one of color, ", "did you mean 'color'?"]),
        ("train.augment=color,,cutout", ["train.augment: got '', expected one of color, translation, cutout"]),
        ("train.augment=[color,cutout]", ["got list, expected text; separate several names by commas"]),
        ("discriminator.penalty=lecame", ["did you mean 'lecam'?"]),
    ],
)
def test_an_unknown_name_is_refused(train: Callable[..., Result], setting: str, parts: list[str]) -> None:
    refused(train("run", f"--set={setting}"), *parts)


def test_jpeg_files_train_with_both(tmp_path: Path) -> None:
    photos, run = tmp_path / "photos", tmp_path / "run"
    photos.mkdir()
    for index in range(9):
        Image.new("RGB", (32, 32), (20 * index, 90, 200 - 20 * index)).save(photos / f"{index}.jpg")
    data = ["--set=data.name=folder", f"--set=data.root={photos}", f"--set={AUGMENT}"]
    small = ["--set=train.steps=2", "--set=discriminator.penalty=lecam", "--device=cpu", f"--run={run}"]
    printed = done(call("gan-train", "--config=smoke", *data, *small)).output
    assert "discriminator penalty: lecam, coefficient 0.3\n" in printed
    assert "augmentations of real and generated images: color, translation, cutout\n" in printed
    assert "augment: color,translation,cutout" in (run / "config.yaml").read_text()
