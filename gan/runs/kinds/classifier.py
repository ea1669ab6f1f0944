"""Runs of gan-train-classifier."""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path

import torch

from gan import build_classifier
from gan.config.classifier import ClassifierConfig
from gan.data import ImageData
from gan.errors import ConfigError, DataError
from gan.noise import attempt_seed
from gan.runs.checkpoint import Checkpoint
from gan.runs.kinds import Run, State
from gan.runs.logger import CLASSIFIER
from gan.runs.summary import summarize
from gan.training.classifier import ClassifierTrainer, accuracy_and_loss
from gan.training.log import Log
from gan.training.state import ClassifierState


class ClassifierRuns:
    """Training of a classifier; see gan.runs.kinds.Kind."""

    command = "gan-train-classifier"
    next_commands = ("gan-eval-classifier",)
    scalars = CLASSIFIER

    def __init__(self, config: ClassifierConfig) -> None:
        self.config = config

    @staticmethod
    def registries() -> Mapping[str, Iterable[str]]:
        return build_classifier.CLASSIFIER_REGISTRIES

    def check(self) -> None:
        build_classifier.check_classifier_names(self.config)

    def check_processes(self, count: int) -> None:
        if count > 1:
            raise ConfigError(f"{self.command}: trains in one process, got {count}; start it without torchrun")

    def load_images(self) -> ImageData:
        return self._images

    @cached_property
    def _images(self) -> ImageData:
        return build_classifier.load_labelled_images(self.config, "train")

    def build_state(self, images: ImageData | None = None, device: torch.device | str = "cpu") -> ClassifierState:
        state = build_classifier.build_classifier_state(
            self.config, device, images.num_classes if images is not None else None
        )
        if images is not None:
            state.data_fingerprint, state.class_names = images.fingerprint, images.classes
        return state

    def load_state(self, checkpoint: Checkpoint, device: torch.device | str = "cpu") -> ClassifierState:
        return build_classifier.load_classifier_state(checkpoint, self.config, device)

    def is_complete(self, folder: Path, state: State) -> bool:
        """Whether all epochs are done, or one has reached train.stop_accuracy."""
        assert isinstance(state, ClassifierState)
        train = self.config.train
        return state.reached or state.step >= train.epochs * math.ceil(len(self._images) / train.batch_size)

    def summary(self, state: ClassifierState) -> str:
        data = self.config.data
        labels = ", random labels" if data.labels == "random" else ""
        about = f"{data.shown}, {state.num_classes} classes{labels}"
        return "\n".join(summarize(self.config, about, {"classifier": state.network}))

    def begin(self, run: Run, state: ClassifierState) -> "ClassifierAttempt":
        return ClassifierAttempt(self.config, run, state)


class ClassifierAttempt:
    """Training of a classifier from one state; see gan.runs.kinds.Attempt."""

    def __init__(self, config: ClassifierConfig, run: Run, state: ClassifierState) -> None:
        self.config, self.state = config, state
        seed = attempt_seed(config.train.seed, len(state.retries))
        self.trainer = ClassifierTrainer(
            state,
            run.images,
            config.train.model_copy(update={"seed": seed}),
            penalty=build_classifier.build_weight_penalty(config),
            batched=run.device.type == "cuda",  # where launches, not arithmetic, are what normalization costs
        )
        self.steps, self.images_per_step = self.trainer.steps, config.train.batch_size
        self.length = f", {self.trainer.steps_per_epoch} to an epoch of {len(run.images):,} images,"
        note = self.trainer.arithmetic.note
        self.method = f"update by update{note}"
        self.remarks = [self.method] if note else []

    def run(self, logger: Log, save: Callable[[], Path], stop: Callable[[int], str]) -> str:
        return self.trainer.run(logger, save=save, test=self._tester(logger), stop=stop)

    def ending(self) -> str:
        accuracy = self.config.train.stop_accuracy
        return f", training accuracy {accuracy:g} is reached" if self.state.reached else ""

    def _tester(self, logger: Log) -> Callable[[], dict[str, float]] | None:
        """Measures the accuracy and loss of the state as it is on the test images, where there are any."""
        try:
            images = build_classifier.load_labelled_images(self.config, "test")
        except DataError as error:
            logger.say(f"no test accuracy: {error}")
            return None
        build_classifier.check_classes(self.config, self.state, images)
        return lambda: {f"test_{name}": value for name, value in accuracy_and_loss(self.state.network, images).items()}


__all__ = ["ClassifierRuns"]
