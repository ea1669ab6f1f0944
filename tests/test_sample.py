"""Sampling policies: labels, standing statistics, and what they leave behind."""

import pytest
import torch

from gan.build import build_state
from gan.config import Config, load_config
from gan.sample import draw_classes, make_sampler, standing_statistics
from gan.state import TrainState


@pytest.fixture
def conditional() -> tuple[Config, TrainState]:
    config = load_config("smoke", ["conditional=true"])
    return config, build_state(config, num_classes=4)


def test_label_policies() -> None:
    assert draw_classes(10, 0, "balanced", 0) is None
    balanced = draw_classes(10, 4, "balanced", 0)
    assert balanced is not None
    assert balanced.bincount().tolist() == [3, 3, 2, 2]
    uniform = draw_classes(4000, 4, "uniform", 0)
    assert uniform is not None
    counts = uniform.bincount()
    assert counts.sum() == 4000
    assert (counts - 1000).abs().max() < 150  # five standard deviations
    assert len(counts.unique()) > 1
    again, other = draw_classes(4000, 4, "uniform", 0), draw_classes(4000, 4, "uniform", 1)
    assert torch.equal(uniform, again)  # type: ignore[arg-type]
    assert not torch.equal(uniform, other)  # type: ignore[arg-type]


def test_samples_do_not_depend_on_the_batch_size(conditional: tuple[Config, TrainState]) -> None:
    config, state = conditional
    labels = []
    images = []
    for size in (3, 8):
        changed = config.model_copy(
            update={"eval": config.eval.model_copy(update={"batch_size": size, "labels": "uniform"})}
        )
        made, classes = make_sampler(state.generator, changed, 4, "cpu")(8, 5)
        images.append(made.int())
        labels.append(classes)
    assert torch.equal(*labels)
    assert (images[0] - images[1]).abs().max() <= 1  # rounding of float sums, to 8 bits


def test_standing_statistics_are_those_of_samples_and_are_put_back(conditional: tuple[Config, TrainState]) -> None:
    config, state = conditional
    generator = state.generator
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    modes = [module.training for module in generator.modules()]
    norms = [module for module in generator.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    random = torch.get_rng_state()
    with standing_statistics(generator, config, 4, "cpu"):
        assert [module.training for module in generator.modules()] == modes
        inside = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
        latents, labels = torch.randn(2048, config.generator.z_dim), torch.arange(2048) % 4
        seen: list[torch.Tensor] = []
        hook = norms[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        generator.eval()(latents, labels)
        hook.remove()
        assert norms[0].running_mean is not None
        spread = seen[0].std(dim=(0, 2, 3))
        assert ((seen[0].mean(dim=(0, 2, 3)) - norms[0].running_mean).abs() < 0.1 * spread).all()
    assert any(not torch.equal(inside[name], before[name]) for name in before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in generator.state_dict().items())
    assert [norm.momentum for norm in norms] == momenta
    torch.set_rng_state(random)


def test_standing_statistics_are_put_back_after_an_error(conditional: tuple[Config, TrainState]) -> None:
    config, state = conditional
    before = {name: tensor.clone() for name, tensor in state.generator.state_dict().items()}
    with pytest.raises(RuntimeError, match="stop"), standing_statistics(state.generator, config, 4, "cpu"):
        raise RuntimeError("stop")
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.generator.state_dict().items())
