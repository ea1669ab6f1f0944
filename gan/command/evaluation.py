"""Implementation of gan-eval and gan-eval-classifier. Imports torch only after the options are checked."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gan.command import describe
from gan.command.options import EvaluationOptions, check_found, check_source
from gan.config.stored import AnyConfig
from gan.errors import ConfigError

if TYPE_CHECKING:
    from gan.config import Config
    from gan.runs.checkpoint import Checkpoint
    from gan.runtime.distributed import Processes


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
        if not _names_real_images(options):
            check_found(options.checkpoint, options.run, kind.kind)
        _measure(kind, options)


def _names_real_images(options: EvaluationOptions) -> bool:
    """Whether options name the real images, so that no run is needed."""
    return options.config_name is not None or options.reference is not None


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
    writes = options.write_statistics is not None
    if writes and (options.generated or options.test or options.metrics or options.out):
        raise ConfigError("--write-statistics: measures nothing; leave out --generated, --test, --metrics and --out")
    if writes and named and source:
        raise ConfigError(f"--write-statistics: got {named[0]} and a run, expected one source of the real images")
    if options.generated is None and not writes and (named or options.test is not None):
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
    from gan.measuring.checkpoints import measure_checkpoint, measure_generated
    from gan.measuring.statistics import write_statistics
    from gan.runtime.device import prepared_device
    from gan.runtime.distributed import started

    with prepared_device(options.device, options.deterministic) as device, started(device) as processes:
        config = _config(options, overrides) if _names_real_images(options) else None
        read = _checkpoint(kind, options, processes) if config is None else None
        if options.write_statistics is not None:
            source = read if config is None else config
            assert source is not None
            text = write_statistics(options.write_statistics, source, overrides, options.reference, device, processes)
        elif options.generated is not None:
            assert config is not None
            real = options.reference, options.test
            text = _shown(
                measure_generated(options.generated, config, options.metrics, device, processes, options.out, real)
            )
        else:
            assert read is not None
            text = _shown(measure_checkpoint(kind, read, options.metrics, overrides, device, processes, options.out))
    if processes.is_first:
        click.echo(text)


def _shown(measured: tuple[Any, Path]) -> str:
    """Formats a report and the folder in which it is."""
    report, folder = measured
    return f"{report.table()}\nreport: {folder}"


def _config(options: EvaluationOptions, overrides: Sequence[str]) -> "Config":
    """Loads the configuration of the real images; without --config, the protocol is that of `python -m evaluation`."""
    from gan.config import load_config
    from gan.config.gan import standalone_config

    if options.config_name is None:
        return standalone_config(overrides)
    return load_config(options.config_name, overrides, options.variants)


def _checkpoint(kind: type[AnyConfig], options: EvaluationOptions, processes: "Processes") -> "Checkpoint":
    """Returns the chosen checkpoint and prints its path."""
    from gan.runs.choice import read_chosen

    read = processes.first(lambda: read_chosen(options.checkpoint, options.run, options.best, kind=kind.kind))
    if processes.is_first:
        click.echo(f"checkpoint: {read.path}")
    return read
