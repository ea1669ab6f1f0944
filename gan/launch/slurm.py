"""Submits several runs to a Slurm cluster as one job array, through submitit."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gan.errors import ConfigError
from gan.launch.several import Planned

SHARED = {
    "name",
    "nodes",
    "tasks_per_node",
    "cpus_per_task",
    "gpus_per_node",
    "mem_gb",
    "timeout_min",
    "stderr_to_stdout",
}
"""Parameters that submitit accepts for every kind of cluster; others are passed to Slurm."""


def parse_resources(text: str) -> dict[str, str | int]:
    """Parses resources such as "partition=gpu,timeout_min=600"; whole numbers become int.

    Raises:
        ConfigError: the text does not have this form.
    """
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(name.strip() and value.strip() for name, _, value in pairs):
        raise ConfigError(f"--slurm: got {text!r}, expected name=value, such as partition=gpu,timeout_min=600")
    stripped = {name.strip(): value.strip() for name, _, value in pairs}
    return {name: int(value) if value.isdecimal() else value for name, value in stripped.items()}


class Task:
    """Slurm job of one run. At its time limit or when preempted it saves and is requeued; later it resumes."""

    def __init__(self, run: Planned) -> None:
        self.run = run
        self.process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> str:
        """Trains to the end; returns the run folder.

        Raises:
            subprocess.CalledProcessError: the run failed; its output is in the job's log.
        """
        command = [sys.executable, "-m", self.run.module, *self.run.arguments]
        self.process = subprocess.Popen(command)
        status = self.process.wait()
        if status:
            raise subprocess.CalledProcessError(status, command)
        return str(self.run.folder)

    def checkpoint(self) -> Any:
        """Stops the run before submitit ends the job; returns the job to submit in its place."""
        from submitit.helpers import DelayedSubmission

        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait()
        return DelayedSubmission(Task(self.run))


def submit(planned: Sequence[Planned], folder: Path, resources: dict[str, str | int]) -> list[Any]:
    """Submits the runs as one array; returns submitit's jobs in the same order.

    Args:
        folder: folder of the jobs' logs.
        resources: parameters of submitit and Slurm; `cluster` selects another executor, such as "local".

    Raises:
        ConfigError: submitit or Slurm is missing, or a parameter is unknown.
    """
    try:
        import submitit
    except ImportError:
        raise ConfigError("--slurm: needs submitit; pip install 'srn-gan[slurm]'") from None
    cluster = str(resources.get("cluster", "slurm"))
    chosen = {
        name if name in SHARED else f"{cluster}_{name}": value for name, value in resources.items() if name != "cluster"
    }
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        executor.update_parameters(**chosen)
        with executor.batch():
            return [executor.submit(Task(run)) for run in planned]
    except (NameError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"--slurm: {' '.join(str(error).split())}") from None


__all__ = ["Task", "parse_resources", "submit"]
