"""Where the time of an iteration goes: a trace of a few, by torch's profiler."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch.autograd.profiler_util import FunctionEventAvg
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from gan.training.trainer import Trainer

SKIPPED, TRACED = 3, 3
"""Iterations before the trace, in which memory is allocated and kernels are chosen, and those in it."""
ROWS = 12
ITERATION = "iteration"
PHASES = {"generator_step": "generator step", "discriminator_step": "discriminator step", "_update": "power iteration"}
"""Methods of the trainer, and what they are called in the trace."""


@contextmanager
def traced(
    trainer: Trainer, train_step: Callable[[], None], folder: Path, say: Callable[[str], None]
) -> Iterator[Callable[[], None]]:
    """Yields `train_step`, of which iterations SKIPPED + 1 to SKIPPED + TRACED are traced, or as many as come.

    Then `folder`/trace.json is written, for https://ui.perfetto.dev or chrome://tracing, and the time of the phases and
    of the most expensive operations is told to `say`; or that there were too few, or that no file could be written: a
    run does not end for that. A CUDA graph has no phases, only kernels. What is computed does not change; the traced
    iterations are slower.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # its word on a missing GPU is no news
    device = trainer.device.type
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device == "cuda" else [])

    told: list[str] = []

    def write(profiler: profile) -> None:
        events = list(profiler.key_averages())
        if not any(event.key == ITERATION for event in events):
            return
        told.append(_summary(events, on_gpu=device == "cuda"))
        say(told[0])
        path = folder / "trace.json"
        with suppress(OSError):
            folder.mkdir(exist_ok=True)
            path.unlink(missing_ok=True)
        profiler.export_chrome_trace(str(path))  # says nothing of a disk that is full
        written = f"trace: {path}; open it at https://ui.perfetto.dev"
        say(written if path.exists() else f"{path}: cannot be written")

    plan = schedule(wait=0, warmup=SKIPPED, active=TRACED, repeat=1)
    with (
        _named_phases(trainer),
        profile(activities=activities, schedule=plan, on_trace_ready=write, acc_events=True) as profiler,
    ):

        def step() -> None:
            with record_function(ITERATION):
                train_step()
            profiler.step()

        yield step
    if not told:
        say(f"nothing traced: the first {SKIPPED} iterations are left out, and no more came")


def _summary(events: list[FunctionEventAvg], *, on_gpu: bool) -> str:
    """Phases with all that is in them, then operations with what is not in others; a GPU's own time where there is one.

    Each line: milliseconds per iteration, share of the traced time, calls per iteration, name.
    """
    own = {event.key: event.self_device_time_total if on_gpu else event.self_cpu_time_total for event in events}
    names = {"real images", *PHASES.values()}
    (iterations,) = (event.count for event in events if event.key == ITERATION)
    phases = [event for event in events if event.key in names]
    operations = [event for event in events if event.key not in names | {ITERATION}]
    operations = [event for event in operations if not str(event.key).startswith("ProfilerStep")]
    operations = sorted(operations, key=lambda event: own[event.key], reverse=True)[:ROWS]
    whole = sum(own.values())

    def lines(shown: Iterable[FunctionEventAvg], time: Callable[[FunctionEventAvg], float]) -> Iterator[str]:
        for event in shown:
            spent = time(event)
            share, calls = f"{spent / whole:6.1%}", event.count / iterations
            yield f"{spent / 1000 / iterations:10.2f} ms {share} {calls:8.0f} x  {event.key}"

    return "\n".join(
        [
            f"per iteration (mean of {iterations}): time, share, calls",
            *lines(phases, lambda event: event.device_time_total if on_gpu else event.cpu_time_total),
            "of which",
            *lines(operations, lambda event: own[event.key]),
        ]
    )


@contextmanager
def _named_phases(trainer: Trainer) -> Iterator[None]:
    """Inside, the phases of the trainer's iterations carry their names in a trace."""
    places = [(trainer, method, name) for method, name in PHASES.items()]
    places += [(trainer.batches, "batch", "real images")]  # type: ignore[list-item]
    for owner, method, name in places:
        setattr(owner, method, _named(getattr(owner, method), name))
    try:
        yield
    finally:
        for owner, method, _ in places:
            delattr(owner, method)


def _named(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        with record_function(name):
            return function(*arguments)

    return call


__all__ = ["traced"]
