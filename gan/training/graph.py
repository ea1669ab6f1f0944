"""The fast step: an iteration of gan/training/trainer.py as one CUDA graph.

A small GAN keeps a GPU waiting for Python: thousands of launches per iteration, each a few microseconds of work. Here
the host writes what an iteration takes from (seed, step) into tensors that stay where they are (`Inputs`), and starts
one graph that holds everything else: both networks, power iteration, optimizers, averaging, sums for the log. The graph
has no state of its own; it reads and writes the tensors of the `TrainState`.

`Trainer.train_step` is the reference: the same numbers are drawn, the same operations run in the same order
on each network. A penalty with second derivatives leaves the discriminator's updates out of the graph and nothing
else; what cannot be captured at all falls back to the plain step, by name: see `obstacle`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gan.config import TrainSettings
from gan.data.batches import Batches
from gan.errors import ConfigError
from gan.losses import Loss
from gan.noise import draw_labels, draw_latents, draw_uniforms, random_generator
from gan.normalization import BatchedNormalization, normalized_weights
from gan.pixels import to_float
from gan.training.ema import update_average_
from gan.training.state import TrainState
from gan.training.trainer import Trainer, float32_products, learning_rate

WARMUP = 3
"""Iterations before the capture, in which libraries choose their kernels and allocate; their effect is undone."""


class Choice(NamedTuple):
    """train_step: one iteration. name: which way it takes, and why, for people."""

    train_step: Callable[[], None]
    name: str


def choose_step(trainer: Trainer, penalties: Sequence[str]) -> Choice:
    """The fast step where train.fast allows and nothing speaks against it, otherwise the trainer's own.

    Args:
        penalties: names of those that need second derivatives: the discriminator then follows the graph eagerly.

    Raises:
        ConfigError: train.fast is "on", nothing spoke against a capture, and it failed; with "auto" that is a reason
            for the trainer's own step.
    """
    reason = obstacle(trainer)
    if reason:
        return Choice(trainer.train_step, f"plain step: {reason}")
    try:
        fast = FastStep(
            trainer.state,
            trainer.batches,
            trainer.loss,
            trainer.settings,
            z_dim=trainer.z_dim,
            second_derivatives=bool(penalties),
        )
    except RuntimeError as error:
        failure = f"the capture failed ({str(error).splitlines()[0]})"
        if trainer.settings.fast == "on":
            raise ConfigError(f"train.fast: on, but {failure}; auto or off trains without it") from error
        return Choice(trainer.train_step, f"plain step: {failure}")
    if penalties:
        reason = f"for the {' and the '.join(penalties)} penalty's second derivatives"
        return Choice(
            fast.train_step, f"fast step: the generator in one CUDA graph; the discriminator eagerly, {reason}"
        )
    return Choice(fast.train_step, "fast step: one CUDA graph per iteration")


def obstacle(trainer: Trainer) -> str:
    """Why an iteration is not captured; "" if nothing is known to speak against it."""
    if trainer.settings.fast == "off":
        return "train.fast is off"
    if trainer.processes.count > 1:
        return f"{trainer.processes.count} processes exchange gradients during an iteration"
    if trainer.device.type != "cuda":
        return f"a CUDA graph needs a CUDA device, this is {trainer.device}"
    if not trainer.batches.resident:
        return "the images do not fit on the device"
    return ""


class Inputs(NamedTuple):
    """All that an iteration takes from outside the state, on the device, in tensors that keep their addresses.

    rate: learning rate, float32 ().
    generator_latents: float32 (F, z_dim), F fakes of the generator step; generator_labels: int64 (F,), or None.
    rows: int64 (d_steps, B), the real images' positions in the data set.
    mirrored: bool (d_steps, B), or None.
    uniforms: for dequantization, float32 (d_steps, B, 3, H, W), or None.
    latents: float32 (d_steps, B, z_dim), of the discriminator steps' fakes; labels: int64 (d_steps, B), or None.
    """

    rate: Tensor
    generator_latents: Tensor
    generator_labels: Tensor | None
    rows: Tensor
    mirrored: Tensor | None
    uniforms: Tensor | None
    latents: Tensor
    labels: Tensor | None


class FastStep:
    """Moves a `TrainState` forward as `Trainer.train_step` does, up to rounding.

    The state may be read, saved and written in place between steps, `TrainState.totals` included; the graph sees it.
    After `TrainState.load_state_dict`, which gives the optimizers new tensors, make a new one.

    Args:
        state, batches, loss, settings, z_dim: see `gan.training.trainer.Trainer`.
        second_derivatives: the loss's penalty differentiates a gradient, which no graph holds: the discriminator's
            updates run behind the graph, one operation at a time.
        captured: False runs the same operations one by one, on any device: for tests.

    Raises:
        RuntimeError: the capture failed; the state is as it was.
    """

    def __init__(
        self,
        state: TrainState,
        batches: Batches,
        loss: Loss,
        settings: TrainSettings,
        *,
        z_dim: int,
        second_derivatives: bool = False,
        captured: bool = True,
    ) -> None:
        self.state, self.batches, self.loss, self.settings = state, batches, loss, settings
        self.device = state.totals.device
        network = state.discriminator
        self._together = BatchedNormalization(network) if any(normalized_weights(network)) else None
        self._optimizers = (state.g_optimizer, state.d_optimizer)
        for optimizer in self._optimizers:
            _prepare_adam_(optimizer)
        self._optimizer_states = [optimizer.state for optimizer in self._optimizers]
        self._graphed, self._eager = [self.advance_generator], [self.advance_discriminator]
        if not second_derivatives:
            self._graphed, self._eager = self._graphed + self._eager, []
        self.inputs = self._allocate(z_dim)
        self.fakes = torch.zeros((settings.d_steps, *batches.batch(0)[0].shape), device=self.device)
        self._penalty_uniforms = torch.zeros((settings.d_steps, settings.batch_size), device=self.device)
        self._launch = self._capture() if captured else self.iterate

    def train_step(self) -> None:
        """One iteration; nothing here waits for the device."""
        held = zip(self._optimizers, self._optimizer_states, strict=True)
        assert all(optimizer.state is state for optimizer, state in held), "loaded anew: the graph has the old tensors"
        for group in chain.from_iterable(optimizer.param_groups for optimizer in self._optimizers):
            group["lr"] = learning_rate(self.settings, self.state.step)  # what a checkpoint says, as the plain step's
        self.draw_(self.state.step)
        self._launch()
        for advance in self._eager:
            advance()
        self.state.step += 1

    def _allocate(self, z_dim: int) -> Inputs:
        settings, classes = self.settings, self.state.num_classes
        fakes, several = settings.batch_size * settings.generator_batch_factor, (settings.d_steps, settings.batch_size)
        images, _ = self.batches.batch(0)

        def integers(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.int64, device=self.device)

        def numbers(*shape: int) -> Tensor:
            return torch.zeros(shape, device=self.device)

        return Inputs(
            rate=numbers(),
            generator_latents=numbers(fakes, z_dim),
            generator_labels=integers(fakes) if classes else None,
            rows=integers(*several),
            mirrored=integers(*several).bool() if self.batches.flip else None,
            uniforms=numbers(settings.d_steps, *images.shape) if settings.dequantize else None,
            latents=numbers(*several, z_dim),
            labels=integers(*several) if classes else None,
        )

    def draw_(self, step: int) -> None:
        """Writes into `inputs` what iteration `step` takes: the numbers of the plain step, drawn in its order.

        Generators of a device cannot be seeded inside a graph, so they draw here, into the tensors that it reads.
        """
        settings, inputs = self.settings, self.inputs
        inputs.rate.fill_(learning_rate(settings, step))
        random = random_generator(settings.seed, "generator step", step, self.device)
        self._draw_fakes(inputs.generator_latents, inputs.generator_labels, random)
        first = step * settings.d_steps
        inputs.rows.copy_(self.batches.rows(first, settings.d_steps))
        mirrored = self.batches.mirrored(first, settings.d_steps)
        if inputs.mirrored is not None and mirrored is not None:
            inputs.mirrored.copy_(mirrored)
        for i in range(settings.d_steps):
            random = random_generator(settings.seed, "discriminator step", first + i, self.device)
            if inputs.uniforms is not None:
                draw_uniforms(inputs.uniforms[i].shape, random, out=inputs.uniforms[i])
            self._draw_fakes(inputs.latents[i], _at(inputs.labels, i), random)
        if self.loss.penalty is not None:
            for i, uniforms in enumerate(self._penalty_uniforms):
                random = random_generator(settings.seed, "penalty", first + i, self.device)
                draw_uniforms(uniforms.shape, random, out=uniforms)

    def _draw_fakes(self, latents: Tensor, labels: Tensor | None, random: torch.Generator) -> None:
        draw_latents(latents.shape[0], latents.shape[1], random, out=latents)
        if labels is not None:
            draw_labels(len(labels), self.state.num_classes, random, out=labels)

    def iterate(self) -> None:
        """What the graph holds: an iteration from `inputs`, or its first part, in operations of the device alone.

        No number is drawn or read by the host, and no branch depends on one.
        """
        for advance in self._graphed:
            advance()

    def advance_generator(self) -> None:
        """All that the iteration asks of the generator: its update and average, and the discriminator's `fakes`."""
        state, settings = self.state, self.settings
        state.generator.train()
        state.discriminator.train()
        with float32_products(settings.precision), self._adam_on_device():
            loss = self.update_generator()
            for i in range(settings.d_steps):
                self.make_fakes(i)
        if state.average is not None:
            update_average_(state.average, state.generator, settings.ema_decay)
        state.totals[-2] += loss
        state.totals[-1] += 1

    def advance_discriminator(self) -> None:
        """The iteration's updates of the discriminator, on `fakes`."""
        self.state.discriminator.train()
        with float32_products(self.settings.precision), self._adam_on_device():
            scalars = [self.update_discriminator(i) for i in range(self.settings.d_steps)]
        self.state.totals[:-2] += torch.stack(scalars).mean(0)

    def update_generator(self) -> Tensor:
        """`Trainer.generator_step`; returns the loss."""
        state, latents, labels = self.state, self.inputs.generator_latents, self.inputs.generator_labels
        with _frozen(state.discriminator):
            with self._weights(), self._autocast():
                logits = state.discriminator(state.generator(latents, labels), labels)
            loss = self.loss.generator(logits)
            state.g_optimizer.zero_grad()
            loss.backward()
        state.g_optimizer.step()
        return loss.detach()

    def make_fakes(self, i: int) -> None:
        """Writes what the i-th update of the discriminator calls fake: float32 (B, 3, H, W)."""
        with torch.no_grad(), self._autocast():
            self.fakes[i].copy_(self.state.generator(self.inputs.latents[i], _at(self.inputs.labels, i)))

    def update_discriminator(self, i: int) -> Tensor:
        """`Trainer.discriminator_step`, the iteration's i-th; returns its three scalars, float64 (3,)."""
        state, inputs = self.state, self.inputs
        images, real_labels = self.batches.gather(inputs.rows[i], _at(inputs.mirrored, i))
        real, fake_labels = to_float(images, _at(inputs.uniforms, i)), _at(inputs.labels, i)
        labels = None if fake_labels is None else torch.cat([real_labels, fake_labels])
        if self._together is not None:
            self._together.update_()
        both = torch.cat([real, self.fakes[i]]).to(memory_format=torch.channels_last)  # (2B, 3, H, W)
        with self._weights():
            with self._autocast():
                logits = state.discriminator(both, labels)
            real_logits, fake_logits = logits.chunk(2)
            loss = self.loss.discriminator(real_logits, fake_logits)
            if self.loss.penalty is not None:
                penalized = real_labels if state.num_classes else None
                uniforms = self._penalty_uniforms[i]
                loss = loss + self.loss.penalty(
                    state.discriminator, both[: len(real)], both[len(real) :], penalized, uniforms=uniforms
                )
        state.d_optimizer.zero_grad()
        loss.backward()
        state.d_optimizer.step()
        return torch.stack([loss.detach(), real_logits.detach().mean(), fake_logits.detach().mean()]).double()

    def _weights(self) -> AbstractContextManager[None]:
        return nullcontext() if self._together is None else self._together.applied()

    def _autocast(self) -> torch.autocast:
        # The cache of cast weights would keep tensors of one pass of the capture for the next.
        enabled = self.settings.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled, cache_enabled=False)

    @contextmanager
    def _adam_on_device(self) -> Iterator[None]:
        """Inside, Adam reads its learning rate from `inputs`, as a graph must; at the end its settings come back."""
        groups = [group for optimizer in self._optimizers for group in optimizer.param_groups]
        before = [dict(group) for group in groups]
        try:
            for group in groups:
                group.update(lr=self.inputs.rate, capturable=True, fused=True)
            yield
        finally:
            for group, settings in zip(groups, before, strict=True):
                group.update(settings)

    def _capture(self) -> Callable[[], None]:
        """Records `iterate`, which does not run it; returns what runs the record."""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.device(self.device):
                stream = torch.cuda.Stream()  # one for both: gradients are accumulated on the stream they began on
                with _undone(list(self.state.tensors())):
                    self._warm_up(stream)
                self._drop_gradients()  # those of the record are allocated with it
                with torch.cuda.graph(graph, stream=stream):
                    self.iterate()
        except RuntimeError:
            self._drop_gradients()
            for optimizer in self._optimizers:
                _release_adam_(optimizer)
            raise

        def replay() -> None:
            with torch.cuda.device(self.device):
                graph.replay()

        return replay

    def _warm_up(self, stream: torch.cuda.Stream) -> None:
        self.draw_(self.state.step)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARMUP):
                self.iterate()
        torch.cuda.current_stream().wait_stream(stream)

    def _drop_gradients(self) -> None:
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)


def _at(values: Tensor | None, i: int) -> Tensor | None:
    return None if values is None else values[i]


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Inside, the network's parameters get no gradients."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


@contextmanager
def _undone(tensors: Sequence[Tensor]) -> Iterator[None]:
    """The tensors have their values back at the end."""
    before = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)


def _prepare_adam_(optimizer: torch.optim.Optimizer) -> None:
    """Adam's state on the device, zero before the first step: one made in a graph would be zeroed by each replay."""
    assert isinstance(optimizer, torch.optim.Adam), type(optimizer).__name__
    for parameter in chain.from_iterable(group["params"] for group in optimizer.param_groups):
        entry = optimizer.state[parameter]
        if not entry:
            entry["step"] = torch.zeros(())
            entry["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            entry["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        entry["step"] = entry["step"].to(device=parameter.device, dtype=torch.float32)


def _release_adam_(optimizer: torch.optim.Optimizer) -> None:
    """Adam's counts where its own settings keep them: on the host, unless it is fused."""
    for group in optimizer.param_groups:
        if not (group["fused"] or group["capturable"]):
            for parameter in group["params"]:
                optimizer.state[parameter]["step"] = optimizer.state[parameter]["step"].cpu()


__all__ = ["Choice", "FastStep", "Inputs", "choose_step", "obstacle"]
