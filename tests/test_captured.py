"""Tests of the operations that a CUDA graph captures of a training iteration, on the meta device in place of a GPU."""

from collections.abc import Callable

import pytest
import torch
from capturing import META, Capturable

from gan import build
from gan.config import Config, load_config
from gan.data import ImageData
from gan.losses import LOSSES
from gan.models import DISCRIMINATORS, GENERATORS
from gan.normalization import NORMALIZATIONS
from gan.training.graph import FastStep
from gan.training.trainer import Trainer

CPU = torch.device("cpu")
SMALL = ("train.batch_size=2", "train.d_steps=1", "train.generator_batch_factor=1")
NETWORKS = [("resnet", "resnet"), ("resnet", "compact"), ("sndcgan", "sndcgan"), ("sndcgan_bn", "sndcgan")]
COMBINATIONS = [
    (*networks, normalization, list(LOSSES)[(row + column) % len(LOSSES)], row % 2 == 0)
    for row, normalization in enumerate(NORMALIZATIONS)
    for column, networks in enumerate(NETWORKS)
]


def load(*overrides: str) -> Config:
    return load_config("smoke", overrides)


def make_trainer(config: Config, device: torch.device) -> Trainer:
    images = torch.arange(6 * 3 * 32 * 32).view(6, 3, 32, 32).to(torch.uint8)
    data = ImageData(images, torch.arange(6) % 2, ("even", "odd"), "shapes", "train")
    state = build.build_state(config, device, 2 if config.conditional else 0)
    batches, loss = build.build_batches(config, data, device), build.build_loss(config)
    return Trainer(state, batches, loss, config.train, z_dim=config.generator.z_dim)


def captured_operations(config: Config, device: torch.device) -> Capturable:
    fast = FastStep(make_trainer(config, device).iteration, captured=False)
    with Capturable(device) as operations:
        fast.iterate()
    return operations


def test_combinations_have_every_pair() -> None:
    for names, place in ((GENERATORS, 0), (DISCRIMINATORS, 1), (NORMALIZATIONS, 2)):
        pairs = {(combination[place], combination[3]) for combination in COMBINATIONS}
        assert pairs == {(name, loss) for name in names for loss in LOSSES}
    assert {combination[1:3] for combination in COMBINATIONS} == {
        (d, n) for d in DISCRIMINATORS for n in NORMALIZATIONS
    }


@pytest.mark.parametrize(("generator", "discriminator", "normalization", "loss", "conditional"), COMBINATIONS)
def test_an_iteration_can_be_captured(
    meta_device: torch.device,
    generator: str,
    discriminator: str,
    normalization: str,
    loss: str,
    conditional: bool,
) -> None:
    """All tensors are on the device; nothing is read, drawn or made of host data."""
    operations = captured_operations(
        load(
            f"generator.name={generator}",
            f"discriminator.name={discriminator}",
            f"discriminator.normalization={normalization}",
            f"train.loss={loss}",
            f"conditional={conditional}",
            "train.ema_decay=0.9",
            "train.flip=true",
            *SMALL,
        ),
        meta_device,
    )
    assert operations.counts["_fused_adam_"] == 2


@pytest.mark.parametrize(
    "overrides",
    [
        # Computed weight by weight, srn reads sigma on the host on a CPU, and nowhere else.
        *((f"discriminator.normalization={name}",) for name in NORMALIZATIONS if name != "srn_conv"),
        ("discriminator.penalty=r1",),
    ],
)
def test_an_iteration_in_bfloat16_can_be_captured(overrides: tuple[str, ...]) -> None:
    """On the CPU, where a tensor made of host data is seen and autocast casts."""
    config = load(*overrides, "train.precision=bf16", "conditional=true", "train.ema_decay=0.9", *SMALL)
    operations = captured_operations(config, CPU)
    assert operations.counts["_to_copy"] > 10, "casts"


@pytest.mark.parametrize(("normalization", "bound"), [("none", 460), ("sn", 600), ("srn", 700), ("wgan_gp", 900)])
def test_an_iteration_has_no_more_operations_than_before(
    meta_device: torch.device, normalization: str, bound: int
) -> None:
    """Smoke configuration; counts are about 2% below the bounds. On a GPU most operations are one or a few launches."""
    operations = captured_operations(load(f"discriminator.normalization={normalization}"), meta_device)
    assert operations.counts.total() <= bound, operations.counts


@pytest.mark.parametrize(
    ("device", "reason", "mistake"),
    [
        (META, "_local_scalar_dense reads a value on the host", lambda x: x.sum().item()),
        (META, "_local_scalar_dense reads a value on the host", lambda x: bool(x.isfinite().all())),
        (META, "equal reads a value on the host", lambda x: torch.equal(x, x)),
        (META, "nonzero has a result whose shape depends on values", lambda x: x.nonzero()),
        (META, "_unique2 has a result whose shape depends on values", lambda x: x.unique()),
        (META, "index by a mask counts its elements", lambda x: x[x > 0]),
        (META, "_to_copy has a tensor on cpu", lambda x: x.cpu()),
        (META, "zeros has a tensor on cpu", lambda x: torch.zeros(2).copy_(x)),
        (META, "ones has a tensor on cpu", lambda x: x + torch.ones(())),
        (META, "arange has a tensor on cpu", lambda x: x[torch.arange(2)]),
        (META, "rand_like draws random numbers", lambda x: torch.rand_like(x)),
        (CPU, "bernoulli_ draws random numbers", lambda x: torch.nn.functional.dropout(x)),
        (CPU, "lift_fresh makes a tensor of host data", lambda x: x * torch.tensor([1.0, 2.0])),
        (CPU, "lift_fresh makes a tensor of host data", lambda x: x[[0, 1]]),
    ],
)
def test_what_cannot_be_captured_is_refused(device: torch.device, reason: str, mistake: Callable[..., object]) -> None:
    values = torch.zeros(2, device=device)
    with pytest.raises(AssertionError, match=reason), Capturable(device):
        mistake(values)


def test_operations_are_counted_without_views() -> None:
    values, positions = torch.zeros(2, device=META), torch.zeros(2, dtype=torch.int64, device=META)
    with Capturable(META) as operations:
        values.view(1, 2)[0][positions].add_(1)
    assert operations.counts == {"index": 1, "add_": 1}
