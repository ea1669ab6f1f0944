"""The training loop: per iteration one generator step, then d_steps discriminator steps (Miyato et al. 2018 as coded).

Noise, batches and learning rates are functions of (seed, step), so a run that stops and continues from its state is
the run that never stopped. Nothing here waits for the device except where a line of the log is written.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gan.config import TrainSettings
from gan.data.batches import Batches
from gan.errors import DivergenceError
from gan.losses import Loss
from gan.noise import draw_labels, draw_latents, draw_uniforms, random_generator
from gan.normalization import BatchedNormalization, normalized_weights, spectra, update_
from gan.pixels import to_float
from gan.runs.logger import Logger, Silence
from gan.runtime.distributed import ALONE, Processes
from gan.training.ema import update_average_
from gan.training.health import gradient_size, signs_of_line, signs_of_samples
from gan.training.state import TOTALS, TrainState


def learning_rate(settings: TrainSettings, step: int) -> float:
    """Of the update that follows `step` completed ones: constant, then linear to 0 at the last step."""
    if settings.lr_decay == "none" or step <= settings.lr_decay_start:
        return settings.learning_rate
    return settings.learning_rate * (settings.steps - step) / (settings.steps - settings.lr_decay_start)


@contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """How exact float32 products are on a GPU: convolutions take TF32 inputs (10 bits after the point) under
    precision "tf32" and full ones otherwise, matrix products always full ones, for power iteration is made of them.

    torch's own default is TF32 convolutions. What was set before comes back at the end.
    """
    backends: tuple[Any, ...] = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    wanted = ["tf32" if precision == "tf32" else "ieee", "ieee"]
    try:
        for backend, value in zip(backends, wanted, strict=True):
            backend.fp32_precision = value
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.fp32_precision = value


class Trainer:
    """Moves a `TrainState` forward.

    Args:
        state: networks and optimizers, on one device.
        batches: real images (B, 3, H, W) uint8 and labels (B,), by number.
        loss: both sides of the game.
        settings: see gan.config.TrainSettings.
        z_dim: size of the latent vector.
        batched: compute all normalized weights together, once per step: the same numbers up to rounding, in fewer and
            larger operations.
        processes: that train this state together; the batches must be shared among them too.
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
        self.state, self.batches, self.loss, self.settings, self.z_dim = state, batches, loss, settings, z_dim
        self.processes = processes
        self.device = state.totals.device
        self._generator = processes.averaging(processes.synchronized(state.generator))
        self._discriminator = processes.averaging(state.discriminator)
        network = state.discriminator
        self._together = BatchedNormalization(network) if batched and any(normalized_weights(network)) else None

    def train_step(self) -> None:
        """One iteration: the generator first, as in the original, then the discriminator d_steps times."""
        state, d_steps = self.state, self.settings.d_steps
        rate = learning_rate(self.settings, state.step)
        for optimizer in (state.g_optimizer, state.d_optimizer):
            for group in optimizer.param_groups:
                group["lr"] = rate
        self._generator.train()
        self._discriminator.train()
        with float32_products(self.settings.precision):
            g_loss = self.generator_step(state.step)
            d_scalars = [self.discriminator_step(state.step * d_steps + i) for i in range(d_steps)]
        if state.average is not None:
            update_average_(state.average, state.generator, self.settings.ema_decay)
        scalars = torch.cat([torch.stack(d_scalars).mean(0), g_loss.double().view(1)])
        state.totals[:-1] += self.processes.mean(scalars)
        state.totals[-1] += 1
        state.step += 1

    def generator_step(self, index: int) -> Tensor:
        """One update of the generator, on generator_batch_factor * batch_size fakes; returns its loss."""
        state = self.state
        random = random_generator(self.settings.seed, "generator step", index, self.device)
        latents, labels = self._draw(self.settings.batch_size * self.settings.generator_batch_factor, random)
        state.discriminator.requires_grad_(False)  # its weights' gradients are not wanted here
        with self._weights(), self._autocast():
            logits = state.discriminator(self._generator(latents, labels), labels)
        loss = self.loss.generator(logits)
        state.g_optimizer.zero_grad()
        loss.backward()
        state.g_optimizer.step()
        state.discriminator.requires_grad_(True)
        return loss.detach()

    def discriminator_step(self, index: int) -> Tensor:
        """One update of the discriminator; returns (loss, mean real logit, mean fake logit), float64 (3,).

        The loss includes the penalty, which is computed outside autocast.
        """
        state = self.state
        images, real_labels = self.batches.batch(index)
        random = random_generator(self.settings.seed, "discriminator step", index, self.device)
        real = to_float(images, self._draw_uniforms(random, *images.shape[1:]) if self.settings.dequantize else None)
        latents, fake_labels = self._draw(self.settings.batch_size, random)
        with torch.no_grad(), self._autocast():
            fake = self._generator(latents, fake_labels).float()
        labels = None if fake_labels is None else torch.cat([real_labels, fake_labels])
        self._update()
        both = torch.cat([real, fake]).to(memory_format=torch.channels_last)  # (2B, 3, H, W)
        with self._weights():
            with self._autocast():
                logits = self._discriminator(both, labels)
            real_logits, fake_logits = logits.chunk(2)
            loss = self.loss.discriminator(real_logits, fake_logits)
            if self.loss.penalty is not None:
                random = random_generator(self.settings.seed, "penalty", index, self.device)
                penalized, uniforms = real_labels if state.num_classes else None, self._draw_uniforms(random)
                loss = loss + self.loss.penalty(
                    state.discriminator, both[: len(real)], both[len(real) :], penalized, uniforms=uniforms
                )
        state.d_optimizer.zero_grad()
        loss.backward()
        state.d_optimizer.step()
        return torch.stack([loss.detach(), real_logits.detach().mean(), fake_logits.detach().mean()]).double()

    def _draw(self, count: int, random: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Latents and labels of `count` fakes of all processes: this one's share of them."""
        latents, classes, share = draw_latents(count, self.z_dim, random), self.state.num_classes, self.processes.share
        return share(latents), share(draw_labels(count, classes, random)) if classes else None

    def _draw_uniforms(self, random: torch.Generator, *shape: int) -> Tensor:
        """Numbers of this shape for each real image of this process, (B, *shape)."""
        return self.processes.share(draw_uniforms((self.settings.batch_size, *shape), random))

    def _update(self) -> None:
        """One power iteration for every normalized weight."""
        if self._together is None:
            update_(self.state.discriminator)
        else:
            self._together.update_()

    def _weights(self) -> AbstractContextManager[None]:
        """Inside, the discriminator's normalized weights are computed once, where they are computed together."""
        return nullcontext() if self._together is None else self._together.applied()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16")

    def take_scalars(self) -> dict[str, float]:
        """Means since the last call; waits for the device.

        Raises:
            DivergenceError: one of them is not finite.
        """
        *sums, steps = self.state.totals.tolist()
        self.state.totals.zero_()
        scalars = {name: total / steps for name, total in zip(TOTALS, sums, strict=True)}
        self._check(scalars)
        return scalars

    def check_finite(self) -> None:
        """Raises DivergenceError if a loss or a weight is not finite: call it before saving; waits for the device."""
        self._check(dict(zip(TOTALS, self.state.totals.tolist(), strict=False)))
        for network, name in ((self.state.generator, "generator"), (self.state.discriminator, "discriminator")):
            if not all(bool(parameter.isfinite().all()) for parameter in network.parameters()):
                self._check({f"a weight of the {name}": float("nan")})

    def _check(self, scalars: dict[str, float]) -> None:
        broken = [name for name, value in scalars.items() if not math.isfinite(value)]
        if broken:
            shown = ", ".join(f"{name} {value:.4g}" for name, value in scalars.items())
            raise DivergenceError(
                f"step {self.state.step}: {' and '.join(broken)} not finite ({shown})", since=self.state.step
            )

    def _watch(self, logger: Logger | Silence, signs: dict[str, str]) -> None:
        """Logs the alarms that begin or end.

        Raises:
            DivergenceError: one begins, and train.on_alarm is "stop".
        """
        step, health = self.state.step, self.state.health
        changes = health.watch(step, signs)
        for alarm in changes:
            logger.alarm(step, alarm)
        active = health.active()
        logger.alarms(step, {name: active[name] for name in signs})
        begun = [alarm for alarm in changes if alarm.begins]
        if begun and self.settings.on_alarm == "stop":
            shown = "; ".join(f"alarm {alarm.name}: {alarm.text}" for alarm in begun)
            raise DivergenceError(f"step {step}: {shown}", since=min(alarm.since for alarm in begun))

    def run(
        self,
        logger: Logger | Silence,
        *,
        save: Callable[[], Path],
        sample: Callable[[], tuple[Tensor, float]],
        evaluate: Callable[[], tuple[dict[str, float], dict[str, np.ndarray]]] | None,
        stop: Callable[[int], str],
        train_step: Callable[[], None] | None = None,
    ) -> str:
        """Trains to the last step, or until `stop(step)` gives a reason; returns the reason, "" at the last step.

        Args:
            save: writes a checkpoint of the state.
            sample: a grid of generated images, uint8 (3, H, W), and their spread in units of the real images'.
            evaluate: metrics of the state by name, and distributions for histograms.
            train_step: in place of `self.train_step`, the same in another way: see gan/training/graph.py.

        Raises:
            DivergenceError: see `take_scalars`, `check_finite`, and train.on_alarm.
        """
        settings, state = self.settings, self.state
        advance = self.train_step if train_step is None else train_step
        if state.step == 0:
            layers = spectra(state.discriminator)
            state.health.begin(layers)
            logger.layers(0, layers)
            logger.grid(0, sample()[0])
            logger.before_saving()
            logger.saved(save())  # what a divergence goes back to, and a disk that is full is found now
        elif evaluate is not None and evaluation_due(settings, state.step) and not self._evaluated(logger):
            logger.metrics(state.step, *evaluate())  # the process ended between the checkpoint and its evaluation
        logger.start(state.step)
        reason = stop(state.step) if state.step else ""
        while state.step < settings.steps and not reason:
            advance()
            step, last = state.step, state.step == settings.steps
            if step % settings.log_every == 0 or last:
                scalars = self.take_scalars() | {"learning_rate": learning_rate(settings, step - 1)}
                self.check_finite()  # the losses are of before the last update; its weights have no spectra if NaN
                layers = spectra(state.discriminator)
                if state.retries:
                    scalars["attempt"] = len(state.retries)
                logger.line(step, scalars, layers, self.batches.seconds)
                gradient = gradient_size(state.generator)
                self._watch(logger, signs_of_line(settings.loss, scalars, layers, state.health.sigmas, gradient))
            reason = "" if last else stop(step)
            with logger.pause():
                if last or _due(step, settings.sample_every):
                    self.check_finite()
                    grid, spread = sample()
                    logger.grid(step, grid)
                    self._watch(logger, signs_of_samples(spread))
                if last or reason or _due(step, settings.checkpoint_every):
                    self.check_finite()
                    logger.before_saving()
                    logger.saved(save())
                if evaluate is not None and evaluation_due(settings, step):
                    self.check_finite()
                    logger.metrics(step, *evaluate())
            logger.advance(step)
        return reason

    def _evaluated(self, logger: Logger | Silence) -> bool:
        return self.processes.first(lambda: logger.evaluated(self.state.step))


def evaluation_due(settings: TrainSettings, step: int) -> bool:
    """Whether metrics are measured after a step: every train.eval_every, unless that is 0, and after the last one."""
    return _due(step, settings.eval_every) or (settings.eval_every > 0 and step == settings.steps)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


__all__ = ["DivergenceError", "Trainer", "evaluation_due", "float32_products", "learning_rate"]
