"""gan-train-classifier: trains an image classifier as a configuration says."""

import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import click
import torch

from gan import build
from gan.command import Command, choose_device, describe, normalization_summary
from gan.config.classifier import ClassifierConfig
from gan.config.files import catalogue
from gan.data import ImageData
from gan.errors import ConfigError, DataError
from gan.normalization import spectra
from gan.runs.checkpoint import Checkpoint
from gan.runs.folder import (
    check_images_of,
    checkpoint_to_continue,
    choose_run,
    describe_run,
    earlier_commands,
    resolve_config,
    skip_damaged_checkpoints,
    write_checkpoint,
)
from gan.runs.logger import CLASSIFIER, Logger, quiet_writer
from gan.runtime.determinism import determinism
from gan.runtime.files import locked
from gan.runtime.memory import keep_freed_memory
from gan.training.classifier import ClassifierTrainer, accuracy_and_loss
from gan.training.state import ClassifierState
from gan.training.stopping import exit_after, stopping

EXAMPLES = """
Examples:

  gan-train-classifier --config classifier_cifar100_resnet_srn30    the paper's ResNet-110 with SRN-30, into runs/
  gan-train-classifier --config classifier_cifar10_small_resnet --run runs/mine     ResNet-20, minutes on a CPU
  gan-train-classifier --config classifier_cifar10_small_resnet --set data.labels=random   labels that say nothing
  gan-train-classifier --run runs/mine --resume                     continues bit for bit
  gan-train-classifier --config classifier_smoke --set train.stop_accuracy=0.5 --set train.epochs=100   half right
  gan-eval-classifier --run runs/mine                               margins, complexities, spectra
  tensorboard --logdir runs                                         to watch
"""


@click.command(cls=Command, epilog=EXAMPLES)
@click.option("--config", "config_name", help="File, or name of an installed configuration (see --list).")
@click.option("--with", "variants", multiple=True, metavar="NAME", help="Lays a variant over --config (see --list).")
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Changes one setting; may be repeated.")
@click.option("--run", type=click.Path(path_type=Path), help="Folder of the run. [default: runs/<name>-<time>]")
@click.option("--resume", is_flag=True, help="Continue from the newest checkpoint of --run, or of the newest such run.")
@click.option("--skip-damaged", is_flag=True, help="With --resume: set damaged checkpoints aside, go on from before.")
@click.option(
    "--stop-after", type=click.IntRange(1), metavar="STEP", help="Save and exit after this update, to be resumed."
)
@click.option(
    "--max-minutes", type=click.FloatRange(0, 1e6, min_open=True), help="Save and exit after this time, to be resumed."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--deterministic", is_flag=True, help="The same bits each time, on a GPU too; slower.")
@click.option("--dry-run", is_flag=True, help="Build the network, print its size, train nothing.")
@click.option("--print-config", is_flag=True, help="Print the resolved configuration.")
@click.option("--list", "list_names", is_flag=True, help="Print every configuration, data set, classifier, ...")
def main(
    config_name: str | None,
    variants: tuple[str, ...],
    overrides: tuple[str, ...],
    run: Path | None,
    resume: bool,
    skip_damaged: bool,
    stop_after: int | None,
    max_minutes: float | None,
    device: str,
    deterministic: bool,
    dry_run: bool,
    print_config: bool,
    list_names: bool,
) -> None:
    """Train an image classifier whose weights are normalized, or not.

    The run folder holds its configuration, checkpoints, metrics.jsonl, TensorBoard events and reports.
    """
    if list_names:
        click.echo(f"{catalogue(ClassifierConfig.kind)}\n{describe(build.CLASSIFIER_REGISTRIES)}")
        return
    if skip_damaged and not resume:
        raise ConfigError("--skip-damaged: goes with --resume")
    config = resolve_config(ClassifierConfig, config_name, overrides, run, resume, variants)
    build.check_classifier_names(config)
    if print_config:
        click.echo(config.to_yaml(), nl=False)
        return
    click.get_current_context().with_resource(determinism(deterministic))
    place = choose_device(device)
    if place.type == "cpu":
        keep_freed_memory()
    if dry_run:
        click.echo(_summary(config, build.build_classifier_state(config)))
        return
    folder = choose_run(config, run, resume)
    with locked(folder), quiet_writer():
        if skip_damaged:
            skip_damaged_checkpoints(folder)
        checkpoint = checkpoint_to_continue(config, folder, resume)
        commands = [*earlier_commands(config, folder), " ".join(["gan-train-classifier", *sys.argv[1:]])]
        with stopping(stop_after, max_minutes) as stop:
            reason = _train(config, folder, place, checkpoint, commands, stop)
    exit_after(reason)


def _train(
    config: ClassifierConfig,
    folder: Path,
    device: torch.device,
    checkpoint: Checkpoint | None,
    commands: list[str],
    stop: Callable[[int], str],
) -> str:
    """Trains from a checkpoint, or from the beginning, to the end or to a reason to stop, which is returned."""
    images = build.load_labelled_images(config, "train")
    if checkpoint is None:
        state = _first_state(config, images, device)
    else:
        state = _stored_state(config, images, checkpoint, device)
    trainer = ClassifierTrainer(
        state,
        images,
        config.train,
        penalty=build.build_weight_penalty(config),
        batched=device.type == "cuda",  # where launches, not arithmetic, are what normalization costs
    )
    if checkpoint is not None and trainer.is_done:
        click.echo(f"{folder}: all {state.step} steps are done; next: gan-eval-classifier --run {folder}", err=True)
        return ""
    describe_run(
        config, folder, device=device, processes=1, step=f"update by update{trainer.arithmetic.note}", commands=commands
    )
    logger = Logger(
        folder,
        steps=trainer.steps,
        images_per_step=config.train.batch_size,
        first_step=state.step,
        scalars=CLASSIFIER,
    )
    with closing(logger):
        verb = "continuing" if state.step else "starting"
        logger.say(_summary(config, state))
        steps = f"{state.step} of {trainer.steps}, {trainer.steps_per_epoch} to an epoch of {len(images):,} images,"
        logger.say(f"{verb} at step {steps} in {folder} on {device}{trainer.arithmetic.note}")
        save = partial(_save, config, folder, state)
        reason = trainer.run(logger, save=save, test=_tester(config, state, logger), stop=stop)
        logger.say(
            f"stopped at step {state.step} ({reason}); continue with: gan-train-classifier --run {folder} --resume"
            if reason
            else f"done: {state.step} steps{_why(state, config)}; next: gan-eval-classifier --run {folder}"
        )
    return reason


def _why(state: ClassifierState, config: ClassifierConfig) -> str:
    return f", training accuracy {config.train.stop_accuracy:g} is reached" if state.reached else ""


def _first_state(config: ClassifierConfig, images: ImageData, device: torch.device) -> ClassifierState:
    state = build.build_classifier_state(config, device, images.num_classes)
    state.data_fingerprint, state.class_names = images.fingerprint, images.classes
    return state


def _stored_state(
    config: ClassifierConfig, images: ImageData, checkpoint: Checkpoint, device: torch.device
) -> ClassifierState:
    """Raises CheckpointError if it was trained on other images."""
    state = build.load_classifier_state(checkpoint, config, device)
    check_images_of(checkpoint.path, state.data_fingerprint, images.fingerprint, config.data.root)
    return state


def _save(config: ClassifierConfig, folder: Path, state: ClassifierState) -> Path:
    return write_checkpoint(config, folder, config.model_dump(), state.state_dict())


def _tester(config: ClassifierConfig, state: ClassifierState, logger: Logger) -> Callable[[], dict[str, float]] | None:
    """Measures the accuracy and loss of the state as it is on the test images, where there are any."""
    try:
        images = build.load_labelled_images(config, "test")
    except DataError as error:
        logger.say(f"no test accuracy: {error}")
        return None
    build.check_classes(config, state, images)
    return lambda: {f"test_{name}": value for name, value in accuracy_and_loss(state.network, images).items()}


def _summary(config: ClassifierConfig, state: ClassifierState) -> str:
    """Size of the network, and what its normalization does to the layers."""
    count, wanted = sum(parameter.numel() for parameter in state.network.parameters()), config.classifier
    labels = ", random labels" if config.data.labels == "random" else ""
    return "\n".join(
        [
            f"{config.name}: {config.data.shown}, {state.num_classes} classes{labels}, identity {config.identity()}",
            f"classifier: {wanted.name}, {count:,} parameters",
            normalization_summary("classifier", wanted.normalization, wanted.c, spectra(state.network)),
        ]
    )


if __name__ == "__main__":
    main(prog_name="gan-train-classifier")
