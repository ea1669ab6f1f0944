"""Generates images for sample grids, evaluation and gan-sample."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from gan.config import Config
from gan.data import ImageData
from gan.data.batches import to_device
from gan.data.pixels import image_grid, to_uint8
from gan.errors import UserError
from gan.noise import (
    ClassShares,
    balanced_labels,
    draw_labels,
    draw_latents,
    draw_truncated_latents,
    random_generator,
)
from gan.training.arithmetic import float32_products
from gan.training.health import spread
from gan.training.state import TrainState

GRID_ROWS = 8
HELD = 2048  # images that are collected on the device before they are copied to the CPU
STANDING_BATCHES, STANDING_BATCH = 64, 128


@contextmanager
def eval_mode(network: nn.Module, *, gradients: bool = False) -> Iterator[nn.Module]:
    """Context manager: eval mode and exact float32 products, by default without gradients; restores everything."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with float32_products("fp32"), torch.set_grad_enabled(gradients):
            yield network
    finally:
        for module, training in modes:
            module.training = training


def generate(
    generator: nn.Module,
    latents: Tensor,
    labels: Tensor | None,
    *,
    batch_size: int,
    device: torch.device | str,
    quantizer: str = "round",
) -> Tensor:
    """Generates images, uint8 (N, C, H, W) on the CPU, in float32 with running batch-norm statistics.

    Args:
        latents: float32 (N, z_dim).
        labels: int64 (N,) for a conditional generator, None otherwise.

    Raises:
        UserError: an image has NaN or infinite values.
    """
    batches = generated_batches(generator, latents, labels, batch_size=batch_size, device=device, quantizer=quantizer)
    return collected(batches, len(latents))


def collected(batches: Iterator[Tensor], count: int) -> Tensor:
    """Concatenates batches on the CPU; copies HELD images at a time, because each copy waits for the device.

    Args:
        count: total number of images; above HELD, a progress bar is shown on a terminal.
    """
    parts: list[Tensor] = []
    held: list[Tensor] = []
    with tqdm(total=count, desc="generating", unit="image", leave=False, disable=None if count > HELD else True) as bar:
        for batch in batches:
            held.append(batch)
            bar.update(len(batch))
            if sum(map(len, held)) >= HELD:
                parts, held = parts + [images.cpu() for images in held], []
    return torch.cat(parts + [images.cpu() for images in held])


def generated_batches(
    generator: nn.Module,
    latents: Tensor,
    labels: Tensor | None,
    *,
    batch_size: int,
    device: torch.device | str,
    quantizer: str = "round",
) -> Iterator[Tensor]:
    """Yields the images of `generate` in batches on the device, without waiting for it before the last one.

    Raises:
        UserError: after the last batch, if an image has NaN or infinite values.
    """
    finite = torch.ones((), dtype=torch.bool, device=device)
    latents = to_device(latents, device)
    labels = None if labels is None else to_device(labels, device)
    for i in range(0, len(latents), batch_size):
        with eval_mode(generator):
            images = generator(latents[i : i + batch_size], None if labels is None else labels[i : i + batch_size])
            finite = finite & images.isfinite().all()
            batch = to_uint8(images, quantizer)
        yield batch
    if not bool(finite):
        raise UserError("the generator's images are not finite: its weights have diverged; use an earlier checkpoint")


@contextmanager
def standing_statistics(
    generator: nn.Module,
    config: Config,
    num_classes: int,
    device: torch.device | str,
    shares: ClassShares | None = None,
) -> Iterator[None]:
    """Context manager: recomputes a generator's batch-norm statistics from samples; restores the old ones at the end.

    Brock et al. 2019, section 4.1, with STANDING_BATCHES batches of STANDING_BATCH images. Running averages lag behind
    the weights. In an averaged generator they belong to weights before averaging. Latents, truncated by
    eval.truncation, and labels are drawn from eval.seed; labels uniformly, or by the shares of the classes if given.
    """
    norms = [module for module in generator.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    before = [(norm.momentum, {name: buffer.clone() for name, buffer in norm.named_buffers()}) for norm in norms]
    random = random_generator(config.eval.seed, "standing statistics")
    for norm in norms:
        norm.reset_running_stats()
    try:
        with eval_mode(generator):
            for norm in norms:
                norm.train()
            for batch in range(STANDING_BATCHES):
                for norm in norms:
                    norm.momentum = 1 / (batch + 1)  # a plain mean; with None, torch reads the count from the device
                latents = draw(STANDING_BATCH, config, random)
                labels = draw_labels(STANDING_BATCH, num_classes, random, shares) if num_classes else None
                generator(to_device(latents, device), None if labels is None else to_device(labels, device))
        yield
    finally:
        for norm, (momentum, buffers) in zip(norms, before, strict=True):
            norm.momentum = momentum
            for name, buffer in buffers.items():
                getattr(norm, name).copy_(buffer)


def make_sampler(
    generator: nn.Module,
    config: Config,
    num_classes: int,
    device: torch.device | str,
    shares: ClassShares | None = None,
) -> Callable[[int, int], tuple[Tensor, Tensor | None]]:
    """Returns a function (count, seed) -> images uint8 (count, C, H, W), labels int64 (count,).

    The labels are None for an unconditional generator, else those of `draw_classes`. Latents and labels are drawn on
    the CPU, so they are equal for every device and batch size.

    Args:
        shares: shares of the classes, for eval.labels=data.
    """

    def sampler(count: int, seed: int) -> tuple[Tensor, Tensor | None]:
        batches, labels = drawn_batches(generator, config, num_classes, device, shares, count=count, seed=seed)
        return collected(batches, count), labels

    return sampler


def drawn_batches(
    generator: nn.Module,
    config: Config,
    num_classes: int,
    device: torch.device | str,
    shares: ClassShares | None = None,
    *,
    count: int,
    seed: int,
    part: slice = slice(None),
) -> tuple[Iterator[Tensor], Tensor | None]:
    """Returns the images of `make_sampler` as batches on the device, generated on demand, and the labels.

    Args:
        part: rows to generate; the returned labels are for all rows.
    """
    latents = draw(count, config, random_generator(seed, "samples"))
    labels = draw_classes(count, num_classes, config.eval.labels, seed, shares)
    batches = generated_batches(
        generator,
        latents[part],
        None if labels is None else labels[part],
        batch_size=config.eval.batch_size,
        device=device,
        quantizer=config.eval.quantizer,
    )
    return batches, labels


def draw(count: int, config: Config, random: torch.Generator) -> Tensor:
    """Draws latents (count, z_dim), truncated if eval.truncation is set; the first ones do not depend on the count."""
    bound, z_dim = config.eval.truncation, config.generator.z_dim
    whole = -(-count // 16) * 16  # without rounding up to 16, the last numbers of torch.randn depend on the count
    latents = draw_truncated_latents(whole, z_dim, random, bound) if bound else draw_latents(whole, z_dim, random)
    return latents[:count]


def draw_classes(
    count: int, num_classes: int, policy: str, seed: int, shares: ClassShares | None = None
) -> Tensor | None:
    """Returns labels, int64 (count,), by a policy; None without classes.

    Args:
        policy: "balanced", equal counts up to one; "uniform", uniform draws; "data", the shares of the classes, see
            `ClassShares.spread`.
        shares: required for "data".
    """
    if not num_classes:
        return None
    if policy == "balanced":
        return balanced_labels(count, num_classes)
    random = random_generator(seed, "labels of samples")
    if policy == "data":
        assert shares is not None
        return shares.spread(count, random)
    return draw_labels(count, num_classes, random)


def chosen_generator(state: TrainState, ema: bool) -> nn.Module:
    """Returns the averaged generator if `ema` is set and the state has one, else the raw generator."""
    return state.average if ema and state.average is not None else state.generator


def fixed_samples(config: Config, state: TrainState) -> Tensor:
    """Generates the rows of a sample grid, uint8 (rows, GRID_ROWS, C, H, W), from latents that are fixed for a run.

    A conditional model has one row per class, at most 10.
    """
    num_rows = min(state.num_classes, 10) or GRID_ROWS
    count = num_rows * GRID_ROWS
    latents = draw_latents(count, config.generator.z_dim, random_generator(config.train.seed, "sample grid"))
    labels = torch.arange(num_rows).repeat_interleave(GRID_ROWS) if state.num_classes else None
    images = generate(chosen_generator(state, ema=True), latents, labels, batch_size=count, device=state.totals.device)
    return images.unflatten(0, (num_rows, GRID_ROWS))


def grid_sampler(config: Config, state: TrainState, images: ImageData) -> Callable[[], tuple[Tensor, float]]:
    """Returns a function that generates the sample grid, uint8 (C, H, W), and computes its spread.

    The spread is relative to that of about 1000 real images.
    """
    real = spread(images.images[:: max(1, len(images.images) // 1000)].unsqueeze(0)) if len(images.images) > 1 else 0.0

    def sample() -> tuple[Tensor, float]:
        rows = fixed_samples(config, state)
        return image_grid(rows.flatten(0, 1), GRID_ROWS), spread(rows) / real if real else math.inf

    return sample


def slerp(start: Tensor, end: Tensor, num: int) -> Tensor:
    """Interpolates spherically from each start to its end, both included, in `num` points, (N, num, z_dim).

    sin((1 - t) a) / sin(a) start + sin(t a) / sin(a) end, with a the angle between them and t from 0 to 1 (Shoemake
    1985). White 2016 proposed it for latents: normal latents of many dimensions have nearly the same length. Points on
    the arc keep this length; points on a straight line do not. Parallel latents are interpolated linearly.

    Args:
        start, end: (N, z_dim).
        num: at least 2.
    """
    a, b = start.double(), end.double()
    cosine = F.cosine_similarity(a, b, dim=1).clamp(-1, 1)
    angle = cosine.acos()[:, None, None]  # (N, 1, 1)
    t = torch.linspace(0, 1, num, dtype=torch.float64, device=a.device)[:, None]  # (num, 1)
    sine = angle.sin()
    straight = sine < 1e-6
    of_start, of_end = (torch.where(straight, share, (share * angle).sin() / sine) for share in (1 - t, t))
    return (of_start * a[:, None] + of_end * b[:, None]).to(start.dtype)  # (N, num, z_dim)
