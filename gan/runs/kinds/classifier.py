"""Training runs of classifiers, for gan-train-classifier."""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path

import torch

from gan import build_classifier
from gan.build import Parent
from gan.config.classifier import ClassifierConfig
from gan.data import ImageData
from gan.errors import ConfigError, DataError
from gan.runs.checkpoint import Checkpoint
from gan.runs.kinds import Attempt, Run, seed_of
from gan.runs.logger import CLASSIFIER
from gan.runs.recorded import RecordedImages, recorded_fingerprints
from gan.runs.summary import summarize
from gan.runtime.distributed import Processes
from gan.training.classifier import ClassifierTrainer, accuracy_and_loss, learning_rate
from gan.training.log import Log
from gan.training.state import ClassifierState


class ClassifierRuns:
    """Training of a classifier; see gan.runs.kinds.Kind."""

    command = "gan-train-classifier"
    next_commands = ("gan-eval-classifier",)
    scalars = CLASSIFIER
    extent = "train.epochs"

    def __init__(self, config: ClassifierConfig) -> None:
        self.config = config

    def begun_from(self, parent: Parent) -> "ClassifierRuns":
        """Raises ConfigError: only GANs begin with the networks of another run."""
        raise ConfigError(f"--from: got {parent.path}, but a classifier begins with initial weights; leave it out")

    @staticmethod
    def registries() -> Mapping[str, Iterable[str]]:
        """Returns the names that each setting accepts."""
        return build_classifier.classifier_registries()

    def check(self) -> None:
        """Raises ConfigError if a name is in no registry."""
        build_classifier.check_classifier_names(self.config)

    def check_processes(self, processes: Processes) -> None:
        """Raises ConfigError for several processes."""
        if processes.count > 1:
            raise ConfigError(
                f"{self.command}: trains in one process, got {processes.count}; start it without torchrun"
            )

    @cached_property
    def images(self) -> ImageData:
        """Training images with the configured labels, loaded on first use."""
        return self.load_images("train")

    def load_images(self, split: str) -> ImageData:
        """Loads the images of a split; those of training have the configured labels."""
        return build_classifier.load_labelled_images(self.config, split)

    def build_state(self, images: ImageData | None = None, device: torch.device | str = "cpu") -> ClassifierState:
        """Builds the state before the first step; without images, a state for the summary only."""
        if images is None:
            return build_classifier.build_classifier_state(self.config, device)
        state = build_classifier.build_classifier_state(self.config, device, images.num_classes)
        state.data_fingerprint, state.class_names = images.fingerprint, images.classes
        return state

    def load_state(self, checkpoint: Checkpoint, device: torch.device | str = "cpu") -> ClassifierState:
        """Loads the state of a checkpoint; raises CheckpointError if it does not fit the configuration."""
        return build_classifier.load_classifier_state(checkpoint, self.config, device)

    def other_training(self, before: ClassifierConfig, step: int) -> str:
        """Returns how training differs, up to a step, from that by `before`, which has another train.epochs."""
        now, then = self.config.train, before.train
        per_epoch = math.ceil(len(self.images) / now.batch_size)
        if step > now.epochs * per_epoch:
            return f"it has completed {step // per_epoch} epochs already"
        rates = ([learning_rate(settings, each, per_epoch) for each in range(step)] for settings in (now, then))
        return "" if next(rates) == next(rates) else f"its learning rate has fallen by a cosine of {then.epochs} epochs"

    def goes_on(self, before: ClassifierConfig, step: int) -> bool:
        """Whether a longer run writes at this step what the run of `before` wrote, which may have ended there."""
        train, per_epoch = before.train, math.ceil(len(self.images) / before.train.batch_size)
        ended = step >= train.epochs * per_epoch
        return not ended or bool(train.test_every and train.epochs % train.test_every == 0)

    def is_complete(self, folder: Path, state: ClassifierState) -> bool:
        """Returns whether all epochs are done, or one has reached train.stop_accuracy."""
        train = self.config.train
        return state.reached or state.step >= train.epochs * math.ceil(len(self.images) / train.batch_size)

    def summary(self, state: ClassifierState) -> str:
        """Describes the data, the size of the network and the effect of normalization."""
        data = self.config.data
        labels = ", random labels" if data.labels == "random" else ""
        about = f"{data.described}, {state.num_classes} classes{labels}"
        return "\n".join(summarize(self.config, about, {"classifier": state.network}))

    def begin(self, run: Run, state: ClassifierState) -> Attempt:
        """Prepares an attempt from this state."""
        config = self.config
        trainer = ClassifierTrainer(
            state,
            run.images,
            config.train.model_copy(update=seed_of(config, state)),
            penalty=build_classifier.build_weight_penalty(config),
            batched=run.device.type == "cuda",  # fewer kernel launches; not timed on a GPU
        )
        test, untested = self._tester(state, run.folder)
        note = trainer.arithmetic.note
        method = f"one update at a time{note}"
        reached = f", training accuracy {config.train.stop_accuracy:g} is reached"

        def train(log: Log, save: Callable[[], Path], stop: Callable[[int], str]) -> str:
            return trainer.run(log, save=save, test=test, stop=stop)

        return Attempt(
            steps=trainer.steps,
            images_per_step=config.train.batch_size,
            method=method,
            train=train,
            length=f", {trainer.steps_per_epoch} per epoch of {len(run.images):,} images,",
            remarks=tuple(filter(None, (method if note else "", untested))),
            ending=lambda: reached if state.reached else "",
        )

    def _tester(self, state: ClassifierState, folder: Path) -> tuple[Callable[[], dict[str, float]] | None, str]:
        """Returns a function that measures test accuracy and loss, or None and the reason.

        Raises:
            CheckpointError: the test images are not those with which the run in `folder` began.
        """
        try:
            images = self.load_images("test")
        except DataError as error:
            return None, f"no test accuracy: {error}"
        RecordedImages.of(recorded_fingerprints(state), folder, folder).compare(
            "test", images.fingerprint, self.config.data.root
        )
        build_classifier.check_classes(self.config, state, images)
        return lambda: {f"test_{name}": value for name, value in accuracy_and_loss(state.network, images).items()}, ""


__all__ = ["ClassifierRuns"]
