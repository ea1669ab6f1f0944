"""Timing of several variants in turn in one process, and tables of the results."""

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import torch

from gan.runs.folder import processor
from gan.runtime.memory import keep_freed_memory

Record = dict[str, Any]
Rows = dict[str, dict[str, Any]]
COLUMNS = ("median_ms", "quartile1_ms", "quartile3_ms", "minimum_ms")


def shared_options(repeats: int, fewest: int = 2) -> Callable[[Callable[..., Record]], Callable[..., Record]]:
    """Decorator that adds the options of every benchmark: --repeats, --threads, --device and --json.

    Args:
        repeats: default number of timed rounds.
        fewest: minimum number of timed rounds; quartiles need two.
    """
    options = (
        click.option(
            "--repeats",
            type=click.IntRange(fewest),
            default=repeats,
            help="Timed rounds, each with all variants.",
        ),
        click.option("--threads", type=click.IntRange(1), default=1, help="Number of torch's threads on the CPU."),
        click.option("--device", default="cpu", help="cpu, cuda, cuda:1, ..."),
        click.option(
            "--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Also write the results here."
        ),
    )

    def decorate(command: Callable[..., Record]) -> Callable[..., Record]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def start(measured: str, repeats: int, threads: int, device: str) -> Record:
    """Sets up torch and the allocator as gan-train does; returns the conditions of the measurement."""
    torch.set_num_threads(threads)
    return {
        "measured": measured,
        "repeats": repeats,
        **machine(device),
        "freed memory": "kept" if torch.device(device).type == "cpu" and keep_freed_memory() else "system default",
    }


def finish(record: Record, json_path: Path | None) -> Record:
    """Prints the record as Markdown, writes it as JSON if there is a path, and returns it."""
    if json_path is not None:
        json_path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    click.echo(markdown(record))
    return record


def calls_in_a_row(device: str) -> int:
    """Iterations between two clock readings: several on a GPU, because the host runs ahead of it in training."""
    return 10 if torch.device(device).type == "cuda" else 1


def interleave(
    variants: Mapping[str, Callable[[], Any]], repeats: int, device: str, warm: int = 3, calls: int = 1
) -> dict[str, list[float]]:
    """Times variants in turn, A B C A B C ..., after `warm` untimed rounds; returns seconds per call.

    Args:
        calls: calls of a variant between two clock readings; with several, the host may run ahead of a GPU.
    """
    wait = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for index in range(-warm, repeats):
        for name, run in variants.items():
            wait()
            begin = time.perf_counter()
            for _ in range(calls):
                run()
            wait()
            if index >= 0:
                seconds[name].append((time.perf_counter() - begin) / calls)
    return seconds


def add_whole_run(rows: Rows, iterations: int, calls: int = 1) -> None:
    """Adds to each row the minutes that `iterations` iterations take; its median time is that of `calls` iterations."""
    for row in rows.values():
        row[f"minutes_for_{iterations:,}_iterations"] = round(row["median_ms"] / calls * iterations / 60_000, 1)


def summarize(seconds: dict[str, list[float]], work: float = 0.0, unit: str = "") -> Rows:
    """Median, quartiles and minimum in milliseconds, with ratios of median and minimum to the first variant's.

    Args:
        work: work of one call of a variant in `unit`, such as 640 "images"; 0 gives no rate.
    """
    first = next(iter(seconds.values()))
    reference = statistics.median(first)
    rows: Rows = {}
    for name, values in seconds.items():
        low, middle, high = statistics.quantiles(values, n=4)
        figures = (middle, low, high, min(values))
        rows[name] = {key: round(1000 * value, 4) for key, value in zip(COLUMNS, figures, strict=True)}
        rows[name]["ratio"] = round(middle / reference, 3)
        rows[name]["ratio_of_minima"] = round(min(values) / min(first), 3)
        if work:
            rows[name][f"{unit}_per_s"] = round(work / middle, 2)
    return rows


def machine(device: str) -> Record:
    """Device, number of threads and versions."""
    return {
        "device": torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def markdown(record: Record) -> str:
    """Record as Markdown: a list of the conditions, then one table per group of variants."""
    lines = [f"- {key}: {value}" for key, value in record.items() if not isinstance(value, dict)]
    for what, rows in record.items():
        if isinstance(rows, dict):
            lines += ["", *_table(what, rows)]
    return "\n".join(lines) + "\n"


def _table(what: str, rows: Rows) -> list[str]:
    """Table of one group: times, ratios and inverse ratio, then the other entries of the rows."""
    known = {*COLUMNS, "ratio", "ratio_of_minima"}
    others = list(dict.fromkeys(key for row in rows.values() for key in row if key not in known))
    if not any(key in row for row in rows.values() for key in known):  # counts alone
        table = [[what, *others], ["---"] * (1 + len(others))]
        table += [[name, *(str(row.get(key, "")) for key in others)] for name, row in rows.items()]
        return ["| " + " | ".join(cells) + " |" for cells in table]
    heads = [what, "median ms", "quartiles", "minimum", "ratio", "of minima", "times as fast"]
    heads += [key.replace("_per_s", "/s").replace("_", " ") for key in others]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, row in rows.items():
        median, low, high, minimum = (f"{row[key]:,.{1 if row['median_ms'] >= 1000 else 3}f}" for key in COLUMNS)
        cells = [name, median, f"{low} .. {high}", minimum, f"{row['ratio']:.2f}", f"{row['ratio_of_minima']:.2f}"]
        cells += [f"{1 / row['ratio']:.2f}" if row["ratio"] else "", *(str(row.get(key, "")) for key in others)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines
