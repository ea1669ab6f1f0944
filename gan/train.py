"""gan-train: trains a GAN as a configuration says."""

import contextlib
import json
import math
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import click
import numpy
import torch
from torchvision.utils import make_grid

from evaluation import EXTRACTORS, METRICS, Report, ranking
from evaluation.histograms import histograms
from gan import build
from gan.best import RECORD, Best, read_best
from gan.checkpoint import (
    FOLDER,
    Checkpoint,
    identity_of,
    list_checkpoints,
    newest_run,
    read_checkpoint,
    remove_superseded,
    save_best,
    save_checkpoint,
    set_damaged_aside,
)
from gan.command import Command, choose_device, describe
from gan.config import Config, TrainSettings, available_configs, differences, load_config, override_config
from gan.data import ImageData
from gan.determinism import determinism
from gan.distributed import Processes, num_processes, own_device, started
from gan.errors import CheckpointError, ConfigError, DivergenceError
from gan.evaluate import Evaluation, check_evaluation, evaluate_state, one_sentence, parse_metrics
from gan.files import locked, remove_parts, write_atomically, writing
from gan.health import spread
from gan.logger import JSONL, Logger, Silence, evaluated, quiet_writer
from gan.memory import keep_freed_memory
from gan.noise import attempt_seed
from gan.normalization import LayerSpectrum, spectra
from gan.profiling import traced
from gan.sample import GRID_ROWS, fixed_samples
from gan.several import Planned, plan, train_all
from gan.slurm import parse_resources, submit
from gan.state import TrainState
from gan.step import choose_step
from gan.trainer import Trainer, evaluation_due

LIMITS = {"stop-after": "stop_after", "max-minutes": "max_minutes"}
FLAGS = ("resume", "skip-damaged", "deterministic", "profile", "dry-run", "print-config")
_OF_A_STEP = re.compile(rf"reports/(?P<report>\d+)|samples/step-(?P<grid>\d+)\.png|{FOLDER}/best-(?P<best>\d+)\.pt")
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


def _read_seeds(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...]:
    try:
        seeds = tuple(int(seed) for seed in value.split(",")) if value is not None else ()
    except ValueError:
        raise click.BadParameter(f"got {value!r}, expected whole numbers such as 0,1,2") from None
    if len(set(seeds)) < len(seeds) or any(seed < 0 for seed in seeds):
        raise click.BadParameter(f"got {value!r}, expected each seed once, none negative")
    return seeds


@click.command(cls=Command, epilog=EXAMPLES)
@click.option(
    "--config",
    "config_names",
    multiple=True,
    help="File, or name of an installed configuration (see --list); several are several runs.",
)
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
@click.option("--seeds", callback=_read_seeds, metavar="0,1,2", help="One run for each, in place of train.seed.")
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
            "--config": available_configs(),
            **build.REGISTRIES,
            "eval.metrics": METRICS,
            "eval.extractor": EXTRACTORS,
        }
        click.echo(describe(names))
        return
    if skip_damaged and not resume:
        raise ConfigError("--skip-damaged: goes with --resume")
    if slurm is not None:
        _submit_several(config_names, seeds, slurm)
        return
    if seeds or len(config_names) > 1:
        _train_several(config_names, seeds, at_once)
        return
    config = _resolve_config(next(iter(config_names), None), overrides, run_folder, resume)
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
        run = processes.first(lambda: _choose_run(config, run_folder, resume))
        processes.first(lambda: stack.enter_context(locked(run)))
        stack.enter_context(quiet_writer())
        if skip_damaged:
            processes.first(lambda: _set_damaged_aside(run))
        reason = _train(config, run, resume, place, processes, stop_after, max_minutes, profile)
    if reason.startswith("signal"):
        raise SystemExit(128 + int(reason.split()[1]))


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
    statuses = train_all(planned, at_once, lambda line: click.echo(line, err=True))
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
    configs = [(name, load_config(name, given["overrides"])) for name in config_names]
    if not configs:
        raise ConfigError("--seeds, --slurm: need --config, what is to be trained")
    for _, config in configs:
        build.check_names(config)
        check_evaluation(config)
    flags = [*flags, *(f"--{name}" for name in FLAGS if given[name.replace("-", "_")] and f"--{name}" not in flags)]
    limits = [f"--{name}={given[key]}" for name, key in LIMITS.items() if given[key]]
    shared = [*(f"--set={override}" for override in given["overrides"]), *flags, *limits]
    folder = given["run_folder"] or Path("runs")
    planned = plan([(config.name, name) for name, config in configs], seeds, folder, shared, devices)
    if len({run.folder for run in planned}) < len(planned):
        raise ConfigError("--config: two of them have one name, so their runs would share a folder; train them apart")
    return planned


def _resolve_config(name: str | None, overrides: tuple[str, ...], run: Path | None, resume: bool) -> Config:
    if name is not None:
        return load_config(name, overrides)
    if not (resume and run is not None):
        raise ConfigError("--config is missing: give a file or a name (see --list), or --run DIR --resume")
    stored = run / "config.yaml"
    if not stored.is_file():
        raise ConfigError(f"{run}: no config.yaml there, so there is no run to resume; start it with --config")
    return override_config(load_config(stored), overrides, str(stored))


def _choose_run(config: Config, run: Path | None, resume: bool) -> Path:
    if run is not None:
        return run
    if resume:
        with contextlib.suppress(CheckpointError):  # none yet: the first of many calls of a job script
            return newest_run(identity=config.identity())
    return Path("runs") / f"{config.name}-{time.strftime('%Y%m%d-%H%M%S')}"


def _train(
    config: Config,
    run: Path,
    resume: bool,
    device: torch.device,
    processes: Processes,
    stop_after: int | None,
    max_minutes: float | None,
    profile: bool,
) -> str:
    checkpoint = processes.first(lambda: _checkpoint_to_continue(config, run, resume))
    if checkpoint is not None:
        step = build.load_state(checkpoint, config).step  # or a sentence: one that cannot be used is not complete
        if processes.first(partial(_is_complete, config, run, step)):
            done = f"{run}: all {step} steps are done, nothing is missing; next: gan-eval --run {run}"
            processes.first(partial(click.echo, done, err=True))
            return ""
    images = _load_images(config, processes)
    commands = [*_earlier_commands(config, run), " ".join(["gan-train", *sys.argv[1:]])]
    spent = 0.0
    while True:
        begin = time.monotonic()
        limits = _stop(stop_after, max_minutes, spent)
        try:
            return _attempt(config, run, checkpoint, images, device, processes, commands, limits, profile)
        except DivergenceError as error:
            checkpoint = processes.first(partial(_checkpoint_to_retry, config, run, error))
        spent += time.monotonic() - begin


def _attempt(
    config: Config,
    run: Path,
    checkpoint: Checkpoint | None,
    images: ImageData,
    device: torch.device,
    processes: Processes,
    commands: list[str],
    limits: AbstractContextManager[Callable[[int], str]],
    profile: bool,
) -> str:
    """Trains from a checkpoint, or from the beginning, to the end or to a reason to stop, which is returned.

    Raises:
        DivergenceError: see gan.trainer.Trainer.run.
    """
    if checkpoint is None:
        state = build.build_state(config, device, build.count_classes(config, images))
        state.data_fingerprint = images.fingerprint
        state.class_names = images.classes if config.conditional else ()
    else:
        state = build.load_state(checkpoint, config, device)
        if state.data_fingerprint != images.fingerprint:
            raise CheckpointError(
                f"{checkpoint.path}: was trained on other images than {config.data.root!r} holds now "
                f"(fingerprint {state.data_fingerprint[:12]}, now {images.fingerprint[:12]})"
            )
    processes.equalize_(state.tensors())
    train = config.train.model_copy(update={"seed": attempt_seed(config.train.seed, len(state.retries))})
    trainer = Trainer(
        state,
        build.build_batches(config.model_copy(update={"train": train}), images, device, processes),
        build.build_loss(config),
        train,
        z_dim=config.generator.z_dim,
        batched=device.type == "cuda",  # where launches, not arithmetic, are what normalization costs
        processes=processes,
    )
    step = choose_step(trainer, build.second_derivatives(config))
    processes.first(lambda: _describe_run(config, run, device, processes, step.name, commands))
    with closing(_logger(run, train, state.step) if processes.is_first else Silence()) as logger:
        logger.say(_summary(config, state))
        begins = "continuing" if state.step else "starting"
        where = f"{run} on {device}" + (f", {processes.count} processes" if processes.count > 1 else "")
        logger.say(f"{begins} at step {state.step} of {train.steps} in {where}")
        logger.say(step.name)
        sample = _sampler(config, state, images)
        wanted = profile and processes.is_first
        tracing = traced(trainer, step.train_step, run / "profile", logger.say) if wanted else None
        with limits as stop, tracing or nullcontext(step.train_step) as train_step:
            reason = trainer.run(
                logger,
                save=lambda: processes.first(
                    lambda: _write_checkpoint(config, run, config.model_dump(), state.state_dict())
                ),
                sample=sample,
                evaluate=_evaluator(config, state, run, logger, processes) if train.eval_every else None,
                stop=processes.agreed(stop),
                train_step=train_step,
            )
        logger.say(
            f"stopped at step {state.step} ({reason}); continue with: gan-train --run {run} --resume"
            if reason
            else f"done: {state.step} steps; next: gan-eval --run {run}, gan-sample --run {run}"
        )
    return reason


def _write_checkpoint(config: Config, run: Path, stored: dict[str, Any], state: dict[str, Any]) -> Path:
    return save_checkpoint(run, stored, state, keep_last=config.train.keep_last, keep_every=config.train.keep_every)


def _load_images(config: Config, processes: Processes) -> ImageData:
    """The training images, which are to be the same in every process."""
    with processes.one_first():
        images = build.load_images(config, "train")
    processes.check_equal(images.fingerprint, "the fingerprint of the training images")
    return images


def _logger(run: Path, train: TrainSettings, step: int) -> Logger:
    return Logger(run, steps=train.steps, images_per_step=train.d_steps * train.batch_size, first_step=step)


def _sampler(config: Config, state: TrainState, images: ImageData) -> Callable[[], tuple[torch.Tensor, float]]:
    """Draws the sample grid, uint8 (3, H, W), and its spread in units of the spread of about 1000 real images."""
    real = spread(images.images[:: max(1, len(images.images) // 1000)].unsqueeze(0)) if len(images.images) > 1 else 0.0

    def sample() -> tuple[torch.Tensor, float]:
        rows = fixed_samples(config, state)
        grid = make_grid(rows.flatten(0, 1), nrow=GRID_ROWS, padding=1)
        return grid, spread(rows) / real if real else math.inf

    return sample


def _evaluator(
    config: Config, state: TrainState, run: Path, logger: Logger | Silence, processes: Processes
) -> Callable[[], tuple[dict[str, float], dict[str, numpy.ndarray]]]:
    """Measures eval.metrics of the state as it is, writes the report, keeps the best, returns values and histograms."""
    evaluation, names = Evaluation(config, state.totals.device, processes), parse_metrics(config.eval.metrics)
    with one_sentence():
        evaluation.ready(names)  # what is missing is missed now, not after hours
    best = None
    if config.train.keep_best:
        best = Best(
            run, config.train.keep_best, state.step, is_better=ranking.is_better, differences=ranking.differences
        )

    def measure() -> tuple[dict[str, float], dict[str, numpy.ndarray]]:
        report = evaluate_state(names, evaluation, state, None)
        processes.first(lambda: keep(report))
        return report.values, histograms(report)

    def keep(report: Report) -> None:
        folder = run / "reports" / f"{state.step:08d}"
        with writing(folder):  # made one by one: where the run has vanished, it is not made anew
            folder.parent.mkdir(exist_ok=True)
            folder.mkdir(exist_ok=True)
            remove_parts(folder)
        with one_sentence():
            report.save(folder, training_log=run / JSONL)
        if best is not None:
            save = partial(save_best, run, config.model_dump(), state.state_dict())
            entries = report.protocol["values"]
            best.consider(report.values, entries, state.step, save)
            logger.say(f"best {best}; now {report.values[best.key(entries)]:.4g}")

    return measure


def _set_damaged_aside(run: Path) -> None:
    for path in set_damaged_aside(run):
        click.echo(f"{path}: a damaged checkpoint, set aside", err=True)


def _is_complete(config: Config, run: Path, step: int) -> bool:
    train = config.train
    return step >= train.steps and (evaluated(run, step) or not evaluation_due(train, step))


def _checkpoint_to_continue(config: Config, run: Path, resume: bool) -> Checkpoint | None:
    checkpoints = list_checkpoints(run)
    if not resume:
        if checkpoints or (run / JSONL).exists():
            raise CheckpointError(f"{run}: holds a run already; continue it with --resume or choose another --run")
        return None
    if not checkpoints:
        click.echo(f"{run}: no checkpoint yet, starting from the beginning", err=True)
        _tidy(config, run)
        return None
    checkpoint = read_checkpoint(checkpoints[-1])
    changed = differences(config, build.checkpoint_config(checkpoint))
    if changed:
        raise CheckpointError(
            f"{checkpoint.path}: trained with other settings (now, then): {'; '.join(changed)}; "
            "a run continues only as it began; choose another --run"
        )
    _tidy(config, run)
    return checkpoint


def _tidy(config: Config, run: Path) -> None:
    """Removes what a process that was killed had begun to write, or was about to remove."""
    remove_parts(run, run / FOLDER, run / "samples")
    remove_superseded(run, keep_last=config.train.keep_last, keep_every=config.train.keep_every)


def _checkpoint_to_retry(config: Config, run: Path, error: DivergenceError) -> Checkpoint:
    """The last checkpoint from before a divergence, which now says so; what came after it is given up.

    Newer ones are removed first: a run that is killed in between diverges at the same step again, and goes back again.

    Raises:
        DivergenceError: as often as train.retries already, or there is no such checkpoint; with the last that there is.
    """
    paths = list_checkpoints(run)
    read = (read_checkpoint(path) for path in reversed(paths))
    good = next((checkpoint for checkpoint in read if checkpoint.state["step"] <= error.since), None)
    retries = read_checkpoint(paths[-1]).state.get("retries", []) if paths else []
    if good is None or len(retries) >= config.train.retries:
        raise DivergenceError(f"{error}; {_last_words(good, len(retries), config)}", since=error.since) from None
    _give_up_after(run, good.state["step"])
    for newer in reversed(paths[paths.index(good.path) + 1 :]):
        newer.unlink()
    good.state["retries"] = [*retries, {"from": good.state["step"], "reason": str(error)}]
    _write_checkpoint(config, run, good.config, good.state)
    number = f"retry {len(retries) + 1} of {config.train.retries}"
    click.echo(f"{error}; {number}, from {good.path} with other random numbers", err=True)
    return good


def _give_up_after(run: Path, step: int) -> None:
    """Removes reports, sample grids and the best checkpoint of later steps: they come again, from other numbers.

    Only the run's own: what gan-eval has put into `reports/` stays.
    """
    for path in (*run.glob("reports/*"), *run.glob("samples/*"), *run.glob(f"{FOLDER}/*")):
        match = _OF_A_STEP.fullmatch(path.relative_to(run).as_posix())
        if match and int(match["report"] or match["grid"] or match["best"]) > step:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    if read_best(run) is None:  # its checkpoint was one of them
        (run / RECORD).unlink(missing_ok=True)


def _last_words(good: Checkpoint | None, retries: int, config: Config) -> str:
    """What is left of a run that diverged and does not go on, and what may help."""
    saved = f"the last checkpoint from before is {good.path}" if good else "no checkpoint from before is left"
    tried = f" after {retries} of {config.train.retries} retries" if config.train.retries else ""
    keep = "" if good else "a higher train.keep_last, "
    return f"the run has stopped{tried}; {saved}; {keep}a lower train.learning_rate or another normalization may help"


@contextmanager
def _stop(stop_after: int | None, max_minutes: float | None, spent: float = 0.0) -> Iterator[Callable[[int], str]]:
    """A function of the step that says why to stop, or "".

    `spent` seconds count as if they had passed inside.
    The first Ctrl-C or SIGTERM is a reason, the second ends the program at once.
    """
    received: list[int] = []
    deadline = time.monotonic() + 60 * max_minutes - spent if max_minutes is not None else None

    def receive(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    def reason(step: int) -> str:
        if received:
            return f"signal {received[0]}"
        if stop_after is not None and step >= stop_after:
            return f"--stop-after {stop_after}"
        if deadline is not None and time.monotonic() >= deadline:
            return f"--max-minutes {max_minutes:g}"
        return ""

    previous = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield reason
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _summary(config: Config, state: TrainState) -> str:
    """Sizes of the networks, and what their normalization does to each layer."""
    size = config.data.image_size
    lines = [f"{config.name}: {config.data.name} {size}x{size}, identity {config.identity()}"]
    classes = f"{state.num_classes} classes" if state.num_classes else "unconditional"
    for name, network in (("generator", state.generator), ("discriminator", state.discriminator)):
        count = sum(parameter.numel() for parameter in network.parameters())
        lines.append(f"{name}: {getattr(config, name).name}, {classes}, {count:,} parameters")
    lines.append(_normalization_summary(config, spectra(state.discriminator)))
    train = config.train
    if train.lr_decay != "none" and train.lr_decay_start >= train.steps:
        lines.append(
            f"the learning rate stays as it is: train.lr_decay_start, {train.lr_decay_start}, is not before the last "
            f"step, {train.steps}"
        )
    return "\n".join(lines)


def _normalization_summary(config: Config, layers: list[LayerSpectrum]) -> str:
    wanted = config.discriminator
    bounded = [layer for layer in layers if layer.target_rank is not None]
    if not bounded:
        return f"discriminator weights: {wanted.normalization}"
    active = sum(layer.active for layer in bounded)
    text = f"discriminator weights: srn, c = {wanted.c:g}, active on {active} of {len(bounded)} layers now"
    spectral = [layer.name for layer in layers if layer.target_rank is None]
    if spectral:
        text += f"; spectral normalization only, because c * min(rows, columns) <= 1: {', '.join(spectral)}"
    return text


def _earlier_commands(config: Config, run: Path) -> list[str]:
    """The command lines that have worked on a run so far."""
    if (run / "run.json").exists() and identity_of(run) == config.identity():
        return _texts(json.loads((run / "run.json").read_text()).get("commands"))
    return []


def _describe_run(
    config: Config, run: Path, device: torch.device, processes: Processes, step: str, commands: list[str]
) -> None:
    """config.yaml, and run.json: what a reader needs to make this run again."""
    stored = run / "config.yaml"
    write_atomically(stored, config.to_yaml().encode())
    record = {
        "identity": config.identity(),
        "commands": commands,
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain")),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "processes": processes.count,
        "threads": torch.get_num_threads(),
        "step": step,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
    write_atomically(run / "run.json", json.dumps(record, indent=1).encode())


def _texts(found: Any) -> list[str]:
    """The texts of what should be a list of them, in a file that anyone may have changed."""
    return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []


def _processor() -> str:
    """The processor's name where Linux tells it, else its architecture."""
    try:
        names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        names = []
    return names[0] if names else platform.machine()


def _git(*arguments: str) -> str:
    """What git says of the checkout this file is in; empty where it is in none."""
    checkout = Path(__file__).resolve().parent.parent
    if not (checkout / ".git").exists():
        return ""
    try:
        command = ["git", "-C", str(checkout), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


if __name__ == "__main__":
    main(prog_name="gan-train")
