"""Trains several runs from one command: configurations, values of settings, seeds; locally or as Slurm jobs."""

import itertools
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from gan.command.options import TrainingOptions
from gan.config.loading import load, unequal
from gan.config.stored import AnyConfig
from gan.errors import ConfigError
from gan.launch.several import Planned, plan, run_all
from gan.launch.slurm import parse_resources, submit
from gan.launch.sweep import Variation, variations

FLAGS = ("resume", "skip_damaged", "deterministic", "profile")
SHOWN = 6  # most names of runs in a warning
LIMITS = ("stop_after", "max_minutes")


def train_several(kind: type[AnyConfig], module: str, options: TrainingOptions) -> None:
    """Trains every configuration with every value of the sweeps and every seed, each in a process of `module`.

    Raises:
        ConfigError: a configuration or the device cannot be used; no run has been started.
    """
    variations = _variations(options)
    configs = _configs(kind, options, variations)
    from gan.runtime.device import devices_for_runs

    fast = any(getattr(config.train, "fast", "off") != "off" for config in itertools.chain(*configs))
    devices, default = devices_for_runs(options.device, fast=fast)
    planned = _plan(configs, variations, module, options, devices)
    _warn_of_equals(planned, configs)
    if options.dry_run:
        _show(planned)
        return
    results = run_all(planned, options.at_once or default, _tell)
    statuses = [ended.status for ended in results]
    failed = [f"{run.folder} (status {status})" for run, status in zip(planned, statuses, strict=True) if status]
    _tell(f"{len(planned) - len(failed)} of {len(planned)} runs succeeded")
    if failed:
        _tell(f"failed: {', '.join(failed)}")
        if any(ended.stopped for ended in results):
            _tell("stopped by a signal; the same command with --resume continues")
        raise SystemExit(max((status for status in statuses if status > 0), default=1))
    _tell(f"next: gan-eval --index {shlex.quote(str(_folder(options)))}")


def submit_several(kind: type[AnyConfig], module: str, options: TrainingOptions) -> None:
    """Submits one Slurm job for each run and returns; a requeued job resumes its run."""
    assert options.slurm is not None
    resources = parse_resources(options.slurm)
    variations = _variations(options)
    configs = _configs(kind, options, variations)
    planned = _plan(configs, variations, module, options, [options.device], ["--resume"])
    _warn_of_equals(planned, configs)
    if options.dry_run:
        _show(planned)
        return
    logs = _folder(options) / "slurm"
    for run, job in zip(planned, submit(planned, logs, resources), strict=True):
        click.echo(f"job {job.job_id}: {run.folder}")
    click.echo(f"logs: {logs}")


def _show(planned: Sequence[Planned]) -> None:
    """Prints the command of each run, and how many there are."""
    for run in planned:
        click.echo(shlex.join(["python", "-m", run.module, *run.arguments]))
    click.echo(f"{len(planned)} run{'s' * (len(planned) != 1)}, none started")


def _tell(line: str) -> None:
    click.echo(line, err=True)


def _folder(options: TrainingOptions) -> Path:
    return options.run_folder or Path("runs")


def _warn_of_equals(planned: Sequence[Planned], configs: Sequence[Sequence[AnyConfig]]) -> None:
    """Names runs that train alike because the settings in which they differ have no effect."""
    alike: dict[tuple[str, str], list[tuple[str, AnyConfig]]] = {}
    for run, config in zip(planned, itertools.chain(*configs), strict=True):
        # The identity leaves out where images are, but other places may hold other images.
        alike.setdefault((config.identity(), config.data.root), []).append((run.folder.name, config))
    for runs in alike.values():
        if len(runs) > 1:
            names, found = zip(*runs, strict=True)
            settings = dict.fromkeys(place for other in found[1:] for place in unequal(found[0], other))
            reason = f" ({', '.join(settings)}: no effect on training here)" if settings else ""
            more = f" and {len(names) - SHOWN} more" * (len(names) > SHOWN)
            _tell(f"warning: these runs train alike: {', '.join(names[:SHOWN])}{more}{reason}")


def _variations(options: TrainingOptions) -> list[Variation]:
    """Returns the differences of the runs of one configuration.

    Raises:
        ConfigError: a sweep has another form, or its setting is also given by --set, or it is that of the name.
    """
    found = variations(options.sweeps, options.seeds)
    given = {override.partition("=")[0].strip() for override in options.overrides}
    for sweep in options.sweeps:
        if sweep.partition("=")[0].strip() == "name":
            raise ConfigError("--sweep name: runs are named by the values of the other sweeps; leave it out")
        if (place := sweep.partition("=")[0].strip()) in given:
            raise ConfigError(f"--sweep {place}: is also given by --set; leave one of them out")
    return found


def _configs(kind: type[AnyConfig], options: TrainingOptions, variations: Sequence[Variation]) -> list[list[AnyConfig]]:
    """Loads and checks every --config with every variation.

    Raises:
        ConfigError: a configuration cannot be used, or none is given.
    """
    if options.print_config:
        raise ConfigError("--print-config: needs a single --config, without --seeds, --sweep and --slurm")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("--seeds, --sweep, or several --config: each run starts its own process; do not use torchrun")
    varied = [
        [load(kind, name, [*options.overrides, *variation.overrides], options.variants) for variation in variations]
        for name in options.config_names
    ]
    if not varied:
        raise ConfigError("--seeds, --sweep, --slurm: need --config")
    _check([*itertools.chain(*varied)], options.start)
    return varied


def _check(configs: Sequence[AnyConfig], start: Path | None) -> None:
    """Checks configurations and, once for all with equal networks, whether the ones to begin with fit.

    Raises:
        UserError: a configuration cannot be used, or the networks do not fit it.
    """
    from gan.runs.engine import kind_of

    for config in configs:
        kind_of(config).check()
    if start is not None:
        shaping: Any = {"data": {"image_size", "channels"}, "generator": True, "discriminator": True}
        shapes = [config.model_dump_json(include=shaping) for config in configs]
        for config in dict(zip(shapes, configs, strict=True)).values():
            kind_of(config, start).check()


def _plan(
    configs: Sequence[Sequence[AnyConfig]],
    variations: Sequence[Variation],
    module: str,
    options: TrainingOptions,
    devices: Sequence[str],
    flags: Sequence[str] = (),
) -> list[Planned]:
    """Plans a run of every configuration with every variation, with the given options and `flags`.

    Raises:
        ConfigError: two runs would share a folder.
    """
    chosen = [f"--{name.replace('_', '-')}" for name in FLAGS if getattr(options, name)]
    limits = [f"--{name.replace('_', '-')}={value}" for name in LIMITS if (value := getattr(options, name))]
    shared = [
        *(f"--with={variant}" for variant in options.variants),
        *(f"--set={override}" for override in options.overrides),
        *([] if options.start is None else [f"--from={options.start}"]),
        *(f"--import={source}" for source in options.imports),
        *dict.fromkeys([*flags, *chosen]),
        *limits,
    ]
    named = [(varied[0].name, name) for varied, name in zip(configs, options.config_names, strict=True)]
    planned = plan(named, variations, _folder(options), shared, devices, module)
    if len({run.folder for run in planned}) < len(planned):
        raise ConfigError(
            "--config, --sweep: two configurations or values have the same name, so their runs would share a folder; "
            "train them separately"
        )
    return planned
