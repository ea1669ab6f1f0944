"""Command-line options that several commands share. Imports no torch."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from gan.errors import ConfigError

Decorated = Callable[..., Any]
Decorator = Callable[[Decorated], Decorated]

FOLDER = click.Path(path_type=Path)
MOST_SEEDS, LARGEST_SEED = 10**6, 2**31 - 1


def read_seeds(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...]:
    """Click callback that parses seeds such as "0,1,2" or "0-9,100"; returns () if the option is not given."""
    if value is None:
        return ()
    got = f"got {value[:100]!r}, expected"
    matches = [re.fullmatch(r"\s*([0-9]+)(?:-([0-9]+))?\s*", part) for part in value.split(",")]
    bounds = [(match[1], match[2] or match[1]) for match in matches if match]
    if len(bounds) < len(matches):
        raise click.BadParameter(f"{got} whole numbers and ranges, such as 0,1,2 or 0-9,100")
    if any(len(number) > 10 or int(number) > LARGEST_SEED for bound in bounds for number in bound):
        raise click.BadParameter(f"{got} seeds up to {LARGEST_SEED}")
    ranges = [range(int(first), int(last) + 1) for first, last in bounds]
    if not all(ranges):
        raise click.BadParameter(f"{got} the smaller seed of a range first")
    if sum(map(len, ranges)) > MOST_SEEDS:
        raise click.BadParameter(f"{got} at most {MOST_SEEDS:,} seeds")
    seeds = tuple(seed for part in ranges for seed in part)
    if len(set(seeds)) < len(seeds):
        raise click.BadParameter(f"{got} each seed once")
    return seeds


DEVICE = (
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ..."),
    click.option("--deterministic", is_flag=True, help="Make results bit-reproducible, also on a GPU; slower."),
)
VARIANTS = click.option(
    "--with", "variants", multiple=True, metavar="NAME", help="Apply a variant to --config (see --list)."
)
IMPORT = click.option(
    "--import",
    "imports",
    multiple=True,
    metavar="FILE",
    help="Execute a Python file, or a module by its name, that adds a model, loss, metric, ... to the names that "
    "settings accept; may be repeated.",
)
TRAINING = (
    click.option(
        "--config",
        "config_names",
        multiple=True,
        help="File, or name of an installed configuration (see --list); repeat it to train several runs.",
    ),
    VARIANTS,
    click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Change one setting; may be repeated."),
    click.option(
        "--run",
        "--run-folder",  # torchrun would read "--run" as an abbreviation of its own --run-path
        "run_folder",
        type=FOLDER,
        help="Folder of the run. [default: runs/<name>-<time>]",
    ),
    click.option(
        "--resume",
        is_flag=True,
        help="Continue from the newest checkpoint of --run, or of the newest run with this configuration.",
    ),
    click.option("--skip-damaged", is_flag=True, help="With --resume: rename damaged checkpoints and skip them."),
    click.option("--stop-after", type=click.IntRange(1), metavar="STEP", help="Save and exit after this step."),
    click.option("--max-minutes", type=click.FloatRange(0, 1e6, min_open=True), help="Save and exit after this time."),
    click.option(
        "--seeds", callback=read_seeds, metavar="0,1,2", help="Train one run per seed, instead of with train.seed."
    ),
    click.option(
        "--sweep",
        "sweeps",
        multiple=True,
        metavar="A.B=C,D",
        help="Train one run per value of a setting; of several --sweep, one per combination.",
    ),
    click.option(
        "--at-once",
        type=click.IntRange(1),
        help="Number of parallel runs. [default: one per core; four per GPU, one with the fast step]",
    ),
    click.option(
        "--slurm",
        metavar="NAME=VALUE,...",
        help="Submit the runs as a Slurm job array, for example with partition=gpu,timeout_min=600,gpus_per_node=1.",
    ),
    IMPORT,
    *DEVICE,
    click.option(
        "--dry-run",
        is_flag=True,
        help="Print the sizes of the networks, or the commands of several runs, without training.",
    ),
    click.option("--print-config", is_flag=True, help="Print the resolved configuration, without checking names."),
    click.option(
        "--list", "list_names", is_flag=True, help="List all configurations, data sets, models and other names."
    ),
)

START = click.option(
    "--from",
    "start",
    type=FOLDER,
    metavar="CHECKPOINT",
    help="Begin with the networks of this checkpoint or run folder, with new optimizers.",
)
PROFILE = click.option(
    "--profile",
    is_flag=True,
    help="Trace iterations 4 to 6 into RUN/profile, print where their time goes and train on; "
    "--stop-after 6 ends there.",
)


CHECKPOINT = (
    click.option("--checkpoint", type=FOLDER, help="Checkpoint file."),
    click.option("--run", type=FOLDER, help="Run folder, for its newest checkpoint. [default: newest in ./runs]"),
)
BEST = click.option("--best", is_flag=True, help="Use the run's best checkpoint, which train.keep_best keeps.")
EVALUATION = (
    click.option("--metrics", help="Names separated by commas, see --list. [default: eval.metrics]"),
    *CHECKPOINT,
    click.option("--out", type=FOLDER, help="Folder of the report. [default: reports/<step> in the run]"),
    click.option(
        "--set", "overrides", multiple=True, metavar="eval.A=B", help="Change one setting of eval; may be repeated."
    ),
    IMPORT,
    *DEVICE,
    click.option("--compare", is_flag=True, help="Compare the reports of the given RUNs, run or report folders."),
    click.option("--skip-mixed", is_flag=True, help="With --compare: leave out values of different protocols."),
    click.option("--list", "list_names", is_flag=True, help="List all metrics and other names that settings accept."),
    click.argument("runs", nargs=-1, type=FOLDER, metavar="[RUN ...]"),
)


@dataclass(frozen=True)
class TrainingOptions:
    """Values of the options in TRAINING, and of --profile and --from, which only gan-train has."""

    config_names: tuple[str, ...]
    variants: tuple[str, ...]
    overrides: tuple[str, ...]
    run_folder: Path | None
    resume: bool
    skip_damaged: bool
    stop_after: int | None
    max_minutes: float | None
    seeds: tuple[int, ...]
    sweeps: tuple[str, ...]
    at_once: int | None
    slurm: str | None
    imports: tuple[str, ...]
    device: str
    deterministic: bool
    dry_run: bool
    print_config: bool
    list_names: bool
    profile: bool = False
    start: Path | None = None


@dataclass(frozen=True)
class EvaluationOptions:
    """Values of the options in EVALUATION, and of the options that only gan-eval has."""

    metrics: str | None
    checkpoint: Path | None
    run: Path | None
    out: Path | None
    overrides: tuple[str, ...]
    imports: tuple[str, ...]
    device: str
    deterministic: bool
    compare: bool
    skip_mixed: bool
    list_names: bool
    runs: tuple[Path, ...]
    best: bool = False
    generated: Path | None = None
    config_name: str | None = None
    variants: tuple[str, ...] = ()
    reference: Path | None = None
    test: Path | None = None
    write_statistics: Path | None = None
    inception_weights: Path | None = None


def check_source(checkpoint: Path | None, run: Path | None, best: bool, demo: bool = False) -> None:
    """Raises ConfigError if the options name two checkpoints, or the demo and one."""
    if demo and (checkpoint is not None or run is not None or best):
        raise ConfigError("--demo: does not go with --checkpoint, --run or --best")
    if checkpoint is not None and run is not None:
        raise ConfigError("--checkpoint and --run: give only one of them")
    if checkpoint is not None and best:
        raise ConfigError("--best: cannot be combined with --checkpoint; give --run")


def check_found(checkpoint: Path | None, run: Path | None, kind: str = "gan") -> None:
    """Raises CheckpointError if the chosen run or checkpoint does not exist, before torch is imported."""
    from gan.runs.finding import find_checkpoint, newest_run

    find_checkpoint(checkpoint or run or newest_run(kind=kind))


def with_options(*options: Decorator) -> Decorator:
    """Returns a decorator that adds click options to a function; --help shows them in this order."""

    def decorate(function: Decorated) -> Decorated:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate
