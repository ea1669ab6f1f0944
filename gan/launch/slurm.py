"""Several runs on a cluster: one array of Slurm jobs, each a run, submitted through submitit."""

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
"""Parameters of submitit for every kind of cluster; others go to Slurm."""


def parse_resources(text: str) -> dict[str, str | int]:
    """ "partition=gpu,timeout_min=600" -> {"partition": "gpu", "timeout_min": 600}.

    Raises:
        ConfigError: the text has another form.
    """
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(name.strip() and value.strip() for name, _, value in pairs):
        raise ConfigError(f"--slurm: got {text!r}, expected name=value, such as partition=gpu,timeout_min=600")
    stripped = {name.strip(): value.strip() for name, _, value in pairs}
    return {name: int(value) if value.isdecimal() else value for name, value in stripped.items()}


class Task:
    """A run as a job that saves and is queued again at its time limit or when it is preempted; it then resumes."""

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
        """Called by submitit before the job ends; returns the job to queue in its place."""
        from submitit.helpers import DelayedSubmission

        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait()
        return DelayedSubmission(Task(self.run))


def submit(planned: Sequence[Planned], folder: Path, resources: dict[str, str | int]) -> list[Any]:
    """Submits the runs as one array; returns submitit's jobs in the same order.

    Args:
        folder: for the jobs' logs.
        resources: submitit's and Slurm's parameters; `cluster` chooses another kind of executor, such as local.

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
