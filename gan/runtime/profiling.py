"""Traces a few training iterations with torch's profiler."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEventAvg
from torch.profiler import ProfilerActivity, profile, record_function, schedule

SKIPPED, TRACED = 3, 3
"""Numbers of iterations before the trace, while memory is allocated and kernels are selected, and in the trace."""
ROWS = 12
ITERATION = "iteration"
PHASES = ("inputs", "generator step", "fake images", "discriminator step", "real images", "power iteration")
"""Parts of an iteration that are named in a trace; the last two are parts of a discriminator step."""


def phase(name: str) -> record_function:
    """Context manager: names a part of an iteration in a trace; costs microseconds when nothing is traced."""
    assert name in PHASES, name
    return record_function(name)


@contextmanager
def traced(
    device: torch.device, train_step: Callable[[], None], folder: Path, say: Callable[[str], None]
) -> Iterator[Callable[[], None]]:
    """Yields a `train_step` that traces iterations SKIPPED + 1 to SKIPPED + TRACED, fewer if the run ends earlier.

    After them it writes `folder`/trace.json, for https://ui.perfetto.dev or chrome://tracing, and reports the time of
    the phases and of the most expensive operations through `say`. Too few iterations and a file that cannot be written
    are reported and do not end the run. A CUDA graph has no phases, only kernels. Tracing does not change the results,
    but slows the traced iterations down.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # without this, Kineto warns of a missing GPU
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    reported: list[str] = []

    def write(profiler: profile) -> None:
        events = list(profiler.key_averages())
        if not any(event.key == ITERATION for event in events):
            return
        reported.append(summary(events))
        say(reported[0])
        path = folder / "trace.json"
        with suppress(OSError):
            folder.mkdir(exist_ok=True)
            path.unlink(missing_ok=True)
        profiler.export_chrome_trace(str(path))  # it reports no error if the disk is full
        written = f"trace: {path}; open it at https://ui.perfetto.dev"
        say(written if path.exists() else f"{path}: cannot be written")

    plan = schedule(wait=0, warmup=SKIPPED, active=TRACED, repeat=1)
    with profile(activities=activities, schedule=plan, on_trace_ready=write, acc_events=True) as profiler:

        def step() -> None:
            with record_function(ITERATION):
                train_step()
            profiler.step()

        yield step
    if not reported:
        say(f"nothing traced: the trace starts after {SKIPPED} iterations, and the run had no more")


def summary(events: Sequence[FunctionEventAvg]) -> str:
    """Returns a table of the total time of each phase and the self time of each operation or kernel.

    Columns: milliseconds per iteration, share of the iterations' time, calls per iteration, name.

    Args:
        events: averages by name and device. On a GPU the profiler reports a range twice, by its time on the host and
            by the time from its first to its last kernel, and the time of kernels twice, by kernel and by the operation
            that launched them. The table has the kernels' rows, which also hold those of a CUDA graph. Without any
            row of a device it has the times of the host.
    """
    host = [event for event in events if event.device_type == DeviceType.CPU]
    device = [event for event in events if event.device_type != DeviceType.CPU]
    kernels = [event for event in device if not event.is_user_annotation]
    ranges = {str(event.key): event.cpu_time_total for event in host}
    if kernels:
        on_device = {str(event.key): event.device_time_total for event in device if event.is_user_annotation}
        ranges = {ITERATION: ranges[ITERATION]} | on_device
        own = {str(event.key): event.self_device_time_total for event in kernels}
    else:
        own = {str(event.key): event.self_cpu_time_total for event in host}
    names = {ITERATION, *PHASES}
    operations = [event for event in kernels or host if event.key not in names]
    operations = [event for event in operations if not str(event.key).startswith("ProfilerStep")]
    operations = sorted(operations, key=lambda event: own[str(event.key)], reverse=True)[:ROWS]
    iterations = next(event.count for event in host if event.key == ITERATION)

    def lines(shown: Iterable[FunctionEventAvg], spent: Mapping[str, float]) -> Iterator[str]:
        for event in shown:
            time = spent[str(event.key)]
            share, calls = f"{time / ranges[ITERATION]:6.1%}", event.count / iterations
            yield f"{time / 1000 / iterations:10.2f} ms {share} {calls:8.0f} x  {event.key}"

    place = "on the device" if kernels else "on the host"
    return "\n".join(
        [
            f"per iteration (mean of {iterations}), {place}: time, share, calls",
            *lines((event for event in host if event.key in PHASES and event.key in ranges), ranges),
            "kernels:" if kernels else "operations:",
            *lines(operations, own),
        ]
    )


__all__ = ["PHASES", "phase", "summary", "traced"]
