"""Runs several trainings as parallel processes: one small GAN leaves most of a CPU's cores idle."""

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

from gan.launch.sweep import Variation

Say = Callable[[str], None]


class Planned(NamedTuple):
    """A run to start as `python -m module arguments`; its output lines are prefixed with the name of `folder`."""

    folder: Path
    arguments: list[str]
    module: str


class Ended(NamedTuple):
    """Result of a process.

    Attributes:
        status: exit status, -1 if the process was not started.
        seconds: wall time.
        stopped: whether a signal was forwarded to it.
    """

    status: int
    seconds: float
    stopped: bool = False


def plan(
    configs: Sequence[tuple[str, str]],
    variations: Sequence[Variation],
    folder: Path,
    arguments: Sequence[str],
    devices: Sequence[str],
    module: str,
) -> list[Planned]:
    """Plans every configuration with every variation, in `folder`/<name>-<variation>, on the devices in turn.

    Args:
        configs: name and value of --config of each configuration.
        variations: differences of the runs of one configuration; the folder of one without a name is `folder`/<name>.
        arguments: further arguments of every run.
        module: module of the command.
    """
    planned: list[Planned] = []
    for name, config in configs:
        for variation in variations:
            run = folder / "-".join(filter(None, (name, variation.name)))
            own = ["--config", config, "--run", str(run), "--device", devices[len(planned) % len(devices)]]
            own += [part for override in variation.overrides for part in ("--set", override)]
            planned.append(Planned(run, [*own[:2], *arguments, *own[2:]], module))
    return planned


def run_all(planned: Sequence[Planned], at_once: int, say: Say) -> list[Ended]:
    """Runs at most `at_once` processes in parallel and returns how each ended.

    A run that fails does not stop the others. The first Ctrl-C or SIGTERM is forwarded to the running processes, which
    save and stop, and no more are started; the second one ends them immediately. Unless OMP_NUM_THREADS is set, the
    cores are divided equally among the parallel runs.
    """
    threads = max(1, (os.cpu_count() or 1) // at_once)
    environment = {"OMP_NUM_THREADS": str(threads)} | os.environ
    with _forwarding_signals() as processes, ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(lambda run: processes.run(run, environment, say), planned))


class _Processes:
    """Running processes, to which signals are forwarded."""

    def __init__(self) -> None:
        self.running: set[subprocess.Popen[str]] = set()
        self.stopped = False
        self._lock = threading.RLock()  # reentrant: `send`, a signal handler, may interrupt `run` in the same thread

    def run(self, run: Planned, environment: dict[str, str], say: Say) -> Ended:
        """Runs one process and passes its output lines to `say`."""
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
                start_new_session=True,  # a new session, which a terminal's Ctrl-C reaches only through `send`
            )
            self.running.add(process)
        with process:
            for line in process.stdout or ():
                say(f"[{run.folder.name}] {line.rstrip()}")
        with self._lock:
            self.running.discard(process)
        return Ended(process.returncode, time.monotonic() - start, self.stopped)

    def send(self, number: int, frame: FrameType | None) -> None:
        """Signal handler that forwards the signal to all running processes."""
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
