"""Time of one iteration by batch size, width, image size, threads and processes."""

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.sizes import SIZES, Size, configure, make_step
from benchmarks.timing import Record, Rows, calls_in_a_row, finish, interleave, shared_options, start, summarize
from evaluation.runtime.command import CheckedCommand
from gan.runtime.memory import keep_freed_memory

FACTORS = (0.5, 1, 2)


@click.command("scale", cls=CheckedCommand)
@click.option("--size", type=click.Choice(list(SIZES)), default="quarter", help="Size to halve and double.")
@click.option("--precision", type=click.Choice(["fp32", "tf32", "bf16"]), default="fp32")
@click.option("--processes", type=click.IntRange(1), default=os.cpu_count(), help="Maximum number of processes.")
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Changes one setting of all runs.")
@shared_options(repeats=3)
def measure_scale(
    size: str,
    precision: str,
    processes: int,
    overrides: tuple[str, ...],
    repeats: int,
    threads: int,
    device: str,
    json_path: Path | None,
) -> Record:
    """Time one iteration at other sizes, and measure the throughput of several processes at once.

    Each group's ratios are to its first row. Processes share the device and have one thread each; their row gives an
    iteration's time while all of them train, and their total images/s.
    """
    record = start(f"one generator iteration around size {size}, {precision}", repeats, threads, device)
    settings = ["discriminator.normalization=srn", f"train.precision={precision}", *overrides]
    for what, variants in _groups(SIZES[size], settings, threads, device).items():
        record[what] = summarize(interleave(variants, repeats, device, warm=1, calls=calls_in_a_row(device)))
        torch.set_num_threads(threads)
    counts = sorted({1, processes})
    record["processes"] = {str(count): _at_once(count, SIZES[size], settings, repeats, device) for count in counts}
    first = record["processes"]["1"]["median_ms"]
    for row in record["processes"].values():
        row |= {"ratio": round(row["median_ms"] / first, 3), "ratio_of_minima": round(row["minimum_ms"] / first, 3)}
    return finish(record, json_path)


def _groups(size: Size, settings: list[str], threads: int, device: str) -> dict[str, dict[str, Callable[[], Any]]]:
    def iteration(wanted: Size, *more: str) -> Callable[[], Any]:
        return make_step(configure(wanted, [*settings, *more]), device).train_step

    same = iteration(size)
    wider = {factor: Size(size.batch, *(round(factor * width) for width in size[1:])) for factor in FACTORS}
    batches = {factor: size._replace(batch=round(factor * size.batch)) for factor in FACTORS}
    groups: dict[str, dict[str, Callable[[], Any]]] = {
        "batch size": {str(wanted.batch): iteration(wanted) for wanted in batches.values()},
        "width, generator/discriminator": {
            f"{wanted.generator}/{wanted.discriminator}": iteration(wanted) for wanted in wider.values()
        },
        "image size": {"32": same, "64": iteration(_for_64_pixels(size), "data.image_size=64")},
    }
    if torch.device(device).type == "cpu":
        groups["threads"] = {
            str(count): partial(_with_threads, count, same) for count in range(1, (os.cpu_count() or 1) + 1)
        }
    return groups


def _for_64_pixels(size: Size) -> Size:
    """Size for 64x64 images: fewer channels, because these networks widen 16-fold (papers: 64 instead of 256)."""
    return Size(size.batch, max(1, size.generator // 4), max(1, size.discriminator // 2))


def _with_threads(count: int, iterate: Callable[[], Any]) -> None:
    torch.set_num_threads(count)
    iterate()


def _at_once(count: int, size: Size, settings: list[str], repeats: int, device: str) -> dict[str, Any]:
    """Row with an iteration's time while `count` processes train, and their total images/s."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(count, mp_context=context) as pool:
        barrier = manager.Barrier(count)
        running = [pool.submit(_train_beside, barrier, size, settings, repeats, device) for _ in range(count)]
        seconds = sorted(second for one in running for second in one.result())
    config = configure(size, settings).train
    rows: Rows = summarize({str(count): seconds}, count * config.d_steps * config.batch_size, "images")
    return rows[str(count)]


def _train_beside(barrier: Any, size: Size, settings: list[str], repeats: int, device: str) -> list[float]:
    """Seconds of each iteration, timed after all processes are ready."""
    torch.set_num_threads(1)
    if torch.device(device).type == "cpu":
        keep_freed_memory()
    step = make_step(configure(size, settings), device).train_step
    step()
    barrier.wait()
    return interleave({"one": step}, max(2, repeats), device, warm=0, calls=calls_in_a_row(device))["one"]
