"""One iteration of GAN training, which the trainer runs eagerly and the fast step captures in a CUDA graph.

As in the code of Miyato et al. 2018, one update of the generator G, then `d_steps` updates of the discriminator D, or
in the other order if train.first is "discriminator":

    z ~ p(z);                G <- Adam(G, grad L_G(D(G(z))))              generator_batch_factor * batch_size fakes
                             A <- ema_decay A + (1 - ema_decay) G         if there is an averaged generator A
    d_steps times:
        x ~ data, z ~ p(z);  one power iteration for each weight of D
                             D <- Adam(D, grad L_D(D(x), D(G(z))) + penalty)    batch_size real and fake images each

With train.augment, D(t(x)) and D(t(G(z))) replace D(x) and D(G(z)) in both, with a random augmentation t of each image.

`Iteration.draw` computes all random numbers from (seed, step) as `Inputs`. The updates draw none, transfer nothing to
the host and have no data-dependent branches, so a CUDA graph can capture them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gan.config import TrainSettings
from gan.data.augment import augmented, num_draws
from gan.data.batches import Batches
from gan.data.pixels import to_float
from gan.losses import Loss
from gan.noise import draw_labels, draw_latents, draw_uniforms, random_generator
from gan.runtime.distributed import ALONE, Processes
from gan.runtime.profiling import phase
from gan.training.arithmetic import Arithmetic
from gan.training.ema import update_average_
from gan.training.state import TrainState


def learning_rate(settings: TrainSettings, step: int) -> float:
    """Generator's learning rate after `step` completed updates: constant, then linear decay to 0 at the last step."""
    return learning_rates(settings, step)[0]


def learning_rates(settings: TrainSettings, step: int) -> tuple[float, float]:
    """Learning rates of the generator and the discriminator after `step` completed iterations."""
    initial = settings.learning_rate, settings.d_learning_rate or settings.learning_rate
    if settings.lr_decay == "none" or step <= settings.lr_decay_start:
        return initial
    left, decayed = settings.steps - step, settings.steps - settings.lr_decay_start
    return initial[0] * left / decayed, initial[1] * left / decayed


class FakeInputs(NamedTuple):
    """Inputs of the generator: latents float32 (B, z_dim), labels int64 (B,) or None if unconditional."""

    latents: Tensor
    labels: Tensor | None


class GeneratorInputs(NamedTuple):
    """Random inputs of a generator update.

    fakes: inputs of the generator.
    augmentation: uniform random numbers of the images' augmentations, float32 (B, draws) in [0, 1), or None.
    """

    fakes: FakeInputs
    augmentation: Tensor | None


class DiscriminatorInputs(NamedTuple):
    """Random inputs of one discriminator update.

    fakes: inputs of the generator for the fake images.
    rows: indices of the real images in the data set, int64 (B,), on the data set's device.
    mirrored: mask of the real images to flip horizontally, bool (B,), or None.
    dequantization: uniform noise added to the real pixels, float32 (B, C, H, W) in [0, 1), or None.
    penalty: uniform random numbers of the penalty, float32 (B,) in [0, 1), or None.
    augmentation: uniform random numbers of the augmentations of a real and of a fake image, float32 (B, 2 * draws) in
        [0, 1), or None.
    """

    fakes: FakeInputs
    rows: Tensor
    mirrored: Tensor | None
    dequantization: Tensor | None
    penalty: Tensor | None
    augmentation: Tensor | None


class Inputs(NamedTuple):
    """Random inputs of one iteration: one generator update and `d_steps` discriminator updates."""

    generator: GeneratorInputs
    discriminator: tuple[DiscriminatorInputs, ...]

    def tensors(self) -> Iterator[Tensor]:
        """All tensors, in a fixed order."""
        updates: tuple[GeneratorInputs | DiscriminatorInputs, ...] = (self.generator, *self.discriminator)
        parts = [part for update in updates for part in (update.fakes, update[1:])]
        return (tensor for tensor in chain.from_iterable(parts) if isinstance(tensor, Tensor))


@dataclass(frozen=True)
class Iteration:
    """Computations of one iteration on a `TrainState`.

    generator, discriminator: networks of the state, compiled, or wrapped to average gradients if there are several
        processes, see `Processes.averaging`; then each is called only in its own update.
    batches: real images (B, C, H, W) uint8 and labels (B,), by batch number.
    arithmetic: precision and normalization of the discriminator; the generator has the same precision.
    processes: all processes that train this state; each process has its share of a batch.
    """

    state: TrainState
    generator: nn.Module
    discriminator: nn.Module
    batches: Batches
    loss: Loss
    settings: TrainSettings
    z_dim: int
    arithmetic: Arithmetic
    processes: Processes = ALONE

    @property
    def device(self) -> torch.device:
        """Device of the state."""
        return self.state.totals.device

    def set_learning_rates(self) -> tuple[float, float]:
        """Sets the learning rates of the next iteration, and returns them; see `learning_rates`."""
        rates = learning_rates(self.settings, self.state.step)
        for optimizer, rate in zip((self.state.g_optimizer, self.state.d_optimizer), rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate
        return rates

    def draw(self, step: int) -> Inputs:
        """Draws this process's share of the random inputs of iteration `step`, counted from 0."""
        with phase("inputs"):
            first, d_steps = step * self.settings.d_steps, self.settings.d_steps
            updates = tuple(self.draw_discriminator(index) for index in range(first, first + d_steps))
            return Inputs(self.draw_generator(step), updates)

    def draw_generator(self, index: int) -> GeneratorInputs:
        """Draws the inputs of generator update `index`."""
        settings = self.settings
        count = settings.batch_size * settings.generator_batch_factor
        random = random_generator(settings.seed, "generator step", index, self.device)
        augmentation = self._draw_augmentations("generator augmentation", index, count)
        return GeneratorInputs(self._draw_fakes(count, random), augmentation)

    def draw_discriminator(self, index: int) -> DiscriminatorInputs:
        """Draws the inputs of discriminator update `index`, with the real images of batch `index`."""
        settings, batches, share = self.settings, self.batches, self.processes.share
        random = random_generator(settings.seed, "discriminator step", index, self.device)
        dequantization = penalty = None
        if settings.dequantize:
            dequantization = share(draw_uniforms((settings.batch_size, *batches.image_shape), random))
        fakes = self._draw_fakes(settings.batch_size, random)
        if self.loss.penalty is not None:
            random = random_generator(settings.seed, "penalty", index, self.device)
            penalty = share(draw_uniforms((settings.batch_size,), random))
        mirrored = batches.mirrored(index)
        return DiscriminatorInputs(
            fakes=fakes,
            rows=share(batches.rows(index)[0]),
            mirrored=None if mirrored is None else share(mirrored[0]),
            dequantization=dequantization,
            penalty=penalty,
            augmentation=self._draw_augmentations("discriminator augmentation", index, settings.batch_size, each=2),
        )

    def _draw_augmentations(self, stream: str, index: int, count: int, each: int = 1) -> Tensor | None:
        """Draws the numbers of augmentations of `count` times `each` images; returns this process's share."""
        names = self.settings.augmentations
        if not names:
            return None
        random = random_generator(self.settings.seed, stream, index, self.device)
        return self.processes.share(draw_uniforms((count, each * num_draws(names)), random))

    def _draw_fakes(self, count: int, random: torch.Generator) -> FakeInputs:
        """Draws inputs for `count` generated images and returns this process's share."""
        classes, share = self.state.num_classes, self.processes.share
        latents = share(draw_latents(count, self.z_dim, random))
        shares = self.batches.class_shares if self.settings.labels == "data" else None
        return FakeInputs(latents, share(draw_labels(count, classes, random, shares)) if classes else None)

    def train(self, inputs: Inputs) -> None:
        """Updates the generator once and the discriminator `d_steps` times, in the order of train.first."""
        self.generator.train()
        self.discriminator.train()
        wanted = [update.fakes for update in inputs.discriminator]
        if self.settings.first == "discriminator":
            with self.arithmetic.float32_products(), counted_together(self.generator, len(wanted)):
                fakes = self.generate(wanted)
            self.train_discriminator(inputs, fakes)
            self.train_generator(inputs, [])
        else:
            self.train_discriminator(inputs, self.train_generator(inputs, wanted))

    def train_generator(self, inputs: Inputs, wanted: Sequence[FakeInputs]) -> list[Tensor]:
        """Updates the generator, then generates the wanted images, and updates the average; returns the images."""
        state = self.state
        with self.arithmetic.float32_products(), counted_together(self.generator, 1 + len(wanted)):
            loss = self.update_generator(inputs.generator)
            fakes = self.generate(wanted)
        if state.average is not None:
            update_average_(state.average, state.generator, self.settings.ema_decay)
        state.totals[-2] += self.processes.mean(loss.double())
        state.totals[-1] += 1
        return fakes

    def train_discriminator(self, inputs: Inputs, fakes: list[Tensor]) -> None:
        """Updates the discriminator `d_steps` times, each on its batch of fake images."""
        with self.arithmetic.float32_products():
            pairs = zip(inputs.discriminator, fakes, strict=True)
            scalars = [self.update_discriminator(update, fake) for update, fake in pairs]
        self.state.totals[:-2] += self.processes.mean(torch.stack(scalars).mean(0))

    def update_generator(self, inputs: GeneratorInputs) -> Tensor:
        """Updates the generator once; returns its loss, shape ()."""
        state, arithmetic = self.state, self.arithmetic
        # Wrapped to average gradients, it would wait for those of its frozen parameters.
        discriminator = self.discriminator if self.processes.count == 1 else state.discriminator
        with phase("generator step"):
            with arithmetic.frozen():
                with arithmetic.weights(), arithmetic.autocast():
                    images = self._augmented(self.generator(*inputs.fakes), inputs.augmentation)
                    logits = discriminator(images, inputs.fakes.labels)
                loss = self.loss.generator(logits)
                state.g_optimizer.zero_grad()
                loss.backward()
            state.g_optimizer.step()
        return loss.detach()

    def generate(self, inputs: Sequence[FakeInputs]) -> list[Tensor]:
        """Generates the fake images of several discriminator updates, each float32 (B, C, H, W).

        One autocast region for all of them casts each weight once.
        """
        with phase("fake images"), torch.no_grad(), self.arithmetic.autocast():
            return [self.generator(*update).float() for update in inputs]

    def update_discriminator(self, inputs: DiscriminatorInputs, fake: Tensor) -> Tensor:
        """Updates the discriminator once; returns (loss, mean real logit, mean fake logit), float64 (3,).

        The loss includes the penalty, which is computed outside autocast.
        """
        state, arithmetic = self.state, self.arithmetic
        with phase("discriminator step"):
            both, labels = self.with_real(inputs, fake)
            with phase("power iteration"):
                arithmetic.update_()
            with arithmetic.weights():
                with arithmetic.autocast():
                    logits = self.discriminator(both, labels)
                loss = self.discriminator_loss(logits, both, labels, inputs.penalty)
            state.d_optimizer.zero_grad()
            loss.backward()
            state.d_optimizer.step()
        real_logits, fake_logits = logits.detach().chunk(2)
        return torch.stack([loss.detach(), real_logits.mean(), fake_logits.mean()]).double()

    def with_real(self, inputs: DiscriminatorInputs, fake: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns the real and then the fake images of a discriminator pass, (2B, C, H, W), and their labels (2B,).

        Both are augmented if the settings say so; penalties see them as the discriminator does.
        """
        with phase("real images"):
            images, real_labels = self.batches.gather(inputs.rows, inputs.mirrored)
            real = to_float(images, inputs.dequantization)
        fake_labels = inputs.fakes.labels
        labels = None if fake_labels is None else torch.cat([real_labels, fake_labels])
        both = torch.cat([real, fake]).to(memory_format=torch.channels_last)
        uniforms = None if inputs.augmentation is None else torch.cat(inputs.augmentation.chunk(2, dim=1))
        return self._augmented(both, uniforms), labels

    def _augmented(self, images: Tensor, uniforms: Tensor | None) -> Tensor:
        """Applies the augmentations of the settings; see `GeneratorInputs.augmentation`."""
        if uniforms is None:
            return images
        changed = augmented(images, uniforms, self.settings.augmentations)
        return changed.to(memory_format=torch.channels_last)

    def discriminator_loss(
        self, logits: Tensor, both: Tensor, labels: Tensor | None, uniforms: Tensor | None
    ) -> Tensor:
        """Returns the discriminator's loss with its penalty, shape (); updates averages of logits, if there are any.

        Args:
            logits, both, labels: of the real and then the fake images, see `with_real`.
            uniforms: see `DiscriminatorInputs.penalty`.
        """
        real_logits, fake_logits = logits.chunk(2)
        loss = self.loss.discriminator(real_logits, fake_logits)
        if self.loss.penalty is not None:
            assert uniforms is not None
            real, fake = both.chunk(2)
            real_labels = None if labels is None else labels.chunk(2)[0]
            loss = loss + self.loss.penalty(self.state.discriminator, real, fake, real_labels, uniforms=uniforms)
        if self.loss.logit_penalty is not None:
            means = torch.stack([real_logits.mean(), fake_logits.mean()]).detach()
            averages = self.state.average_logits_(self.processes.mean(means))
            loss = loss + self.loss.logit_penalty(real_logits, fake_logits, averages)
        return loss


@contextmanager
def counted_together(network: nn.Module, passes: int) -> Iterator[None]:
    """Context manager for `passes` training passes: batch norms count them in one operation, at the end.

    Batch norms without momentum, whose averages depend on the count, count each pass as usual.
    """
    norms = [norm for norm in network.modules() if isinstance(norm, _BatchNorm) and norm.momentum is not None]
    counts = [(norm, norm.num_batches_tracked) for norm in norms if norm.num_batches_tracked is not None]
    try:
        for norm, _ in counts:
            norm.num_batches_tracked = None
        yield
    finally:
        for norm, count in counts:
            norm.num_batches_tracked = count
    if counts:
        torch._foreach_add_([count for _, count in counts], passes)


__all__ = [
    "DiscriminatorInputs",
    "FakeInputs",
    "GeneratorInputs",
    "Inputs",
    "Iteration",
    "learning_rate",
    "learning_rates",
]
