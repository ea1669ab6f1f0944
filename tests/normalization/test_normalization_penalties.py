"""Tests of WGAN-GP, R1 and orthonormal regularization, alone and with normalized weights."""

import pytest
import torch
from torch import Tensor, nn

from gan.models import ResNetDiscriminator
from gan.normalization import (
    NORMALIZATIONS,
    gradient_penalty,
    normalize,
    orthogonal_penalty,
    r1_penalty,
    spectral_norm,
)


def images(seed: int, count: int = 4, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def linear_critic(seed: int) -> tuple[nn.Module, Tensor]:
    critic = nn.Sequential(nn.Flatten(), nn.Linear(192, 1), nn.Flatten(0))
    torch.nn.init.normal_(critic[1].weight, generator=torch.Generator().manual_seed(seed))
    return critic, critic[1].weight.detach().norm()


def test_gradient_penalty_of_a_linear_critic() -> None:
    """D(x) = a . x + b has slope |a| everywhere: 10 (|a| - 1)^2, whatever the mixtures."""
    for seed in range(3):
        critic, norm = linear_critic(seed)
        got = gradient_penalty(critic, images(0), images(1), coefficient=1.0)
        torch.testing.assert_close(got, (norm - 1).square(), rtol=1e-6, atol=0)
        assert torch.equal(gradient_penalty(critic, images(0), images(1)), 10 * got)


def test_mixtures_are_drawn_per_sample_from_the_given_generator() -> None:
    """D(x) = |x|^2 / 2 has slope |x|, computed here at mixtures with one weight per sample."""
    real, fake = images(0), images(1)

    def critic(x: Tensor) -> Tensor:
        return x.square().sum((1, 2, 3)) / 2

    random = torch.Generator().manual_seed(7)
    got = gradient_penalty(critic, real, fake, coefficient=2.0, generator=random)
    weights = torch.rand((4, 1, 1, 1), generator=torch.Generator().manual_seed(7))
    mixtures = weights * real + (1 - weights) * fake
    torch.testing.assert_close(got, 2 * (mixtures.flatten(1).norm(dim=1) - 1).square().mean())
    state = torch.random.get_rng_state()
    gradient_penalty(critic, real, fake, generator=random)
    assert torch.equal(torch.random.get_rng_state(), state), "the global generator is not touched"


def test_a_flat_critic_has_finite_gradients() -> None:
    """The norm has no finite derivative at 0, so the epsilon is inside the root."""
    critic = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.ReLU(), nn.Linear(4, 1), nn.Flatten(0))
    nn.init.zeros_(critic[1].weight)
    penalty = gradient_penalty(critic, images(0), images(1))
    torch.testing.assert_close(penalty, torch.tensor(10.0), rtol=1e-5, atol=0)
    penalty.backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in critic.parameters())


def test_penalties_are_float32_outside_autocast_and_touch_no_image() -> None:
    """Autocast to bfloat16 does not change the values, and images do not require gradients afterwards."""
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(288, 1), nn.Flatten(0))
    real, fake = images(0), images(1)
    values = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled), torch.no_grad():
            random = torch.Generator().manual_seed(0)
            values.append(gradient_penalty(critic, real, fake.bfloat16().float(), generator=random))
            values.append(r1_penalty(critic, real))
            values.append(orthogonal_penalty(critic))
    assert all(value.dtype == torch.float32 for value in values)
    assert all(torch.equal(one, other) for one, other in zip(values[:3], values[3:], strict=True))
    assert not real.requires_grad
    assert not fake.requires_grad


@pytest.mark.parametrize("double", ["real", "fake", "both"])
def test_penalties_of_a_float64_critic(double: str) -> None:
    """A float64 critic rejects float32 images; its penalty is correct to 1e-12."""
    critic, _ = linear_critic(0)
    assert gradient_penalty(critic, images(0).bfloat16(), images(1)).dtype == torch.float32
    critic.double()
    norm = critic[1].weight.detach().norm()
    real, fake = (
        images(seed, dtype=torch.float64 if double in (name, "both") else torch.float32)
        for seed, name in enumerate(("real", "fake"))
    )
    got = gradient_penalty(critic, real, fake, coefficient=1.0)
    torch.testing.assert_close(got, (norm - 1).square(), rtol=1e-12, atol=0)
    torch.testing.assert_close(r1_penalty(critic, real.double(), coefficient=2.0), norm.square(), rtol=1e-12, atol=0)


def test_labels_reach_the_critic() -> None:
    """Mixtures carry the real images' labels; without labels the critic gets none."""
    seen = []

    def critic(x: Tensor, labels: Tensor | None = None) -> Tensor:
        seen.append(labels)
        return x.flatten(1).sum(1)

    labels = torch.arange(4)
    gradient_penalty(critic, images(0), images(1), labels)
    r1_penalty(critic, images(0), labels)
    gradient_penalty(critic, images(0), images(1))
    assert seen[0] is labels
    assert seen[1] is labels
    assert seen[2] is None


def test_r1_of_a_linear_critic() -> None:
    """R1 is coefficient / 2 * |a|^2."""
    critic, norm = linear_critic(0)
    torch.testing.assert_close(r1_penalty(critic, images(0), coefficient=3.0), 1.5 * norm.square())


def test_images_of_two_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must have the same shape, got \(4, 3, 8, 8\) and \(3, 3, 8, 8\)"):
        gradient_penalty(nn.Flatten(), images(0), images(1, count=3))


@pytest.mark.parametrize("shape", [(4, 7), (7, 4), (5, 5)])
def test_orthogonal_penalty_and_its_gradient(shape: tuple[int, int]) -> None:
    """Both Gram matrices give the gradient 4 (W W^T - I) W; their values differ by |rows - columns|."""
    layer = nn.Linear(shape[1], shape[0], dtype=torch.float64)
    weight, identity = layer.weight, [torch.eye(side, dtype=torch.float64) for side in shape]
    penalty = orthogonal_penalty(layer)
    (gradient,) = torch.autograd.grad(penalty, weight)
    torch.testing.assert_close(gradient, 4 * (weight @ weight.t() - identity[0]) @ weight, rtol=0, atol=1e-10)
    outer = (weight @ weight.t() - identity[0]).square().sum()
    inner = (weight.t() @ weight - identity[1]).square().sum()
    torch.testing.assert_close(penalty, torch.minimum(outer, inner), rtol=0, atol=1e-10)
    torch.testing.assert_close((outer - inner).abs(), torch.tensor(float(abs(shape[0] - shape[1]))).double())
    assert torch.equal(orthogonal_penalty(layer, coefficient=0.25), 0.25 * penalty)


def test_orthogonal_penalty_is_zero_at_orthonormal_weights() -> None:
    """Covers every kind of layer, with rows along the output; the penalty is summed over layers."""
    layers = [nn.Linear(6, 4), nn.Conv2d(3, 5, 3), nn.ConvTranspose2d(8, 4, 2), nn.Embedding(9, 4)]
    for layer in layers:
        rows = layer.weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight
        flat = nn.init.orthogonal_(torch.empty(rows.shape[0], rows[0].numel())).view(rows.shape)
        with torch.no_grad():
            layer.weight.copy_(flat.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else flat)
        assert float(orthogonal_penalty(layer).detach()) == pytest.approx(0, abs=1e-10), type(layer)
        with torch.no_grad():
            layer.weight.mul_(2)
    expected = sum(9.0 * 4 if not isinstance(layer, nn.Conv2d) else 9.0 * 5 for layer in layers)
    assert float(orthogonal_penalty(nn.Sequential(*layers)).detach()) == pytest.approx(expected)
    with pytest.raises(ValueError, match="no linear, convolution or embedding layer"):
        orthogonal_penalty(nn.ReLU())


def test_the_penalty_is_on_the_weight_the_network_uses() -> None:
    """Under spectral normalization, scaling the unnormalized weight does not change the penalty."""
    layer = spectral_norm(nn.Linear(4, 4))
    before = orthogonal_penalty(layer)
    with torch.no_grad():
        layer.parametrizations.weight.original.mul_(3)
    torch.testing.assert_close(orthogonal_penalty(layer), before)


@pytest.mark.parametrize("choice", [name for name, entry in NORMALIZATIONS.items() if entry.apply])
@pytest.mark.parametrize("num_classes", [0, 3])
def test_with_every_weight_normalization(choice: str, num_classes: int) -> None:
    """Second derivatives through the discriminator and its normalized weights are finite and not all zero."""
    torch.manual_seed(0)
    example = (torch.zeros(1, 3, 32, 32), *([torch.zeros(1, dtype=torch.int64)] if num_classes else []))
    network = normalize(ResNetDiscriminator(channels=8, num_classes=num_classes), choice, example=example)
    labels = torch.arange(4) % 3 if num_classes else None
    real, fake = torch.randn(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    random = torch.Generator().manual_seed(1)
    penalty = gradient_penalty(network, real, fake, labels, generator=random) + orthogonal_penalty(network)
    penalty.backward()
    gradients = [p.grad for name, p in network.named_parameters() if "weight.original" in name]
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)
    assert all(gradient.abs().max() > 0 for gradient in gradients)
