"""Training loop of a classifier.

Batches, crops and learning rates are functions of (seed, step), so a resumed run equals an uninterrupted one.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan.config.classifier import ClassifierTrainSettings
from gan.data import Batches, ImageData
from gan.data.augment import draw_shifts, shifted
from gan.data.batches import to_device
from gan.data.pixels import to_float
from gan.errors import DivergenceError
from gan.normalization import spectra
from gan.training.arithmetic import Arithmetic, float32_products
from gan.training.health import all_finite
from gan.training.log import Log
from gan.training.state import ClassifierState

WeightPenalty = Callable[[nn.Module], Tensor]


def learning_rate(settings: ClassifierTrainSettings, step: int, steps_per_epoch: int) -> float:
    """Learning rate after `step` completed updates: warm-up, then cosine or steps at the milestones."""
    warmup, last = settings.warmup * steps_per_epoch, settings.epochs * steps_per_epoch
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    if settings.schedule == "cosine":
        return settings.learning_rate * (1 + math.cos(math.pi * (step - warmup) / (last - warmup))) / 2
    completed = step // steps_per_epoch
    return settings.learning_rate * settings.factor ** sum(completed >= epoch for epoch in settings.milestones)


class Epoch(NamedTuple):
    """Scalars of a training epoch.

    epoch: number of completed epochs.
    loss, accuracy: means over the epoch's batches, each measured before its update; accuracy in [0, 1].
    """

    epoch: int
    loss: float
    accuracy: float
    learning_rate: float


class ClassifierTrainer:
    """Trains a `ClassifierState`.

    An epoch is the smallest number of full batches that covers the images; a batch may span two permutations of the
    images, see `Batches`.

    Args:
        data: training images.
        penalty: function of the network that is added to the cross-entropy.
        batched: compute all normalized weights together, see `Arithmetic`.
    """

    def __init__(
        self,
        state: ClassifierState,
        data: ImageData,
        settings: ClassifierTrainSettings,
        *,
        penalty: WeightPenalty | None = None,
        batched: bool = False,
    ) -> None:
        self.state, self.settings, self.penalty = state, settings, penalty
        self.device = state.totals.device
        size, seed = settings.batch_size, settings.seed
        self.batches = Batches(data, size, seed=seed, device=self.device, flip=settings.augment)
        self.steps_per_epoch = math.ceil(len(data) / size)
        self.steps = settings.epochs * self.steps_per_epoch
        self.arithmetic = Arithmetic(state.network, settings.precision, together=batched)

    def train_step(self) -> None:
        """Updates the network once."""
        state, settings, arithmetic = self.state, self.settings, self.arithmetic
        rate = learning_rate(settings, state.step, self.steps_per_epoch)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        images, labels = self.batches.batch(state.step)
        if settings.augment:
            images = shifted(images, to_device(draw_shifts(len(images), settings.seed, state.step), self.device))
        pixels = to_float(images).to(memory_format=torch.channels_last)
        state.network.train()
        with arithmetic.float32_products():
            arithmetic.update_()
            with arithmetic.weights():
                with arithmetic.autocast():
                    logits = state.network(pixels)
                loss = F.cross_entropy(logits.float(), labels)
                penalized = loss if self.penalty is None else loss + self.penalty(state.network)
                state.optimizer.zero_grad()
                penalized.backward()
        state.optimizer.step()
        right = (logits.detach().argmax(1) == labels).double().mean()
        state.totals += torch.stack([loss.detach().double(), right])
        state.step += 1

    @property
    def at_epochs_end(self) -> bool:
        """Whether the last update completed an epoch."""
        return self.state.step > 0 and self.state.step % self.steps_per_epoch == 0

    @property
    def is_done(self) -> bool:
        """Whether the last epoch is completed or an epoch reached train.stop_accuracy."""
        return self.state.step >= self.steps or self.state.reached

    def take_epoch(self) -> Epoch:
        """Returns the scalars of the epoch that has just ended and resets the totals; waits for the device.

        Raises:
            DivergenceError: the loss or a weight is not finite; its `since` is the step before the epoch.
        """
        state = self.state
        number = state.step // self.steps_per_epoch
        loss, accuracy = (state.totals / self.steps_per_epoch).tolist()
        self.check_finite()
        state.totals.zero_()
        state.reached = 0 < self.settings.stop_accuracy <= accuracy
        return Epoch(number, loss, accuracy, learning_rate(self.settings, state.step - 1, self.steps_per_epoch))

    def check_finite(self) -> None:
        """Raises DivergenceError if the sum of losses or a weight is not finite; waits for the device."""
        state = self.state
        loss = float(state.totals[0])
        broken = [] if math.isfinite(loss) else [f"loss ({loss:.4g})"]
        if not all_finite(state.network):
            broken.append("a weight")
        if broken:
            epoch = -(-state.step // self.steps_per_epoch)
            raise DivergenceError(
                f"step {state.step}, epoch {epoch}: {' and '.join(broken)} not finite",
                since=(epoch - 1) * self.steps_per_epoch,
            )

    def run(
        self,
        log: Log,
        *,
        save: Callable[[], Path],
        test: Callable[[], dict[str, float]] | None,
        stop: Callable[[int], str],
    ) -> str:
        """Trains until `is_done` or until `stop(step)` returns a reason; returns the reason, "" when done.

        Args:
            save: writes a checkpoint of the state and returns its path.
            test: measures the network, every train.test_every epochs; returns values by name.

        Raises:
            DivergenceError: see `take_epoch`.
        """
        settings, state = self.settings, self.state
        if state.step == 0:
            log.layers(0, spectra(state.network))
            log.before_saving()
            log.saved(save())  # reveals a full disk before training
            if self.is_done and test is not None:
                log.metrics(0, test(), {})
        log.start(state.step)
        reason = stop(state.step) if state.step else ""
        while not self.is_done and not reason:
            self.train_step()
            step = state.step
            epoch = self._log_epoch(log) if self.at_epochs_end else None
            reason = "" if self.is_done else stop(step)
            with log.pause():
                if epoch is not None and test is not None and self._due(settings.test_every, epoch.epoch):
                    log.metrics(step, test(), {})
                if self.is_done or reason or (epoch and self._due(settings.checkpoint_every, epoch.epoch)):
                    self.check_finite()
                    log.before_saving()
                    log.saved(save())
            log.advance(step)
        return reason

    def _log_epoch(self, log: Log) -> Epoch:
        epoch = self.take_epoch()
        scalars = {name: float(value) for name, value in epoch._asdict().items()}
        log.line(self.state.step, scalars, spectra(self.state.network), self.batches.seconds)
        return epoch

    def _due(self, every: int, epoch: int) -> bool:
        return self.is_done or (every > 0 and epoch % every == 0)


@torch.no_grad()
def accuracy_and_loss(network: nn.Module, data: ImageData, *, batch_size: int = 500) -> dict[str, float]:
    """Accuracy in [0, 1] and mean cross-entropy of a classifier, as "accuracy" and "loss".

    Computed in eval mode and float32; the network's mode is restored.
    """
    device = next(network.parameters()).device
    training = network.training
    network.eval()
    totals = torch.zeros(2, dtype=torch.float64, device=device)
    with float32_products("fp32"):
        for images, labels in zip(data.images.split(batch_size), data.labels.split(batch_size), strict=True):
            classes = to_device(labels, device)
            logits = network(to_float(to_device(images, device)).to(memory_format=torch.channels_last))
            right = (logits.argmax(1) == classes).double().sum()
            totals += torch.stack([right, F.cross_entropy(logits, classes, reduction="sum").double()])
    network.train(training)
    accuracy, loss = (totals / len(data)).tolist()
    return {"accuracy": accuracy, "loss": loss}
