"""Implementation of gan-eval and gan-eval-classifier. Imports torch only after the options are checked."""

import json
from dataclasses import replace
from pathlib import Path

import click

from gan.command import describe
from gan.command.options import EvaluationOptions, check_found, check_source
from gan.config.stored import AnyConfig
from gan.errors import ConfigError


def evaluation_command(kind: type[AnyConfig], options: EvaluationOptions) -> None:
    """Runs an evaluation command.

    Args:
        kind: class of the configurations.
        options: values of the command-line options.
    """
    if options.list_names:
        from gan.measuring.checkpoints import KINDS

        click.echo(describe(KINDS[kind.kind].registries))
    elif options.compare:
        _compare(options)
    else:
        options = _with_run(options)
        _check(options)
        if options.generated is None:
            check_found(options.checkpoint, options.run, kind.kind)
        _measure(kind, options)


def _with_run(options: EvaluationOptions) -> EvaluationOptions:
    """Returns options with --run set to a run given without it; raises ConfigError if there are several."""
    if not options.runs:
        return options
    if len(options.runs) > 1:
        raise ConfigError(f"got {len(options.runs)} runs, expected one; add --compare to compare their reports")
    if options.run is not None:
        raise ConfigError(f"{options.runs[0]}: got a second run beside --run {options.run}, expected one")
    return replace(options, run=options.runs[0], runs=())


def _compare(options: EvaluationOptions) -> None:
    """Compares reports of several runs."""
    from gan.measuring.checkpoints import compare
    from gan.runs.choice import fresh_folder

    folder = options.out or fresh_folder(Path("reports") / "comparison")
    click.echo(compare(options.runs, folder, skip_mixed=options.skip_mixed))
    click.echo(f"comparison: {folder}")


def _check(options: EvaluationOptions) -> None:
    """Raises ConfigError if options contradict each other."""
    source = options.checkpoint is not None or options.run is not None or options.best
    if options.generated is not None and source:
        raise ConfigError("--generated: cannot be combined with --run, --checkpoint or --best")
    given = {"--config": options.config_name, "--reference": options.reference, "--with": options.variants or None}
    named = [name for name, value in given.items() if value is not None]
    if options.generated is None and (named or options.test is not None):
        raise ConfigError(
            f"{named[0] if named else '--test'}: needs --generated; a checkpoint has its own configuration"
        )
    if options.generated is not None and options.config_name is None and (not options.reference or options.variants):
        raise ConfigError(
            "--generated: needs the real images: --config, or --reference with a data set such as cifar10:train, a "
            "folder or an archive; --with needs --config"
        )
    if options.test is not None and options.reference is None:
        raise ConfigError("--test: needs --reference; with --config alone, the test images are those of its data set")
    check_source(options.checkpoint, options.run, options.best)


def _measure(kind: type[AnyConfig], options: EvaluationOptions) -> None:
    """Measures a checkpoint or a folder of images, writes the report and prints its values."""
    overrides = options.overrides
    if options.inception_weights is not None:
        overrides = (*overrides, f"eval.inception_weights={json.dumps(str(options.inception_weights))}")
    from gan.config import Config, load_config
    from gan.config.loading import override_config
    from gan.measuring.checkpoints import measure_checkpoint, measure_generated
    from gan.runs.choice import choose_checkpoint
    from gan.runs.finding import find_checkpoint
    from gan.runtime.device import prepared_device
    from gan.runtime.distributed import started

    with prepared_device(options.device, options.deterministic) as device, started(device) as processes:
        if options.generated is not None:
            if options.config_name is None:
                config = override_config(Config(), overrides, "gan-eval")
            else:
                config = load_config(options.config_name, overrides, options.variants)
            real = options.reference, options.test
            report, folder = measure_generated(
                options.generated, config, options.metrics, device, processes, options.out, real
            )
        else:
            path = processes.first(
                lambda: find_checkpoint(
                    choose_checkpoint(options.checkpoint, options.run, options.best, kind=kind.kind)
                )
            )
            if processes.is_first:
                click.echo(f"checkpoint: {path}")
            report, folder = measure_checkpoint(kind, path, options.metrics, overrides, device, processes, options.out)
    if processes.is_first:
        click.echo(report.table())
        click.echo(f"report: {folder}")
