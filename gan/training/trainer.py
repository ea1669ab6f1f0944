"""Training loop of a GAN; the computations are in gan/training/iteration.py.

Noise, batches and learning rates are functions of (seed, step), so a resumed run equals an uninterrupted one. The host
waits for the device only to write a log line, a sample or a checkpoint.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor

from gan.config import TrainSettings
from gan.data.batches import Batches
from gan.errors import DivergenceError
from gan.losses import Loss
from gan.normalization import spectra
from gan.runtime.distributed import ALONE, Processes
from gan.training.arithmetic import Arithmetic
from gan.training.gradients import measure_gradients
from gan.training.health import all_finite, gradient_size, signs_of_gradients, signs_of_line, signs_of_samples
from gan.training.iteration import Iteration, learning_rate, learning_rates
from gan.training.log import Log
from gan.training.state import TOTALS, TrainState


class Trainer:
    """Trains a `TrainState`.

    Args:
        state: networks and optimizers, on one device.
        batches: real images (B, C, H, W) uint8 and labels (B,), by batch number.
        loss: losses of both networks.
        settings: see gan.config.TrainSettings.
        z_dim: size of the latent vector.
        batched: compute all normalized weights together, see `Arithmetic`.
        processes: all processes that train this state; the batches must be shared among them too.
    """

    def __init__(
        self,
        state: TrainState,
        batches: Batches,
        loss: Loss,
        settings: TrainSettings,
        *,
        z_dim: int,
        batched: bool = False,
        processes: Processes = ALONE,
    ) -> None:
        self.state, self.batches, self.settings, self.processes = state, batches, settings, processes
        self.device = state.totals.device
        self.iteration = Iteration(
            state,
            processes.averaging(processes.synchronized(state.generator)),
            processes.averaging(state.discriminator),
            batches,
            loss,
            settings,
            z_dim=z_dim,
            arithmetic=Arithmetic(state.discriminator, settings.precision, together=batched),
            processes=processes,
        )

    def train_step(self) -> None:
        """Runs one iteration without waiting for the device."""
        self.iteration.set_learning_rates()
        self.iteration.train(self.iteration.draw(self.state.step))
        self.state.step += 1

    def take_scalars(self) -> dict[str, float]:
        """Returns the means of `TOTALS` since the last call and resets them; waits for the device.

        Raises:
            DivergenceError: a mean is not finite.
        """
        *sums, steps = self.state.totals.tolist()
        self.state.totals.zero_()
        scalars = {name: total / steps for name, total in zip(TOTALS, sums, strict=True)}
        self._check(scalars)
        return scalars

    def check_finite(self) -> None:
        """Raises DivergenceError if a loss or a weight is not finite; waits for the device."""
        self._check(dict(zip(TOTALS, self.state.totals.tolist(), strict=False)))
        self._check_weights()

    def _check_weights(self) -> None:
        for network, name in ((self.state.generator, "generator"), (self.state.discriminator, "discriminator")):
            if not all_finite(network):
                self._check({f"a weight of the {name}": float("nan")})

    def _check(self, scalars: dict[str, float]) -> None:
        broken = [name for name, value in scalars.items() if not math.isfinite(value)]
        if broken:
            shown = ", ".join(f"{name} {value:.4g}" for name, value in scalars.items())
            raise DivergenceError(
                f"step {self.state.step}: {' and '.join(broken)} not finite ({shown})", since=self.state.step
            )

    def _watch(self, log: Log, signs: dict[str, str]) -> None:
        """Logs the alarms that begin or end.

        Raises:
            DivergenceError: an alarm begins, and train.on_alarm is "stop".
        """
        step, health = self.state.step, self.state.health
        changes = health.watch(step, signs)
        for alarm in changes:
            log.alarm(step, alarm)
        active = health.active()
        log.alarms(step, {name: active[name] for name in signs})
        begun = [alarm for alarm in changes if alarm.begins]
        if begun and self.settings.on_alarm == "stop":
            shown = "; ".join(f"alarm {alarm.name}: {alarm.text}" for alarm in begun)
            raise DivergenceError(f"step {step}: {shown}", since=min(alarm.since for alarm in begun))

    def run(
        self,
        log: Log,
        *,
        save: Callable[[], Path],
        sample: Callable[[], tuple[Tensor, float]],
        evaluate: Callable[[], tuple[dict[str, float], dict[str, np.ndarray]]] | None,
        stop: Callable[[int], str],
        train_step: Callable[[], None] | None = None,
    ) -> str:
        """Trains to the last step or until `stop(step)` returns a reason; returns the reason, "" at the last step.

        Args:
            save: writes a checkpoint of the state and returns its path.
            sample: returns a grid of generated images, uint8 (C, H, W), and their spread relative to real images.
            evaluate: returns metrics of the state by name, and distributions for histograms.
            train_step: used in place of `self.train_step`, see gan/training/graph.py.

        Raises:
            DivergenceError: see `take_scalars` and `check_finite`; or an alarm begins and train.on_alarm is "stop".
        """
        settings, state = self.settings, self.state
        advance = self.train_step if train_step is None else train_step
        if state.step == 0:
            self._log_beginning(log)
            log.grid(0, sample()[0])
            log.before_saving()
            log.saved(save())  # target of a first rollback; also reveals a full disk before training
        elif evaluate is not None and evaluation_due(settings, state.step) and not self._evaluated(log):
            log.metrics(state.step, *evaluate())  # the last process ended between its checkpoint and the evaluation
        log.start(state.step)
        reason = stop(state.step) if state.step else ""
        while state.step < settings.steps and not reason:
            advance()
            step, last = state.step, state.step == settings.steps
            self._log_numbers(log, last)
            reason = "" if last else stop(step)
            with log.pause():
                if last or _due(step, settings.sample_every):
                    self._log_sample(log, sample)
                if last or reason or _due(step, settings.checkpoint_every):
                    self.check_finite()
                    log.before_saving()
                    log.saved(save())
                if evaluate is not None and evaluation_due(settings, step):
                    self.check_finite()
                    log.metrics(step, *evaluate())
            log.advance(step)
        return reason

    def _log_beginning(self, log: Log) -> None:
        """Logs the initial gradients and spectra, the reference for later alarms."""
        if self.settings.gradients_every:
            self.state.health.gradients = {}  # those of an attempt before a retry
            self._log_gradients(log)
        layers = spectra(self.state.discriminator)
        self.state.health.begin(layers)
        log.layers(0, layers)

    def _log_numbers(self, log: Log, last: bool) -> None:
        """Logs gradients and a line, each if it is due."""
        if _due(self.state.step, self.settings.gradients_every):
            with log.pause():
                self._log_gradients(log)
        if _due(self.state.step, self.settings.log_every) or last:
            self._log_line(log)

    def _log_line(self, log: Log) -> None:
        """Logs means, spectra and changed alarms."""
        state, settings = self.state, self.settings
        scalars = self.take_scalars() | {"learning_rate": learning_rate(settings, state.step - 1)}
        self._check_weights()  # the losses precede the last update, and spectra of NaN weights cannot be computed
        layers = spectra(state.discriminator)
        if state.retries:
            scalars["attempt"] = len(state.retries)
        log.line(state.step, scalars, layers, self.batches.seconds)
        gradient = gradient_size(state.generator)
        self._watch(log, signs_of_line(self.iteration.loss, scalars, layers, state.health.sigmas, gradient))

    def _log_gradients(self, log: Log) -> None:
        """Logs the discriminator's gradients and changed alarms."""
        self.check_finite()
        found, health = measure_gradients(self.iteration), self.state.health
        norms = {name: layer.gradient for name, layer in found.layers.items()}
        health.gradients = health.gradients or norms
        log.gradients(self.state.step, found)
        self._watch(log, signs_of_gradients(norms, health.gradients))

    def _log_sample(self, log: Log, sample: Callable[[], tuple[Tensor, float]]) -> None:
        self.check_finite()
        grid, spread = sample()
        log.grid(self.state.step, grid)
        self._watch(log, signs_of_samples(spread))

    def _evaluated(self, log: Log) -> bool:
        return self.processes.first(lambda: log.evaluated(self.state.step))


def evaluation_due(settings: TrainSettings, step: int) -> bool:
    """Whether an evaluation follows a step: every train.eval_every steps and at the last; never if eval_every is 0."""
    return _due(step, settings.eval_every) or (settings.eval_every > 0 and step == settings.steps)


def equal_rates(one: TrainSettings, other: TrainSettings, steps: int) -> bool:
    """Whether both settings have the same learning rates in the first `steps` steps."""
    return all(learning_rates(one, step) == learning_rates(other, step) for step in range(steps))


def writes_all(settings: TrainSettings, step: int) -> bool:
    """Whether a step has everything that the last step has: a log line, a grid and, if there are any, an evaluation."""
    return all(_due(step, every) for every in (settings.log_every, settings.sample_every)) and (
        settings.eval_every == 0 or _due(step, settings.eval_every)
    )


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


__all__ = ["DivergenceError", "Trainer", "equal_rates", "evaluation_due", "writes_all"]
