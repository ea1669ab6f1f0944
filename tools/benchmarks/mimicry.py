"""Training step of torch-mimicry's SN-GAN for 32x32 images, for comparison.

The package imports TensorFlow and LMDB for metrics and data sets that are not needed here, so its modules are imported
without running the package's `__init__`. Install it with: pip install --no-deps torch-mimicry
"""

import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType

import torch

from benchmarks.sizes import Size
from gan.config import TrainSettings

PACKAGE = "torch_mimicry"


def mimicry_found() -> bool:
    """Whether torch-mimicry is installed."""
    return PACKAGE in sys.modules or importlib.util.find_spec(PACKAGE) is not None


def mimicry_iteration(size: Size, settings: TrainSettings, device: str) -> Callable[[], None]:
    """Function that runs d_steps discriminator steps and one generator step as mimicry's trainer does.

    The generator's batch is generator_batch_factor times the discriminator's, as in Miyato et al.'s code; mimicry's own
    trainer has equal batches. Real images are floats on the device, so mimicry's data loader is not timed.
    """
    _without_init(PACKAGE)
    _without_init(f"{PACKAGE}.training")
    from torch_mimicry.nets.sngan import SNGANDiscriminator32, SNGANGenerator32
    from torch_mimicry.training.metric_log import MetricLog

    generator = SNGANGenerator32(ngf=size.generator, loss_type=settings.loss).to(device)
    discriminator = SNGANDiscriminator32(ndf=size.discriminator, loss_type=settings.loss).to(device)
    g_optimizer, d_optimizer = (
        torch.optim.Adam(
            network.parameters(), lr=settings.learning_rate, betas=(settings.adam_beta1, settings.adam_beta2)
        )
        for network in (generator, discriminator)
    )
    real = torch.rand(size.batch, 3, 32, 32, device=device) * 2 - 1
    labels = torch.zeros(size.batch, dtype=torch.int64, device=device)
    counted = real.new_empty(size.batch * settings.generator_batch_factor, 0)  # the trainer reads only its length

    def iterate() -> None:
        log = MetricLog()
        for _ in range(settings.d_steps):
            discriminator.train_step((real, labels), netG=generator, optD=d_optimizer, log_data=log, device=device)
        generator.train_step((counted, labels), netD=discriminator, optG=g_optimizer, log_data=log, device=device)

    return iterate


def _without_init(name: str) -> None:
    """Makes the submodules of a package importable without running its `__init__`."""
    if name in sys.modules:
        return
    spec = importlib.util.find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"{name} is not installed: pip install --no-deps torch-mimicry", name=name)
    package = ModuleType(name)
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules[name] = package
