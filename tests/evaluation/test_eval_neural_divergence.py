"""Neural Divergence: bounds, parameter count, padding, determinism, labels."""

from math import log

import pytest
import torch

from evaluation import EvaluationError, neural_divergence
from evaluation.metrics.neural_divergence import PRESETS, Critic, _same_padding

SHORT = {"steps": 40, "samples": 128, "batch_size": 32, "num_critics": 1}


def noise(count: int, seed: int, low: int = 0, high: int = 256, side: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, (count, 3, side, side), dtype=torch.uint8, generator=generator)


def test_preset_is_the_papers():
    preset = PRESETS["srn2020"]
    assert (preset.channels, preset.init_std, preset.learning_rate) == ((16, 32, 64), 0.02, 2e-4)
    assert (preset.betas, preset.batch_size, preset.steps, preset.samples) == ((0, 0.9), 128, 100_000, 1_000_000)
    assert sum(parameter.numel() for parameter in Critic(preset.channels, 32, 32).parameters()) == 66_337


@pytest.mark.parametrize("side", [32, 64, 33])
def test_critic_fits_the_image_size(side: int):
    assert Critic((16, 32, 64), side, side)(torch.zeros(2, 3, side, side)).shape == (2,)


def test_padding_is_tensorflows_same():
    # TensorFlow: total = (ceil(n / 2) - 1) * 2 + 5 - n, the smaller half first.
    assert _same_padding(torch.zeros(1, 3, 32, 33)) == (2, 2, 1, 2)
    assert _same_padding(torch.zeros(1, 3, 33, 32)) == (1, 2, 2, 2)


def test_identical_sets_stay_at_log_2():
    images = noise(256, seed=0)
    result = neural_divergence(images, images, **SHORT)
    # The critic sees the same images on both sides; f stays near 0, within what 40 noisy steps leave.
    assert result.softplus_fake == pytest.approx(log(2), abs=0.05)
    assert result.softplus_real == pytest.approx(log(2), abs=0.05)
    assert result.critic_gap == pytest.approx(0, abs=0.02)
    assert result.note == ""


def test_disjoint_sets_go_to_zero():
    result = neural_divergence(noise(256, 0, high=40), noise(256, 1, low=200), **{**SHORT, "steps": 150})
    assert result.softplus_fake < 0.02
    assert result.softplus_real < 0.02
    assert result.accuracy == 1
    assert result.critic_gap > 5
    assert result.real_mean > 0 > result.fake_mean


def test_equal_seeds_give_equal_results_and_other_seeds_others():
    generated, test = noise(64, 0), noise(64, 1)
    first, second, other = (neural_divergence(generated, test, **SHORT, seed=seed) for seed in (0, 0, 1))
    assert first.critics == second.critics
    assert first.critics != other.critics


def test_several_critics_are_averaged_and_differ():
    result = neural_divergence(noise(64, 0), noise(64, 1), **{**SHORT, "steps": 5, "num_critics": 3})
    values = [critic.softplus_fake for critic in result.critics]
    assert len(set(values)) == 3
    assert result.softplus_fake == pytest.approx(sum(values) / 3)
    assert result.spread("softplus_fake") > 0
    assert result.losses.shape == (3, 5)


def test_fewer_steps_than_the_presets_are_labelled_short():
    result = neural_divergence(noise(64, 0), noise(64, 1), **{**SHORT, "steps": 1})
    assert result.label == "nd_short/srn2020"
    assert result._replace(steps=100_000).label == "nd/srn2020"


def test_a_pool_gives_no_more_samples_than_it_holds():
    result = neural_divergence(noise(50, 0), noise(64, 1), **{**SHORT, "steps": 1})
    assert (result.samples, result.pool, result.num_test) == (50, 50, 64)


def test_a_sampler_is_asked_with_fresh_seeds():
    asked: list[tuple[int, int]] = []

    def sampler(count: int, seed: int) -> tuple[torch.Tensor, None]:
        assert not torch.is_grad_enabled()
        asked.append((count, seed))
        return noise(count, seed), None

    settings = {"steps": 130, "samples": 2500, "batch_size": 32, "num_critics": 1}
    result = neural_divergence(sampler, noise(64, 1), **settings)
    assert result.pool is None
    assert [count for count, _ in asked] == [2048, 2048, 2048, 2048, 452][-len(asked) :]
    assert len({seed for _, seed in asked}) == len(asked)


def test_a_diverged_value_carries_a_note(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("evaluation.metrics.neural_divergence.WRONG_SIGN", 0.1)
    result = neural_divergence(noise(64, 0), noise(64, 1), **{**SHORT, "steps": 1})
    assert "do not quote" in result.note


@pytest.mark.parametrize(
    ("generated", "test", "settings", "message"),
    [
        (noise(8, 0).float(), noise(8, 1), {}, "expected uint8"),
        (noise(8, 0), noise(8, 1, side=32), {}, "generated images are 16x16 and test images are 32x32"),
        (noise(8, 0)[:0], noise(8, 1), {}, "got none"),
        (noise(8, 0), noise(8, 1), {"preset": "srn"}, "nd preset: got 'srn'"),
        (noise(8, 0), noise(8, 1), {"steps": 0}, "nd steps: got 0"),
        (lambda count, seed: (noise(1, seed), None), noise(8, 1), {}, "expected the .* it was asked for"),
        (lambda count, seed: (noise(count, seed, side=8), None), noise(8, 1), {}, "sampler images are 8x8"),
    ],
)
def test_wrong_arguments_are_refused(generated, test, settings: dict, message: str):
    with pytest.raises(EvaluationError, match=message):
        neural_divergence(generated, test, **{**SHORT, **settings})
