"""Tests of gan.noise and gan.data.pixels."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gan.data.pixels import to_float, to_uint8
from gan.errors import ConfigError
from gan.noise import (
    ClassShares,
    balanced_labels,
    draw_labels,
    draw_latents,
    draw_truncated_latents,
    draw_uniforms,
    random_generator,
)


def test_numbers_depend_on_seed_stream_and_step_alone() -> None:
    first = draw_latents(3, 2, random_generator(0, "a", 5))
    torch.randn(100)
    assert torch.equal(first, draw_latents(3, 2, random_generator(0, "a", 5)))
    others = [random_generator(1, "a", 5), random_generator(0, "b", 5), random_generator(0, "a", 6)]
    assert not any(torch.equal(first, draw_latents(3, 2, other)) for other in others)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    draw_labels(3, 2, random_generator(0, "a"))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("bound", [0.1, 0.5, 1.0, 2.0])
def test_truncated_latents_have_the_moments_of_a_truncated_normal(bound: float) -> None:
    """Variance 1 - 2 T phi(T) / (2 Phi(T) - 1), fourth moment by the same integration by parts."""
    latents = draw_truncated_latents(50_000, 4, random_generator(0, "z"), bound).double()
    assert latents.abs().max() <= bound * (1 + 1e-7)  # the bound rounds to float32
    edge = 2 * math.exp(-(bound**2) / 2) / math.sqrt(2 * math.pi) / math.erf(bound / math.sqrt(2))
    second = 1 - bound * edge
    fourth = 3 * second - bound**3 * edge
    error = math.sqrt((fourth - second**2) / latents.numel())
    assert abs(float(latents.mean())) < 4 * math.sqrt(second / latents.numel())
    assert abs(float(latents.square().mean()) - second) < 4 * error
    assert float(latents.pow(4).mean()) == pytest.approx(fourth, rel=0.02)


def test_a_wide_truncation_is_none_and_stays_finite() -> None:
    latents = draw_truncated_latents(10_000, 4, random_generator(0, "z"), 1e6)
    assert latents.isfinite().all()
    assert abs(float(latents.std()) - 1) < 0.02


def test_truncated_latents_do_not_depend_on_how_many_are_drawn() -> None:
    many, few = (draw_truncated_latents(count, 5, random_generator(0, "z"), 0.5) for count in (1000, 7))
    assert torch.equal(many[:7], few)


def test_no_two_steps_of_a_stream_share_a_seed() -> None:
    """An odd multiplier is a bijection modulo 2**32; checked on the first steps and on distant ones."""
    steps = [*range(5000), *range(2**31, 2**31 + 5000)]
    assert len({random_generator(3, "x", step).initial_seed() for step in steps}) == len(steps)


def test_latents_are_standard_normal_and_labels_uniform() -> None:
    latents = draw_latents(10_000, 4, random_generator(0, "z"))
    assert abs(float(latents.mean())) < 0.02  # 4 standard errors of 40,000 draws
    assert abs(float(latents.std()) - 1) < 0.02
    counts = draw_labels(10_000, 4, random_generator(0, "y")).bincount(minlength=4)
    assert (counts - 2500).abs().max() < 200  # 4.6 standard deviations
    assert balanced_labels(7, 3).tolist() == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize("counts", [[20, 180], [0, 1, 3, 49_996], [7] * 10, [*range(1, 40)], [1]])
@pytest.mark.parametrize("count", [0, 1, 7, 200, 2048])
def test_spread_labels_have_the_shares_of_the_data(counts: list[int], count: int) -> None:
    """Every class has its share of the labels, rounded down or up, and also of the first labels, within two images."""
    shares = ClassShares(torch.tensor(counts))
    labels = shares.spread(count, random_generator(0, "labels"))
    exact = torch.tensor(counts).double() / sum(counts)
    assert len(labels) == count
    assert torch.equal(labels, shares.spread(count, random_generator(0, "labels")))
    for first in {count, count // 2, count // 10}:
        found = labels[:first].bincount(minlength=len(counts))
        assert ((found - first * exact).abs() < (1 if first == count else 2)).all(), (first, found)


def test_rounded_shares_are_right_on_average() -> None:
    """A class of one image in 25,000 is rarer than half an image in a set, and must not be left out of every set."""
    shares = ClassShares(torch.tensor([1, 24_999]))
    sets = [shares.spread(2048, random_generator(seed, "labels")).bincount(minlength=2) for seed in range(2000)]
    found = int(torch.stack(sets)[:, 0].sum())
    assert abs(found - 2000 * 2048 / 25_000) < 50  # 164 expected, four standard deviations


def test_labels_drawn_by_shares() -> None:
    drawn = ClassShares(torch.tensor([100, 0, 900])).draw(10_000, random_generator(0, "y")).bincount(minlength=3)
    assert (drawn - torch.tensor([1000, 0, 9000])).abs().max() < 150  # five standard deviations
    uniform = draw_labels(1000, 4, random_generator(0, "y"))
    assert torch.equal(draw_labels(1000, 4, random_generator(0, "y"), ClassShares(torch.full((4,), 1))), uniform)


def test_pixels_to_network_range() -> None:
    grey = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    scaled = to_float(grey)
    assert scaled.flatten()[[0, 128, 255]].tolist() == [-1, 0, 127 / 128]
    noisy = to_float(grey, draw_uniforms(grey.shape, random_generator(0, "noise")))
    added = (noisy - scaled) * 128
    assert added.min() >= 0
    assert added.max() <= 1
    assert added.std() > 0.2


def test_network_range_to_pixels() -> None:
    x = torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0])
    assert to_uint8(x).tolist() == [0, 0, 128, 255, 255]
    assert to_uint8(x, "truncate").tolist() == [0, 0, 127, 255, 255]
    with pytest.raises(ConfigError, match="quantizer: got 'up', expected one of round, truncate"):
        to_uint8(x, "up")


@given(st.integers(0, 255))
def test_rounding_inverts_its_own_scale(level: int) -> None:
    """Both rules convert an output of level / 127.5 - 1 back to that level."""
    x = torch.tensor([level / 127.5 - 1], dtype=torch.float64).float()
    assert abs(int(to_uint8(x)) - level) == 0
    assert abs(int(to_uint8(x, "truncate")) - level) <= 1  # float32 may fall just short of the level
