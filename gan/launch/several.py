"""Several runs at once: every configuration with every seed, each a process of its own.

One small GAN leaves most of a GPU, and the second core of a CPU, idle. joblib keeps `at_once` of them going.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple

Say = Callable[[str], None]


class Planned(NamedTuple):
    """A run as a process: `python -m module arguments`, whose lines are printed with the name of `folder`."""

    folder: Path
    arguments: list[str]
    module: str


class Ended(NamedTuple):
    """status: of the process, -1 where it did not start. seconds: that it took. stopped: a signal was to end it."""

    status: int
    seconds: float
    stopped: bool = False


def plan(
    configs: Sequence[tuple[str, str]],
    seeds: Sequence[int],
    folder: Path,
    arguments: Sequence[str],
    devices: Sequence[str],
    module: str,
) -> list[Planned]:
    """Every configuration with every seed, in `folder`/<name>-seed<seed>; the devices take turns.

    Args:
        configs: (name, what to give to --config).
        seeds: replace train.seed; none: its value stays, and the folder is `folder`/<name>.
        arguments: that all share.
    """
    planned: list[Planned] = []
    for name, config in configs:
        for seed in seeds or (None,):
            run = folder / (name if seed is None else f"{name}-seed{seed}")
            own = ["--config", config, "--run", str(run), "--device", devices[len(planned) % len(devices)]]
            own += [] if seed is None else ["--set", f"train.seed={seed}"]
            planned.append(Planned(run, [*own[:2], *arguments, *own[2:]], module))
    return planned


def run_all(planned: Sequence[Planned], at_once: int, say: Say) -> list[Ended]:
    """Runs them, at most `at_once` together; returns how they ended.

    A run that fails does not stop the others. The first Ctrl-C or SIGTERM goes on to all that are running, which save
    and stop, and no more are started; the second ends them at once. Where OMP_NUM_THREADS is not set, the runs share
    the cores.
    """
    threads = max(1, (os.cpu_count() or 1) // at_once)
    environment = {"OMP_NUM_THREADS": str(threads)} | os.environ
    with _forwarding_signals() as processes, ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(lambda run: processes.run(run, environment, say), planned))


class _Processes:
    """Those that are running, so that a signal reaches them."""

    def __init__(self) -> None:
        self.running: set[subprocess.Popen[str]] = set()
        self.stopped = False
        self._lock = threading.RLock()  # the signal's handler may interrupt its own thread

    def run(self, run: Planned, environment: dict[str, str], say: Say) -> Ended:
        """One process, from its start to its end, telling its lines."""
        start = time.monotonic()
        command = [sys.executable, "-m", run.module, *run.arguments]
        with self._lock:
            if self.stopped:
                return Ended(-1, 0.0, stopped=True)
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,  # a terminal's Ctrl-C reaches it through `send` only, once
            )
            self.running.add(process)
        with process:
            for line in process.stdout or ():
                say(f"[{run.folder.name}] {line.rstrip()}")
        with self._lock:
            self.running.discard(process)
        return Ended(process.returncode, time.monotonic() - start, self.stopped)

    def send(self, number: int, frame: FrameType | None) -> None:
        with self._lock:
            self.stopped = True
            for process in self.running:
                process.send_signal(number)


@contextmanager
def _forwarding_signals() -> Iterator[_Processes]:
    processes = _Processes()
    previous = {number: signal.signal(number, processes.send) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield processes
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


__all__ = ["Ended", "Planned", "plan", "run_all"]
