"""Training runs of GANs, for gan-train."""

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor

from gan import build
from gan.config import Config
from gan.data import AUGMENTATIONS, ImageData
from gan.measuring.checks import check_evaluation, check_generation, parse_metrics, registries
from gan.measuring.evaluator import evaluator
from gan.measuring.sampling import grid_sampler
from gan.runs.checkpoint import Checkpoint
from gan.runs.kinds import Attempt, Run, seed_of
from gan.runs.logger import GAN, evaluated
from gan.runs.summary import summarize
from gan.runtime.distributed import Processes
from gan.training.graph import choose_step
from gan.training.log import Log
from gan.training.state import TrainState
from gan.training.trainer import Trainer, equal_rates, evaluation_due, writes_all

GREY_AMONG = 1024  # a hint needs no more images


class GanRuns:
    """Training of a GAN; see gan.runs.kinds.Kind."""

    command = "gan-train"
    next_commands = ("gan-eval", "gan-sample")
    scalars = GAN
    extent = "train.steps"

    def __init__(self, config: Config, parent: build.Parent | None = None) -> None:
        self.config, self.parent = config, parent

    def begun_from(self, parent: build.Parent) -> "GanRuns":
        """Returns the run that begins with these networks; their hash is a setting of it."""
        return GanRuns(self.config.model_copy(update={"parent": parent.networks_hash}), parent)

    @staticmethod
    def registries() -> Mapping[str, Iterable[str]]:
        """Returns the names that each setting accepts."""
        return {**build.REGISTRIES, "train.augment": AUGMENTATIONS, **registries()}

    def check(self) -> None:
        """Raises UserError if a name is in no registry or settings contradict each other."""
        build.check_names(self.config)
        if self.parent is not None:
            build.check_shapes(self.config, self.parent)
        check_evaluation(self.config)
        if self.config.train.eval_every:
            check_generation(self.config, parse_metrics(self.config.eval.metrics))

    def check_processes(self, processes: Processes) -> None:
        """Raises ConfigError if the processes cannot share a batch equally."""
        processes.check_batch(self.config.train.batch_size)

    @cached_property
    def images(self) -> ImageData:
        """Training images, loaded on first use."""
        return self.load_images("train")

    def load_images(self, split: str) -> ImageData:
        """Loads the images of a split."""
        return build.load_images(self.config, split)

    def build_state(self, images: ImageData | None = None, device: torch.device | str = "cpu") -> TrainState:
        """Builds the state before the first step; without images, a state for the summary only."""
        config, parent = self.config, self.parent
        if images is not None:
            build.check_parent(config, parent)
        state = build.build_state(config, device, build.count_classes(config, images), parent)
        if images is not None:
            state.data_fingerprint = images.fingerprint
            state.class_names = images.classes if self.config.conditional else ()
        return state

    def load_state(self, checkpoint: Checkpoint, device: torch.device | str = "cpu") -> TrainState:
        """Loads the state of a checkpoint; raises CheckpointError if it does not fit the configuration."""
        return build.load_state(checkpoint, self.config, device)

    def other_training(self, before: Config, step: int) -> str:
        """Returns how training differs, up to a step, from that by `before`, which has another train.steps."""
        now, then = self.config.train, before.train
        if step > now.steps:
            return f"it is at step {step} already"
        if not equal_rates(now, then, step):
            return f"its learning rate began to decay at step {then.lr_decay_start}, to 0 at step {then.steps}"
        return ""

    def goes_on(self, before: Config, step: int) -> bool:
        """Whether a longer run writes at this step what the run of `before` wrote, which may have ended there."""
        return step < before.train.steps or writes_all(before.train, step)

    def is_complete(self, folder: Path, state: TrainState) -> bool:
        """Returns whether all steps and the evaluation after the last step are done."""
        train, step = self.config.train, state.step
        return step >= train.steps and (evaluated(folder, step) or not evaluation_due(train, step))

    def summary(self, state: TrainState) -> str:
        """Describes the data, the sizes of the networks and the effect of normalization."""
        config, train = self.config, self.config.train
        networks = {"generator": state.generator, "discriminator": state.discriminator}
        classes = f", {state.num_classes} classes" if state.num_classes else ", unconditional"
        lines = summarize(config, config.data.described, networks, classes)
        lines += _ancestry(state)
        if train.lr_decay != "none" and train.lr_decay_start >= train.steps:
            lines.append(
                f"the learning rate does not decay: train.lr_decay_start, {train.lr_decay_start}, is not before the "
                f"last step, {train.steps}"
            )
        return "\n".join(lines)

    def begin(self, run: Run, state: TrainState) -> Attempt:
        """Prepares an attempt from this state."""
        run.processes.equalize_(state.tensors())
        config = self.config
        settings = config.train.model_copy(update=seed_of(config, state))
        trainer = Trainer(
            state,
            build.build_batches(config.model_copy(update={"train": settings}), run.images, run.device, run.processes),
            build.build_loss(config),
            settings,
            z_dim=config.generator.z_dim,
            batched=run.device.type == "cuda",  # fewer kernel launches; not timed on a GPU
            processes=run.processes,
        )
        step = choose_step(trainer)
        sample = grid_sampler(config, state, run.images)
        measure = evaluator(config, run.folder, state, run.processes) if config.train.eval_every else None

        def train(log: Log, save: Callable[[], Path], stop: Callable[[int], str]) -> str:
            evaluate = None if measure is None else partial(measure, log.say)
            with run.traced(step.train_step, log) as train_step:
                return trainer.run(log, save=save, sample=sample, evaluate=evaluate, stop=stop, train_step=train_step)

        images_per_step = settings.d_steps * settings.batch_size
        remarks = [] if settings.fast == "off" else [step.name]  # how the request was met
        if _is_grey(run.images.images[:GREY_AMONG]):
            remarks.append("the images are grey: data.channels=1 would train networks of one channel")
        return Attempt(settings.steps, images_per_step, step.name, train, remarks=tuple(remarks))


def _is_grey(images: Tensor) -> bool:
    """Whether RGB images (N, 3, H, W) have no colours."""
    return images.shape[1] == 3 and bool((images == images[:, :1]).all())


def _ancestry(state: TrainState) -> list[str]:
    """Returns lines on the run whose networks this one began with."""
    found = state.parent
    if not found:
        return []
    lines = [
        f"began with the networks of {found['name']} at step {found['step']} ({found['networks']}), new optimizers"
    ]
    if found["new"]:
        layers = [*found["new"][:2], f"{len(found['new']) - 2} more"] if len(found["new"]) > 3 else found["new"]
        lines.append(
            f"began with new weights, as the parent has {found['num_classes']} classes and this run "
            f"{state.num_classes}: {', '.join(layers)}"
        )
    elif state.num_classes:
        lines.append("classes have the weights of the parent's classes of the same number")
    return lines


__all__ = ["GanRuns"]
