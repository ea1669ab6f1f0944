"""Tests of gan.losses against closed forms."""

import math

import pytest
import torch

from gan.losses import LOSSES


def test_hinge() -> None:
    loss = LOSSES["hinge"]
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0, 1.0])
    assert loss.discriminator(real, fake) == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1 + 2) / 3)
    assert loss.generator(fake) == pytest.approx(2 / 3)


def test_non_saturating_at_indifference() -> None:
    loss = LOSSES["non_saturating"]
    zeros = torch.zeros(4)
    assert loss.discriminator(zeros, zeros) == pytest.approx(2 * math.log(2))
    assert loss.generator(zeros) == pytest.approx(math.log(2))


def test_non_saturating_is_cross_entropy_and_survives_large_logits() -> None:
    loss = LOSSES["non_saturating"]
    real, fake = torch.randn(9), torch.randn(9)
    expected = -torch.log(torch.sigmoid(real)).mean() - torch.log(1 - torch.sigmoid(fake)).mean()
    torch.testing.assert_close(loss.discriminator(real, fake), expected)
    large = torch.tensor([1e4])
    assert loss.discriminator(-large, large) == pytest.approx(2e4)


def test_wasserstein() -> None:
    loss = LOSSES["wasserstein"]
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([0.0, 1.0])
    assert loss.discriminator(real, fake) == pytest.approx(0.5 - 2)
    assert loss.generator(fake) == pytest.approx(-0.5)


@pytest.mark.parametrize("name", LOSSES)
def test_both_sides_pull_apart(name: str) -> None:
    """The discriminator raises real and lowers fake logits; the generator raises fake logits."""
    loss = LOSSES[name]
    real, fake = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    real_gradient, fake_gradient = torch.autograd.grad(loss.discriminator(real, fake), [real, fake])
    assert (real_gradient < 0).all()
    assert (fake_gradient > 0).all()
    assert (torch.autograd.grad(loss.generator(fake), fake)[0] < 0).all()
