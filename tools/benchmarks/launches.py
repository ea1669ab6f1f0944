"""Launches, synchronisations and memory traffic of a training iteration, counted without timing anything."""

from functools import partial
from pathlib import Path

import click
import torch

from benchmarks.counting import count_nodes, count_synchronisations, count_traffic
from benchmarks.sizes import SIZES, configure, make_trainer
from benchmarks.timing import Record, finish, machine
from benchmarks.training import PRECISIONS, named
from evaluation.runtime.command import CheckedCommand
from gan.normalization import NORMALIZATIONS
from gan.training.graph import FastStep


@click.command("launches", cls=CheckedCommand)
@click.option("--size", type=click.Choice(list(SIZES)), default="full", help="Batch size and widths.")
@click.option(
    "--normalization",
    "normalizations",
    default="none,sn,srn,wgan_gp",
    callback=partial(named, valid=[*NORMALIZATIONS]),
    help="Names separated by commas, or all.",
)
@click.option("--precision", type=click.Choice(list(PRECISIONS)), default="bf16", help="Precision of the networks.")
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Changes one setting.")
@click.option("--device", default="cpu", help="cuda, cuda:1, ...; cpu: operations and bytes only.")
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Also write the results here."
)
def measure_launches(
    size: str,
    normalizations: list[str],
    precision: str,
    overrides: tuple[str, ...],
    device: str,
    json_path: Path | None,
) -> Record:
    """Count what one iteration of the fast step does.

    "nodes" are the kernels, copies and fills of its CUDA graph; "synchronisations" are waits of the host for the device
    in an iteration without a graph; "operations" are torch's operations that compute or copy values. "GB" are the bytes
    that these read and write if every kernel reads its inputs and writes its outputs once: an estimate of the traffic
    between chip and memory. autocast differs between a CPU and a GPU, and so do the bytes in bf16.

    --set train.fast=compile compiles the networks, on a GPU only; operations and bytes are then not counted.
    """
    rows: dict[str, dict[str, float]] = {}
    for name in normalizations:
        chosen = [f"discriminator.normalization={name}", f"train.precision={precision}", *overrides]
        config = configure(SIZES[size], chosen)
        compiled = config.train.fast == "compile"
        if compiled and torch.device(device).type != "cuda":
            raise click.UsageError(f"train.fast: got compile, expected off, auto or on with --device {device}")
        step = FastStep(make_trainer(config, device).iteration, captured=False, compiled=compiled)
        step.train_step()
        rows[name] = {**count_synchronisations(step.train_step, device)}
        if not compiled:
            operations, size_of_all = count_traffic(step.train_step)
            rows[name] |= {"operations": operations, "GB": round(size_of_all / 1e9, 2)}
        rows[name] |= count_nodes(step.iterate, device)  # last: gradients are then in the graph's memory
    record: Record = {"measured": f"one iteration at size {size}: {SIZES[size]}, {precision}", **machine(device)}
    return finish(record | {"iteration": rows}, json_path)
