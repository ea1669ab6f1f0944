"""Trains several runs from one command, every configuration with every seed, locally or as Slurm jobs."""

import os
from collections.abc import Sequence
from pathlib import Path

import click

from gan.command.options import TrainingOptions
from gan.config.loading import load
from gan.config.stored import AnyConfig
from gan.errors import ConfigError
from gan.launch.several import Planned, plan, run_all
from gan.launch.slurm import parse_resources, submit

FLAGS = ("resume", "skip_damaged", "deterministic", "profile", "dry_run")
LIMITS = ("stop_after", "max_minutes")


def train_several(kind: type[AnyConfig], module: str, options: TrainingOptions) -> None:
    """Trains every configuration with every seed, each in a process that runs `module`.

    Raises:
        ConfigError: a configuration or the device cannot be used; no run has been started.
    """
    configs = _configs(kind, options)
    from gan.runtime.device import devices_for_runs

    fast = any(getattr(config.train, "fast", "off") != "off" for config, _ in configs)
    devices, default = devices_for_runs(options.device, fast=fast)
    planned = _plan(_named(configs), module, options, devices)
    statuses = [ended.status for ended in run_all(planned, options.at_once or default, _tell)]
    failed = [f"{run.folder} (status {status})" for run, status in zip(planned, statuses, strict=True) if status]
    _tell(f"{len(planned) - len(failed)} of {len(planned)} runs succeeded")
    if failed:
        _tell(f"failed: {', '.join(failed)}")
        raise SystemExit(max((status for status in statuses if status > 0), default=1))


def submit_several(kind: type[AnyConfig], module: str, options: TrainingOptions) -> None:
    """Submits one Slurm job for each run and returns; a requeued job resumes its run."""
    assert options.slurm is not None
    resources = parse_resources(options.slurm)
    planned = _plan(_named(_configs(kind, options)), module, options, [options.device], ["--resume"])
    logs = (options.run_folder or Path("runs")) / "slurm"
    for run, job in zip(planned, submit(planned, logs, resources), strict=True):
        click.echo(f"job {job.job_id}: {run.folder}")
    click.echo(f"logs: {logs}")


def _tell(line: str) -> None:
    click.echo(line, err=True)


def _configs(kind: type[AnyConfig], options: TrainingOptions) -> list[tuple[AnyConfig, str]]:
    """Loads and checks the configurations; returns each with its value of --config.

    Raises:
        ConfigError: a configuration cannot be used, or none is given.
    """
    if options.print_config:
        raise ConfigError("--print-config: needs a single --config, without --seeds and --slurm")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("--seeds, or several --config: each run starts its own process; do not use torchrun")
    configs = [(load(kind, name, options.overrides, options.variants), name) for name in options.config_names]
    if not configs:
        raise ConfigError("--seeds, --slurm: need --config")
    from gan.runs.engine import kind_of

    for config, _ in configs:
        kind_of(config).check()
    return configs


def _named(configs: Sequence[tuple[AnyConfig, str]]) -> list[tuple[str, str]]:
    """Returns the name of each configuration and its value of --config."""
    return [(config.name, name) for config, name in configs]


def _plan(
    configs: Sequence[tuple[str, str]],
    module: str,
    options: TrainingOptions,
    devices: Sequence[str],
    flags: Sequence[str] = (),
) -> list[Planned]:
    """Plans a run of every configuration with every seed, with the given options and `flags`.

    Raises:
        ConfigError: two runs would share a folder.
    """
    chosen = [f"--{name.replace('_', '-')}" for name in FLAGS if getattr(options, name)]
    limits = [f"--{name.replace('_', '-')}={value}" for name in LIMITS if (value := getattr(options, name))]
    shared = [
        *(f"--with={variant}" for variant in options.variants),
        *(f"--set={override}" for override in options.overrides),
        *dict.fromkeys([*flags, *chosen]),
        *limits,
    ]
    folder = options.run_folder or Path("runs")
    planned = plan(configs, options.seeds, folder, shared, devices, module)
    if len({run.folder for run in planned}) < len(planned):
        raise ConfigError(
            "--config: two configurations have the same name, so their runs would share a folder; train them separately"
        )
    return planned
