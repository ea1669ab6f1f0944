"""Time of a training iteration, compared with torch-mimicry, the machine's peak rate and single changes."""

import multiprocessing
import resource
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import click
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.counting import count_flops
from benchmarks.mimicry import mimicry_found, mimicry_iteration
from benchmarks.sizes import SIZES, Size, configure, make_step, make_trainer
from benchmarks.timing import (
    Record,
    add_whole_run,
    calls_in_a_row,
    finish,
    interleave,
    shared_options,
    start,
    summarize,
)
from evaluation.runtime.command import CheckedCommand
from gan.errors import ConfigError
from gan.models import blocks
from gan.normalization import NORMALIZATIONS
from gan.runtime.memory import keep_freed_memory
from gan.training.arithmetic import Arithmetic, float32_products
from gan.training.graph import Choice
from gan.training.trainer import Trainer

Timed = Callable[[], Any]
PEER = "torch-mimicry"
PEER_ALONE = "torch-mimicry, system's allocator"
PRECISIONS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}
MIB = 2**20
WHOLE_RUN = 50_000
"""Number of generator updates of the published recipe."""


def _patched(make: Callable[[], Trainer], where: Any, name: str, instead: Any) -> Timed:
    """Iteration of a trainer that is built and run with a replaced attribute of a module."""
    with patch.object(where, name, instead):
        trainer = make()

    def iterate() -> None:
        with patch.object(where, name, instead):
            trainer.train_step()

    return iterate


def _two_passes(make: Callable[[], Trainer]) -> Timed:
    trainer = make()
    discriminator = trainer.state.discriminator
    together = discriminator.forward

    def forward(images: Tensor, labels: Tensor | None = None) -> Tensor:
        if not discriminator.training or not next(discriminator.parameters()).requires_grad:
            return together(images, labels)
        return torch.cat([together(half) for half in images.chunk(2)])

    discriminator.forward = forward
    return trainer.train_step


def _with_arithmetic(make: Callable[[], Trainer], **options: bool) -> Timed:
    """Iteration of a trainer whose discriminator has other options of `Arithmetic`."""
    trainer = make()
    arithmetic = Arithmetic(trainer.state.discriminator, trainer.settings.precision, **options)
    trainer.iteration = replace(trainer.iteration, arithmetic=arithmetic)
    return trainer.train_step


def _fused_adam(make: Callable[[], Trainer]) -> Timed:
    return _patched(make, torch.optim, "Adam", partial(torch.optim.Adam, fused=True))


def _compiled(make: Callable[[], Trainer]) -> Timed:
    trainer = make()
    for network in (trainer.state.generator, trainer.state.discriminator):
        network.compile(dynamic=False)
    return trainer.train_step


TECHNIQUES: dict[str, Callable[[Callable[[], Trainer]], Timed]] = {
    "pooling apart": partial(
        _patched,
        where=blocks,
        name="convolve_then_downsample",
        instead=lambda conv, x: blocks.downsample(conv(x)),
    ),
    "upsampling apart": partial(
        _patched,
        where=blocks,
        name="upsample_then_convolve",
        instead=lambda conv, x: conv(blocks.upsample(x)),
    ),
    "contiguous": partial(_patched, where=torch, name="channels_last", instead=torch.contiguous_format),
    "two passes": _two_passes,
    "not frozen": partial(_with_arithmetic, freeze=False),
    "batched": partial(_with_arithmetic, together=True),
    "fused Adam": _fused_adam,
    "compiled": _compiled,
}
"""Single changes. The first five undo techniques of the trainer; the others add techniques it does not use on a CPU.

pooling apart, upsampling apart: 3x3 convolutions at the higher resolution.
contiguous: contiguous layout instead of channels last.
two passes: separate discriminator passes for real and fake images.
not frozen: the generator update also computes the discriminator's gradients.
batched: all normalized weights computed together.
"""


def named(context: click.Context, parameter: click.Parameter, value: str, valid: Sequence[str]) -> list[str]:
    """Parses names separated by commas; "all" selects all of them, "none" none."""
    chosen = {"all": list(valid), "none": []}.get(value, [name.strip() for name in value.split(",")])
    for name in chosen:
        if name not in valid:
            raise click.BadParameter(f"got {name!r}, expected names out of: {', '.join(valid)}", context, parameter)
    return chosen


@click.command("train", cls=CheckedCommand)
@click.option("--size", type=click.Choice(list(SIZES)), default="quarter", help="Batch size and widths.")
@click.option(
    "--normalization",
    "normalizations",
    default="sn,srn",
    callback=partial(named, valid=[*NORMALIZATIONS]),
    help="Names separated by commas, or all.",
)
@click.option(
    "--precision",
    "precisions",
    default="fp32,bf16",
    callback=partial(named, valid=[*PRECISIONS]),
    help="Names separated by commas, or all.",
)
@click.option(
    "--techniques",
    default="none",
    callback=partial(named, valid=[*TECHNIQUES]),
    help="Changes to time one by one, with the first normalization and precision: "
    + ", ".join(TECHNIQUES)
    + "; none, all.",
)
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Changes one setting of our runs.")
@click.option("--peer/--no-peer", default=True, help="Compare with torch-mimicry if it is installed.")
@click.option("--memory/--no-memory", default=True, help="Measure peak memory, each variant in a new process.")
@shared_options(repeats=7)
def measure_train(
    size: str,
    normalizations: list[str],
    precisions: list[str],
    techniques: list[str],
    overrides: tuple[str, ...],
    peer: bool,
    memory: bool,
    repeats: int,
    threads: int,
    device: str,
    json_path: Path | None,
) -> Record:
    """Time one iteration of the 32x32 recipe: a generator update on twice the batch, 5 discriminator updates.

    Ratios are to torch-mimicry in float32, or without it to our first variant. On a CPU torch-mimicry runs with the
    allocator settings of our commands, and in a second row with the system's. The floor is the time of an iteration's
    arithmetic at the faster of two rates measured in the same run. images/s counts real images. On a GPU each variant
    runs with the plain and the fast step, unless --set train.fast chooses one.
    """
    wanted = SIZES[size]
    record = start(f"one generator iteration at size {size}: {wanted}", repeats, threads, device)
    makers = _makers(wanted, normalizations, precisions, techniques, overrides, device)
    if peer and mimicry_found():
        makers = _peers(wanted, threads, device) | makers
    variants: dict[str, Timed] = {}
    for name, maker in makers.items():
        try:
            variants[name], record[f"step of {name}"] = maker.make()
        except ConfigError as error:
            record[f"left out: {name}"] = str(error)
    flops = {name: count_flops((makers[name].plain or makers[name].make)().train_step) for name in variants}
    weighed = [name for name in variants if name != PEER_ALONE] if memory else []
    peaks = {name: _in_a_process(makers[name].make, device, threads) for name in weighed}
    on_gpu = torch.device(device).type == "cuda"
    probes = _probes(wanted, ["fp32", *(["tf32"] if on_gpu else []), *precisions], device)
    timed = variants | {name: probe.run for name, probe in probes.items()}
    seconds = interleave(timed, repeats, device, warm=1, calls=calls_in_a_row(device))
    rates = {name: probe.flops / statistics.median(seconds.pop(name)) for name, probe in probes.items()}
    train = configure(wanted, overrides).train
    rows = summarize(seconds, train.d_steps * train.batch_size, "images")
    for name, row in rows.items():
        rate = max(rate for probe, rate in rates.items() if _precision(probe) == _precision(name, device))
        row["GFLOP"] = round(flops[name] / 1e9, 2)
        row["share_of_floor"] = round(flops[name] / rate / (row["median_ms"] / 1000), 3)
        if name in peaks:
            row["peak_MiB"] = round(peaks[name] / MIB)
    add_whole_run(rows, WHOLE_RUN)
    record |= {f"rate of {name}, GFLOP/s": round(rate / 1e9, 1) for name, rate in rates.items()}
    return finish(record | {"iteration": rows}, json_path)


class _Maker(NamedTuple):
    """Builders of a variant.

    make: builds the variant.
    plain: builds the same arithmetic outside a CUDA graph, for counting; None if `make` uses no CUDA graph.
    """

    make: Callable[[], Choice]
    plain: Callable[[], Choice] | None = None


def _makers(
    size: Size,
    normalizations: Sequence[str],
    precisions: Sequence[str],
    techniques: Sequence[str],
    overrides: Sequence[str],
    device: str,
) -> dict[str, _Maker]:
    """Builders of our variants by name ("sn bf16", "sn bf16, fast"), then of the techniques."""
    settings = {
        f"{normalization} {precision}": [
            f"discriminator.normalization={normalization}",
            f"train.precision={precision}",
            *overrides,
        ]
        for normalization in normalizations
        for precision in precisions
    }
    makers = {}
    for name, chosen in settings.items():
        plain = partial(_ours, size, [*chosen, "train.fast=off"], device)
        if torch.device(device).type != "cuda" or any(override.startswith("train.fast=") for override in overrides):
            makers[name] = _Maker(partial(_ours, size, chosen, device), plain)
        else:
            makers[name] = _Maker(plain, plain)
            makers[f"{name}, fast"] = _Maker(partial(_ours, size, [*chosen, "train.fast=on"], device), plain)
    first = next(iter(settings))
    for technique in techniques:
        makers[f"{first}, {technique}"] = _Maker(partial(_changed, size, settings[first], device, technique))
    return makers


def _ours(size: Size, overrides: Sequence[str], device: str) -> Choice:
    return make_step(configure(size, overrides), device)


def _changed(size: Size, overrides: Sequence[str], device: str, technique: str) -> Choice:
    iterate = TECHNIQUES[technique](partial(make_trainer, configure(size, overrides), device))
    return Choice(iterate, f"plain step: {technique}")


def _peers(size: Size, threads: int, device: str) -> dict[str, _Maker]:
    peers = {PEER: _Maker(partial(_peer, size, device))}
    if torch.device(device).type != "cuda":
        peers[PEER_ALONE] = _Maker(partial(_peer_alone, size, threads), partial(_peer, size, device))
    return peers


def _peer(size: Size, device: str) -> Choice:
    return Choice(mimicry_iteration(size, configure(size).train, device), "torch-mimicry's eager step")


def _peer_alone(size: Size, threads: int) -> Choice:
    """torch-mimicry in a separate process with the system's allocator settings, as its users run it."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(1, mp_context=context, initializer=_hold_peer, initargs=(size, threads))
    return Choice(lambda: pool.submit(_run_held_peer).result(), "torch-mimicry's eager step in another process")


_held: list[Timed] = []


def _hold_peer(size: Size, threads: int) -> None:
    torch.set_num_threads(threads)
    _held.append(_peer(size, "cpu").train_step)


def _run_held_peer() -> None:
    _held[0]()


def _precision(name: str, device: str = "cpu") -> str:
    """Precision in the name of a variant or probe; torch-mimicry's convolutions on a GPU take TF32 inputs."""
    if name == PEER and torch.device(device).type == "cuda":
        return "tf32"
    return next((precision for precision in PRECISIONS if precision in name), "fp32")


class _Probe(NamedTuple):
    """Operation that measures the machine's peak rate."""

    run: Timed
    flops: int


def measured_rates(size: Size, precisions: Iterable[str], device: str) -> dict[str, float]:
    """Rates of a convolution and of a matrix product by precision, in GFLOP/s."""
    probes = _probes(size, precisions, device)
    runs = {name: probe.run for name, probe in probes.items()}
    seconds = interleave(runs, 5, device, calls=calls_in_a_row(device))
    return {name: round(probe.flops / statistics.median(seconds[name]) / 1e9, 1) for name, probe in probes.items()}


def _probes(size: Size, precisions: Iterable[str], device: str) -> dict[str, _Probe]:
    """Probes: a 3x3 convolution of the generator's width at 16x16 pixels with both gradients, and a matrix product."""
    side = 8192 if torch.device(device).type == "cuda" else 1024
    probes = {}
    for name in dict.fromkeys(precisions):
        options: dict[str, Any] = {"device": device, "dtype": PRECISIONS[name]}
        images = torch.randn(2 * size.batch, size.generator, 16, 16, **options)
        images = images.to(memory_format=torch.channels_last).requires_grad_()
        weight = torch.randn(size.generator, size.generator, 3, 3, **options)
        weight = weight.to(memory_format=torch.channels_last).requires_grad_()
        matrix = torch.randn(side, side, **options)

        def convolve(images: Tensor = images, weight: Tensor = weight, precision: str = name) -> None:
            with float32_products(precision):
                out = F.conv2d(images, weight, padding=1)
                torch.autograd.grad(out, (images, weight), out)

        def multiply(matrix: Tensor = matrix, precision: str = name) -> None:
            with float32_products(precision):
                torch.mm(matrix, matrix)

        for what, run in ((f"convolution, {name}", convolve), (f"matrices, {name}", multiply)):
            probes[what] = _Probe(run, count_flops(run))
    return probes


def _in_a_process(make: Callable[[], Choice], device: str, threads: int) -> int:
    """Peak memory in bytes of building a variant and running two iterations in a new process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak_memory, make, device, threads).result()


def _peak_memory(make: Callable[[], Choice], device: str, threads: int) -> int:
    torch.set_num_threads(threads)
    on_cpu = torch.device(device).type == "cpu"
    if on_cpu:
        keep_freed_memory()
    before = _resident() if on_cpu else 0
    iterate = make().train_step
    iterate()
    iterate()
    return _resident() - before if on_cpu else torch.cuda.max_memory_allocated(device)


def _resident() -> int:
    """Peak resident memory of this process in bytes.

    Reads /proc if it exists, because on Linux getrusage's maximum includes that of the parent process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (peak,) = (line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return 1024 * int(peak)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
