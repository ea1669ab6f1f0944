"""Time of normalizing a discriminator's weights once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from benchmarks.counting import count_launches
from benchmarks.sizes import SIZES, Size, configure, make_trainer
from benchmarks.timing import Record, finish, interleave, shared_options, start, summarize
from evaluation.runtime.command import CheckedCommand
from gan.models import ResNetDiscriminator
from gan.normalization import NORMALIZED_LAYERS, BatchedNormalization, normalize, update_

LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "sn": ("sn", {}),
    "srn": ("srn", {"c": 0.3}),
    "bsn": ("bsn", {}),
    "sn_batched": ("sn", {}),
    "srn_batched": ("srn", {"c": 0.3}),
}
STEPS = ("none", "sn", "srn", "sn_conv")
REFERENCE = "torch"
COMPILED = "_compiled"


@click.command("normalize", cls=CheckedCommand)
@click.option(
    "--layout", type=click.Choice(list(LAYOUTS)), default="channels_last", help="Memory format of the weights."
)
@click.option("--size", type=click.Choice(list(SIZES)), default="quarter", help="Size of the discriminator step.")
@click.option("--compiled/--not-compiled", default=False, help="Also time compiled variants; takes a minute more.")
@shared_options(repeats=100, fewest=3)
def measure_normalize(
    layout: str, size: str, compiled: bool, repeats: int, threads: int, device: str, json_path: Path | None
) -> Record:
    """Time one normalization of the unconditional 32x32 discriminator: a power iteration, then all normalized weights.

    "forward and backward" adds the gradients of all weights. Ratios are to torch's spectral_norm in the same run. The
    trainer keeps weights channels-last. On a GPU kernels are counted, on a CPU uncompiled operations that compute or
    copy. Our compiled variants run power iteration eagerly, or as a separate compiled program if batched; torch's runs
    inside the compiled forward. "discriminator step" has a fifth of the rounds; its ratios are to no normalization.
    """
    sizes = [
        module.weight.numel() for module in ResNetDiscriminator().modules() if isinstance(module, NORMALIZED_LAYERS)
    ]
    measured = f"one normalization of ResNetDiscriminator(32): {len(sizes)} weights, {sum(sizes):,} numbers"
    record = start(measured, repeats, threads, device) | {"layout": layout}
    names = [REFERENCE, *OURS]
    if compiled:
        names += [f"{name}{COMPILED}" for name in names]
    for what, backward in (("forward", False), ("forward and backward", True)):
        variants = {name: _variant(name, LAYOUTS[layout], device, backward) for name in names}
        record[what] = summarize(interleave(variants, repeats, device))
        for name, run in variants.items():
            if torch.device(device).type == "cuda" or not name.endswith(COMPILED):
                record[what][name] |= count_launches(run, device)
    steps = {name: _discriminator_step(name, SIZES[size], device) for name in STEPS}
    record[f"discriminator step, {size}"] = summarize(interleave(steps, max(3, repeats // 5), device))
    return finish(record, json_path)


def _variant(name: str, layout: torch.memory_format, device: str, backward: bool) -> Callable[[], None]:
    """Function that normalizes all weights of its own discriminator once."""
    compiled, name = name.endswith(COMPILED), name.removesuffix(COMPILED)
    torch.manual_seed(0)
    network = ResNetDiscriminator()
    modules: list[Any] = [module for module in network.modules() if isinstance(module, NORMALIZED_LAYERS)]
    if name == REFERENCE:
        for module in modules:
            parametrizations.spectral_norm(module)
    else:
        choice, settings = OURS[name]
        normalize(network, choice, **settings)
    network.to(device=device, memory_format=layout)  # type: ignore[call-overload]
    weights = _weights(name, network, modules, compiled)
    originals: list[Tensor] = [module.parametrizations.weight.original for module in modules]
    gradients = [torch.randn_like(weight) for weight in originals]

    def run() -> None:
        normalized = weights()
        if backward:
            torch.autograd.grad(normalized, originals, gradients)

    return run


def _weights(name: str, network: nn.Module, modules: list[Any], compiled: bool) -> Callable[[], list[Tensor]]:
    """Function that runs one power iteration and returns all normalized weights."""
    if name.endswith("_batched"):
        batched = BatchedNormalization(network)
        if compiled:
            batched.compile_()
        places = [f"{place}.weight" for place, module in network.named_modules() if module in modules]

        def together() -> list[Tensor]:
            batched.update_()
            found = batched.weights()
            return [found[place] for place in places]

        return together

    def access() -> list[Tensor]:
        return [module.weight for module in modules]

    if compiled:
        access = torch.compile(access, dynamic=False)
    if name == REFERENCE:
        return access

    def one_by_one() -> list[Tensor]:
        update_(network)
        return access()

    return one_by_one


def _discriminator_step(normalization: str, size: Size, device: str) -> Callable[[], Tensor]:
    """Discriminator update on new inputs, including the generation of its fake images."""
    trainer = make_trainer(configure(size, [f"discriminator.normalization={normalization}"]), device)
    iteration = trainer.iteration

    def update() -> Tensor:
        inputs = iteration.draw_discriminator(0)
        with iteration.arithmetic.float32_products():
            return iteration.update_discriminator(inputs, *iteration.generate([inputs.fakes]))

    return update
