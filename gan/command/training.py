"""Implementation of gan-train and gan-train-classifier. Imports torch only after the options are checked."""

import sys

import click

from gan.command import describe
from gan.command.options import TrainingOptions
from gan.command.several import submit_several, train_several
from gan.config.files import catalogue
from gan.config.stored import AnyConfig, resolve_config
from gan.errors import ConfigError


def train_command(kind: type[AnyConfig], command: str, module: str, options: TrainingOptions) -> None:
    """Runs a training command.

    Args:
        kind: class of the configurations.
        command: name of the command, recorded in run.json.
        module: name of its module, which is executed for each of several runs.
        options: values of the command-line options.
    """
    if options.list_names:
        from gan.runs.engine import KINDS

        click.echo(f"{catalogue(kind.kind)}\n{describe(KINDS[kind.kind].registries())}")
        return
    if options.skip_damaged and not options.resume:
        raise ConfigError("--skip-damaged: needs --resume")
    if options.slurm is not None:
        submit_several(kind, module, options)
        return
    if options.seeds or options.sweeps or len(options.config_names) > 1:
        train_several(kind, module, options)
        return
    name = next(iter(options.config_names), None)
    config = resolve_config(kind, name, options.overrides, options.run_folder, options.resume, options.variants)
    if options.print_config:
        click.echo(config.to_yaml(), nl=False)
        return
    from gan.runs import engine

    if options.dry_run:
        click.echo(
            engine.dry_run(config, start=options.start, device=options.device, deterministic=options.deterministic)
        )
        return
    engine.train(
        config,
        command=" ".join([command, *sys.argv[1:]]),
        run=options.run_folder,
        start=options.start,
        resume=options.resume,
        skip_damaged=options.skip_damaged,
        stop_after=options.stop_after,
        max_minutes=options.max_minutes,
        device=options.device,
        deterministic=options.deterministic,
        profile=options.profile,
    )
