"""gan-train: trains a GAN as a configuration says."""

import math
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import numpy
import torch
from torchvision.utils import make_grid

from evaluation import EXTRACTORS, METRICS, Report
from evaluation.reporting import ranking
from evaluation.reporting.histograms import histograms
from gan import build
from gan.command import Command, choose_device, describe, normalization_summary, read_seeds
from gan.config import Config, TrainSettings, load_config
from gan.config.files import catalogue
from gan.data import ImageData
from gan.errors import ConfigError, DivergenceError
from gan.evaluate import Evaluation, check_evaluation, evaluate_state, one_sentence, parse_metrics
from gan.launch.several import Planned, plan, run_all
from gan.launch.slurm import parse_resources, submit
from gan.noise import attempt_seed
from gan.normalization import spectra
from gan.runs.best import Best
from gan.runs.checkpoint import Checkpoint, save_best
from gan.runs.folder import (
    check_images_of,
    checkpoint_to_continue,
    checkpoint_to_retry,
    choose_run,
    describe_run,
    earlier_commands,
    is_complete,
    resolve_config,
    skip_damaged_checkpoints,
    steps_to_go_back_to,
    write_checkpoint,
)
from gan.runs.logger import JSONL, Logger, Silence, quiet_writer
from gan.runtime.determinism import determinism
from gan.runtime.distributed import Processes, num_processes, own_device, started
from gan.runtime.files import locked, remove_parts, writing
from gan.runtime.memory import keep_freed_memory
from gan.runtime.profiling import traced
from gan.sample import GRID_ROWS, fixed_samples
from gan.training.graph import choose_step
from gan.training.health import spread
from gan.training.state import TrainState
from gan.training.stopping import Limits, exit_after, stopping
from gan.training.trainer import Trainer

LIMITS = {"stop-after": "stop_after", "max-minutes": "max_minutes"}
FLAGS = ("resume", "skip-damaged", "deterministic", "profile", "dry-run", "print-config")
EXAMPLES = """
Examples:

  gan-train --config cifar10_srn70.yaml                    the paper's SRN-70 on CIFAR-10, into runs/
  gan-train --config shapes_srn70 --run runs/mine          no download: drawn shapes
  gan-train --config smoke --set train.steps=20            settings changed from the command line
  gan-train --run runs/mine --resume                       continues bit for bit
  gan-train --config cifar10_srn70 --resume --max-minutes 55   for machines with a time limit, run again and again
  gan-train --config celeba_srn70 --dry-run                builds everything, trains nothing
  gan-train --config cifar10_sn --config cifar10_srn70 --seeds 0,1,2   six runs, several at once on one device
  tensorboard --logdir runs                                to watch
"""


@click.command(cls=Command, epilog=EXAMPLES)
@click.option(
    "--config",
    "config_names",
    multiple=True,
    help="File, or name of an installed configuration (see --list); several are several runs.",
)
@click.option("--with", "variants", multiple=True, metavar="NAME", help="Lays a variant over --config (see --list).")
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Changes one setting; may be repeated.")
@click.option(
    "--run",
    "--run-folder",  # torchrun takes "--run" for an abbreviation of its own --run-path
    "run_folder",
    type=click.Path(path_type=Path),
    help="Folder of the run. [default: runs/<name>-<time>]",
)
@click.option("--resume", is_flag=True, help="Continue from the newest checkpoint of --run, or of the newest such run.")
@click.option("--skip-damaged", is_flag=True, help="With --resume: set damaged checkpoints aside, go on from before.")
@click.option(
    "--stop-after", type=click.IntRange(1), metavar="STEP", help="Save and exit after this step, to be resumed."
)
@click.option(
    "--max-minutes", type=click.FloatRange(0, 1e6, min_open=True), help="Save and exit after this time, to be resumed."
)
@click.option("--seeds", callback=read_seeds, metavar="0,1,2", help="One run for each, in place of train.seed.")
@click.option("--at-once", type=click.IntRange(1), help="Of several runs. [default: one per core, or four per GPU]")
@click.option(
    "--slurm",
    metavar="NAME=VALUE,...",
    help="Several runs as one array of Slurm jobs: partition=gpu,timeout_min=600,gpus_per_node=1.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--deterministic", is_flag=True, help="The same bits each time, on a GPU too; slower.")
@click.option("--profile", is_flag=True, help="Trace a few iterations into RUN/profile, print what takes their time.")
@click.option("--dry-run", is_flag=True, help="Build the networks, print their sizes, train nothing.")
@click.option("--print-config", is_flag=True, help="Print the resolved configuration.")
@click.option("--list", "list_names", is_flag=True, help="Print every configuration, data set, model, loss, ...")
def main(
    config_names: tuple[str, ...],
    variants: tuple[str, ...],
    overrides: tuple[str, ...],
    run_folder: Path | None,
    resume: bool,
    skip_damaged: bool,
    stop_after: int | None,
    max_minutes: float | None,
    seeds: tuple[int, ...],
    at_once: int | None,
    slurm: str | None,
    device: str,
    deterministic: bool,
    profile: bool,
    dry_run: bool,
    print_config: bool,
    list_names: bool,
) -> None:
    """Train a GAN whose discriminator's weights are normalized.

    The run folder holds its configuration, checkpoints, metrics.jsonl, TensorBoard events, sample grids and reports.
    """
    if list_names:
        names = {
            **build.REGISTRIES,
            "eval.metrics": METRICS,
            "eval.extractor": EXTRACTORS,
        }
        click.echo(f"{catalogue(Config.kind)}\n{describe(names)}")
        return
    if skip_damaged and not resume:
        raise ConfigError("--skip-damaged: goes with --resume")
    if slurm is not None:
        _submit_several(config_names, seeds, slurm)
        return
    if seeds or len(config_names) > 1:
        _train_several(config_names, seeds, at_once)
        return
    config = resolve_config(Config, next(iter(config_names), None), overrides, run_folder, resume, variants)
    build.check_names(config)
    check_evaluation(config)
    if print_config:
        click.echo(config.to_yaml(), nl=False)
        return
    click.get_current_context().with_resource(determinism(deterministic))
    place = choose_device(own_device(device))
    if place.type == "cpu":
        keep_freed_memory()
    if dry_run:
        click.echo(_summary(config, build.build_state(config)))
        return
    with started(place) as processes, ExitStack() as stack:
        processes.check_batch(config.train.batch_size)
        processes.check_equal(config.identity(), "the configuration's identity")
        folder = processes.first(lambda: choose_run(config, run_folder, resume))
        processes.first(lambda: stack.enter_context(locked(folder)))
        stack.enter_context(quiet_writer())
        if skip_damaged:
            processes.first(lambda: skip_damaged_checkpoints(folder))
        checkpoint = processes.first(lambda: checkpoint_to_continue(config, folder, resume))
        if checkpoint is not None and _is_done(config, folder, checkpoint, processes):
            return
        images = _load_images(config, processes)
        commands = [*earlier_commands(config, folder), " ".join(["gan-train", *sys.argv[1:]])]
        run = Run(config, folder, images, place, processes, commands, profile)
        reason = _train(run, checkpoint, partial(stopping, stop_after, max_minutes))
    exit_after(reason)


def _train_several(config_names: tuple[str, ...], seeds: tuple[int, ...], at_once: int | None) -> None:
    """Every configuration with every seed, by commands like this one, each in a process of its own.

    Raises:
        ConfigError: a configuration or the device is not usable: none is started then.
    """
    given = click.get_current_context().params
    place, gpus = choose_device(given["device"]), max(1, torch.cuda.device_count())
    every_gpu = given["device"] == "auto" and place.type == "cuda"
    devices = [f"cuda:{i}" for i in range(gpus)] if every_gpu else [str(place)]
    at_once = at_once or (4 * len(devices) if place.type == "cuda" else os.cpu_count() or 1)
    planned = _plan_several(config_names, seeds, [], devices)
    statuses = [ended.status for ended in run_all(planned, at_once, lambda line: click.echo(line, err=True))]
    failed = [f"{run.folder} (status {status})" for run, status in zip(planned, statuses, strict=True) if status]
    click.echo(f"{len(planned) - len(failed)} of {len(planned)} runs ended well", err=True)
    if failed:
        click.echo(f"not so: {', '.join(failed)}", err=True)
        raise SystemExit(max((status for status in statuses if status > 0), default=1))


def _submit_several(config_names: tuple[str, ...], seeds: tuple[int, ...], slurm: str) -> None:
    """As `_train_several`, by jobs of a cluster, which resume when they are queued again. Returns at once."""
    given = click.get_current_context().params
    planned = _plan_several(config_names, seeds, ["--resume"], [given["device"]])
    logs = (given["run_folder"] or Path("runs")) / "slurm"
    for run, job in zip(planned, submit(planned, logs, parse_resources(slurm)), strict=True):
        click.echo(f"job {job.job_id}: {run.folder}")
    click.echo(f"logs: {logs}")


def _plan_several(
    config_names: tuple[str, ...], seeds: tuple[int, ...], flags: list[str], devices: list[str]
) -> list[Planned]:
    """Every configuration with every seed, by commands like this one, with these flags besides those given.

    Raises:
        ConfigError: a configuration is not usable, or two runs would share a folder.
    """
    given = click.get_current_context().params
    if given["print_config"]:
        raise ConfigError("--print-config: prints one configuration; leave --seeds and --slurm away, name one --config")
    if num_processes() > 1:
        raise ConfigError("--seeds, or several --config: each run is a process of its own; start it without torchrun")
    configs = [(name, load_config(name, given["overrides"], given["variants"])) for name in config_names]
    if not configs:
        raise ConfigError("--seeds, --slurm: need --config, what is to be trained")
    for _, config in configs:
        build.check_names(config)
        check_evaluation(config)
    flags = [*flags, *(f"--{name}" for name in FLAGS if given[name.replace("-", "_")] and f"--{name}" not in flags)]
    limits = [f"--{name}={given[key]}" for name, key in LIMITS.items() if given[key]]
    composed = [f"--with={variant}" for variant in given["variants"]]
    shared = [*composed, *(f"--set={override}" for override in given["overrides"]), *flags, *limits]
    folder = given["run_folder"] or Path("runs")
    planned = plan([(config.name, name) for name, config in configs], seeds, folder, shared, devices)
    if len({run.folder for run in planned}) < len(planned):
        raise ConfigError("--config: two of them have one name, so their runs would share a folder; train them apart")
    return planned


def _is_done(config: Config, folder: Path, checkpoint: Checkpoint, processes: Processes) -> bool:
    """Whether nothing is left to do after a run's newest checkpoint; says so then.

    Raises:
        CheckpointError: the checkpoint cannot be used, so it does not count as the end.
    """
    step = build.load_state(checkpoint, config).step
    if not processes.first(partial(is_complete, config, folder, step)):
        return False
    done = f"{folder}: all {step} steps are done, nothing is missing; next: gan-eval --run {folder}"
    processes.first(partial(click.echo, done, err=True))
    return True


@dataclass(frozen=True)
class Run:
    """What is the same in every attempt of a run.

    commands: the command lines that have worked on it, this one last. profile: whether a trace is wanted.
    """

    config: Config
    folder: Path
    images: ImageData
    device: torch.device
    processes: Processes
    commands: list[str]
    profile: bool


def _train(run: Run, checkpoint: Checkpoint | None, limits: Callable[[float], Limits]) -> str:
    """Trains from a checkpoint, or from the beginning, and again after a divergence; returns the reason to stop.

    Args:
        limits: see `stopping`, of the seconds spent so far.

    Raises:
        DivergenceError: as often as train.retries, and once more.
    """
    spent = 0.0
    while True:
        begin = time.monotonic()
        try:
            return _attempt(run, checkpoint, limits(spent))
        except DivergenceError as error:
            checkpoint = run.processes.first(partial(checkpoint_to_retry, run.config, run.folder, error))
        spent += time.monotonic() - begin


def _attempt(run: Run, checkpoint: Checkpoint | None, limits: Limits) -> str:
    """Trains from a checkpoint, or from the beginning, to the end or to a reason to stop, which is returned.

    Raises:
        DivergenceError: see gan.training.trainer.Trainer.run.
    """
    config, processes = run.config, run.processes
    state = _first_state(run) if checkpoint is None else _stored_state(run, checkpoint)
    processes.equalize_(state.tensors())
    train = config.train.model_copy(update={"seed": attempt_seed(config.train.seed, len(state.retries))})
    trainer = _trainer(run, state, train)
    step = choose_step(trainer, build.second_derivatives(config))
    processes.first(partial(_describe, run, step.name))
    with closing(_logger(run, state) if processes.is_first else Silence()) as logger:
        for line in (_summary(config, state), _beginning(run, state), step.name):
            logger.say(line)
        wanted = run.profile and processes.is_first
        tracing = traced(run.device, step.train_step, run.folder / "profile", logger.say) if wanted else None
        sample = _sampler(config, state, run.images)
        with limits as stop, tracing or nullcontext(step.train_step) as train_step:
            reason = trainer.run(
                logger,
                save=partial(processes.first, partial(_save, run, state)),
                sample=sample,
                evaluate=_evaluator(run, state, logger) if train.eval_every else None,
                stop=processes.agreed(stop),
                train_step=train_step,
            )
        logger.say(
            f"stopped at step {state.step} ({reason}); continue with: gan-train --run {run.folder} --resume"
            if reason
            else f"done: {state.step} steps; next: gan-eval --run {run.folder}, gan-sample --run {run.folder}"
        )
    return reason


def _describe(run: Run, step: str) -> None:
    count = run.processes.count
    describe_run(run.config, run.folder, device=run.device, processes=count, step=step, commands=run.commands)


def _first_state(run: Run) -> TrainState:
    state = build.build_state(run.config, run.device, build.count_classes(run.config, run.images))
    state.data_fingerprint = run.images.fingerprint
    state.class_names = run.images.classes if run.config.conditional else ()
    return state


def _stored_state(run: Run, checkpoint: Checkpoint) -> TrainState:
    """Raises CheckpointError if it was trained on other images."""
    state = build.load_state(checkpoint, run.config, run.device)
    check_images_of(checkpoint.path, state.data_fingerprint, run.images.fingerprint, run.config.data.root)
    return state


def _trainer(run: Run, state: TrainState, train: TrainSettings) -> Trainer:
    """One with these settings, whose seed is that of the attempt."""
    config = run.config.model_copy(update={"train": train})
    return Trainer(
        state,
        build.build_batches(config, run.images, run.device, run.processes),
        build.build_loss(config),
        train,
        z_dim=config.generator.z_dim,
        batched=run.device.type == "cuda",  # where launches, not arithmetic, are what normalization costs
        processes=run.processes,
    )


def _save(run: Run, state: TrainState) -> Path:
    return write_checkpoint(run.config, run.folder, run.config.model_dump(), state.state_dict())


def _load_images(config: Config, processes: Processes) -> ImageData:
    """The training images, which are to be the same in every process."""
    with processes.one_first():
        images = build.load_images(config, "train")
    processes.check_equal(images.fingerprint, "the fingerprint of the training images")
    return images


def _logger(run: Run, state: TrainState) -> Logger:
    train = run.config.train
    return Logger(
        run.folder, steps=train.steps, images_per_step=train.d_steps * train.batch_size, first_step=state.step
    )


def _beginning(run: Run, state: TrainState) -> str:
    """Where an attempt begins, as the log says it."""
    verb = "continuing" if state.step else "starting"
    together = f", {run.processes.count} processes" if run.processes.count > 1 else ""
    return f"{verb} at step {state.step} of {run.config.train.steps} in {run.folder} on {run.device}{together}"


def _sampler(config: Config, state: TrainState, images: ImageData) -> Callable[[], tuple[torch.Tensor, float]]:
    """Draws the sample grid, uint8 (3, H, W), and its spread in units of the spread of about 1000 real images."""
    real = spread(images.images[:: max(1, len(images.images) // 1000)].unsqueeze(0)) if len(images.images) > 1 else 0.0

    def sample() -> tuple[torch.Tensor, float]:
        rows = fixed_samples(config, state)
        grid = make_grid(rows.flatten(0, 1), nrow=GRID_ROWS, padding=1)
        return grid, spread(rows) / real if real else math.inf

    return sample


def _evaluator(
    run: Run, state: TrainState, logger: Logger | Silence
) -> Callable[[], tuple[dict[str, float], dict[str, numpy.ndarray]]]:
    """Measures eval.metrics of the state as it is, writes the report, keeps the best, returns values and histograms."""
    names = parse_metrics(run.config.eval.metrics)
    evaluation = Evaluation(run.config, state.totals.device, run.processes)
    with one_sentence():
        evaluation.ready(names)  # what is missing is missed now, not after hours
    best = _best(run, state) if run.config.train.keep_best and run.processes.is_first else None

    def measure() -> tuple[dict[str, float], dict[str, numpy.ndarray]]:
        report = evaluate_state(names, evaluation, state, None)
        run.processes.first(lambda: keep(report))
        return report.values, histograms(report)

    def keep(report: Report) -> None:
        folder = run.folder / "reports" / f"{state.step:08d}"
        with writing(folder):  # made one by one: where the run has vanished, it is not made anew
            folder.parent.mkdir(exist_ok=True)
            folder.mkdir(exist_ok=True)
            remove_parts(folder)
        with one_sentence():
            report.save(folder, training_log=run.folder / JSONL)
        if best is not None:
            save = partial(save_best, run.folder, run.config.model_dump(), state.state_dict())
            entries = report.protocol["values"]
            best.consider(report.values, entries, state.step, save)
            logger.say(f"best {best}; now {report.values[best.key(entries)]:.4g}")

    return measure


def _best(run: Run, state: TrainState) -> Best:
    may_retry = len(state.retries) < run.config.train.retries
    return Best(
        run.folder,
        run.config.train.keep_best,
        state.step,
        back_to=partial(steps_to_go_back_to, run.folder) if may_retry else list,
        is_better=ranking.is_better,
        differences=ranking.differences,
    )


def _summary(config: Config, state: TrainState) -> str:
    """Sizes of the networks, and what their normalization does to each layer."""
    size = config.data.image_size
    lines = [f"{config.name}: {config.data.name} {size}x{size}, identity {config.identity()}"]
    classes = f"{state.num_classes} classes" if state.num_classes else "unconditional"
    for name, network in (("generator", state.generator), ("discriminator", state.discriminator)):
        count = sum(parameter.numel() for parameter in network.parameters())
        lines.append(f"{name}: {getattr(config, name).name}, {classes}, {count:,} parameters")
    wanted = config.discriminator
    lines.append(normalization_summary("discriminator", wanted.normalization, wanted.c, spectra(state.discriminator)))
    train = config.train
    if train.lr_decay != "none" and train.lr_decay_start >= train.steps:
        lines.append(
            f"the learning rate stays as it is: train.lr_decay_start, {train.lr_decay_start}, is not before the last "
            f"step, {train.steps}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main(prog_name="gan-train")
