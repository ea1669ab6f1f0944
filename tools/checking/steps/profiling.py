"""Step "profile": kernels of a few iterations by time, and their trace."""

import gzip
import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch
from benchmarks.sizes import SIZES, configure, make_step
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from checking.conditions import Conditions, Record

REPLAYS, ROWS = 5, 40
LARGEST = 16 * 2**20  # bytes of a file that comes back


def profile_replays(conditions: Conditions) -> Iterator[Record]:
    """Yields milliseconds and launches per iteration of the slowest kernels (operations on a CPU); writes the trace."""
    on_gpu = conditions.device == "cuda"
    settings = ["discriminator.normalization=srn", "train.precision=bf16", "train.fast=auto"]
    step = make_step(configure(SIZES[conditions.size], settings), conditions.device)
    replays = conditions.choose(REPLAYS, 2)
    for _ in range(3):
        step.train_step()
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_gpu else [])
    with profile(activities=activities) as profiler:
        for _ in range(replays):
            step.train_step()
        if on_gpu:
            torch.cuda.synchronize()
    rows = _kernels(profiler) if on_gpu else _operations(profiler)
    shown = sorted(rows.items(), key=lambda row: -row[1][0])[:ROWS]
    yield {
        "step": step.name,
        "iterations": replays,
        "total_ms": round(sum(time for time, _ in rows.values()) / replays, 4),
        "launches": round(sum(count for _, count in rows.values()) / replays, 1),
        "kernels": [[round(time / replays, 4), round(count / replays, 1), name] for name, (time, count) in shown],
    }
    yield {"trace": _trace(profiler, conditions.out / "trace.json.gz")}


def _kernels(profiler: profile) -> dict[str, tuple[float, int]]:
    """Milliseconds and number of launches by name of kernel or copy; ranges that mark phases are none."""
    rows: defaultdict[str, tuple[float, int]] = defaultdict(lambda: (0.0, 0))
    for event in profiler.events() or ():
        if event.device_type == DeviceType.CUDA and not event.is_user_annotation:
            time, count = rows[event.name]
            rows[event.name] = time + event.time_range.elapsed_us() / 1000, count + 1
    return dict(rows)


def _operations(profiler: profile) -> dict[str, tuple[float, int]]:
    events = [event for event in profiler.key_averages() if not event.is_user_annotation]
    return {event.key: (event.self_cpu_time_total / 1000, event.count) for event in events}


def _trace(profiler: profile, out: Path) -> str:
    """Writes the trace for https://ui.perfetto.dev unless it is too large; returns its name or the reason."""
    raw = out.with_suffix("")
    profiler.export_chrome_trace(str(raw))
    with raw.open("rb") as source, gzip.open(out, "wb") as target:
        shutil.copyfileobj(source, target)
    raw.unlink()
    size = out.stat().st_size
    if size <= LARGEST:
        return out.name
    out.unlink()
    return f"not kept: {size:,} bytes"
