"""Neural Divergence: how well a fresh critic, trained to the end, tells generated images from real test images.

Gulrajani et al. 2020 proposed it; Sanyal et al. 2020, Appendix E.1, use a smaller critic and the logistic loss. The
preset "srn2020" is the latter: with m = (p_real + p_fake) / 2 the best critic's E_fake log(1 + e^f) is
log 2 - KL(p_fake || m), so the value lies below log 2 = 0.693 and higher is better.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import log
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from evaluation.errors import EvaluationError
from evaluation.images import Sampler, check_images, check_same_size, to_critic
from evaluation.isolation import isolated
from evaluation.presets import PRESETS, Preset, check_settings
from evaluation.progress import progress
from evaluation.report import Value

if TYPE_CHECKING:
    from evaluation.context import Context

CHUNK = 2048  # images asked of a sampler, or shown to a finished critic, at a time
LOSS_POINTS = 200  # points kept of each critic's loss curve
WRONG_SIGN = 2 * log(2)  # a critic no better than f = 0 stays below


class Terms(NamedTuple):
    """What one finished critic f says. Real terms are over all test images, fake terms over the samples."""

    softplus_fake: float  # E_fake log(1 + e^f), the quantity the paper prints; higher is better, at most log 2
    softplus_real: float  # E_real log(1 + e^-f)
    critic_gap: float  # E_real f - E_fake f
    accuracy: float  # mean of the shares of real images with f > 0 and of generated ones with f <= 0
    fake_mean: float
    fake_std: float
    real_mean: float
    real_std: float


class NeuralDivergence(NamedTuple):
    """Means of `Terms` over the critics, their spread, and the settings of the run."""

    softplus_fake: float
    softplus_real: float
    critic_gap: float
    accuracy: float
    fake_mean: float
    fake_std: float
    real_mean: float
    real_std: float
    preset: str
    steps: int
    batch_size: int
    samples: int
    num_critics: int
    num_test: int
    pool: int | None  # size of a recorded pool of generated images, None where a sampler made fresh ones
    critics: tuple[Terms, ...]
    losses: np.ndarray  # (num_critics, points), the critics' training loss
    note: str  # empty, or why the value should not be trusted

    @property
    def label(self) -> str:
        """ "nd" for the preset's number of steps, "nd_short" for fewer, then the preset."""
        return f"{'nd' if self.steps >= PRESETS[self.preset].steps else 'nd_short'}/{self.preset}"

    def spread(self, term: str) -> float:
        """Population standard deviation of a term over the critics."""
        return float(np.std([getattr(critic, term) for critic in self.critics]))


class Critic(nn.Module):
    """5x5 convolutions of stride 2 with TensorFlow's SAME padding, each followed by Swish; a linear layer: logits (N,).

    (16, 32, 64) channels at 32x32 have 66,337 parameters.
    """

    def __init__(self, channels: tuple[int, ...], height: int, width: int) -> None:
        super().__init__()
        inputs = (3, *channels[:-1])
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 5, stride=2) for before, after in zip(inputs, channels, strict=True)
        )
        for _ in channels:
            height, width = -(-height // 2), -(-width // 2)
        self.linear = nn.Linear(channels[-1] * height * width, 1)

    def forward(self, images: Tensor) -> Tensor:
        hidden = images.contiguous(memory_format=torch.channels_last)  # 1.6 times as fast on a CPU
        for convolution in self.convolutions:
            hidden = functional.silu(convolution(functional.pad(hidden, _same_padding(hidden))))
        return self.linear(hidden.flatten(1)).squeeze(1)


def _same_padding(images: Tensor) -> tuple[int, int, int, int]:
    """Left, right, top, bottom for kernel 5 and stride 2: TensorFlow puts the odd pixel right and below."""
    height, width = images.shape[2:]
    vertical, horizontal = (3 if size % 2 == 0 else 4 for size in (height, width))
    return horizontal // 2, horizontal - horizontal // 2, vertical // 2, vertical - vertical // 2


def neural_divergence(
    generated: Tensor | Sampler,
    test: Tensor,
    *,
    preset: str = "srn2020",
    steps: int | None = None,
    samples: int | None = None,
    batch_size: int | None = None,
    num_critics: int | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> NeuralDivergence:
    """Trains critics between `generated` and `test` and reports what they say at the end.

    Args:
        generated: a pool, uint8 (N, 3, H, W), or a sampler (count, seed) -> (uint8 images, labels or None). A pool is
            a finite sample: critics may learn it by heart, which fresh images rule out. It is read where it lies;
            on the device is fastest.
        test: real images, uint8 (M, 3, H, W).
        steps, samples, batch_size, num_critics: None takes the preset's. Of a pool no more images are evaluated than
            it holds.
        seed: of the critics' weights and batches; equal seeds give equal results on one machine.

    Raises:
        EvaluationError: unusable images or settings, or a critic that diverged.
    """
    chosen = check_settings(preset, steps=steps, samples=samples, batch_size=batch_size, num_critics=num_critics)
    check_images(test, "test")
    test = test.to(device)
    pool = None
    if isinstance(generated, Tensor):
        check_images(generated, "generated")
        check_same_size(generated, "generated", test, "test")
        pool = len(generated)
        chosen = replace(chosen, samples=min(chosen.samples, pool))
    runs = []
    with isolated(), torch.inference_mode(False), torch.enable_grad():
        for number in range(chosen.num_critics):
            runs.append(_run(generated, test, chosen, f"{seed}/critic {number}", torch.device(device)))
    terms = tuple(run[0] for run in runs)
    means = {name: float(np.mean([getattr(critic, name) for critic in terms])) for name in Terms._fields}
    if not all(np.isfinite(value) for value in means.values()):
        raise EvaluationError(
            f"nd: a critic diverged after {chosen.steps} steps, expected finite logits; try a new seed"
        )
    return NeuralDivergence(
        **means,
        preset=preset,
        steps=chosen.steps,
        batch_size=chosen.batch_size,
        samples=chosen.samples,
        num_critics=chosen.num_critics,
        num_test=len(test),
        pool=pool,
        critics=terms,
        losses=np.stack([run[1] for run in runs]),
        note=_note(means["softplus_fake"]),
    )


def _note(softplus_fake: float) -> str:
    if softplus_fake <= WRONG_SIGN:
        return ""
    return f"softplus_fake {softplus_fake:.3f} exceeds 2 log 2 = 1.386: the critic has not converged, do not quote it"


def _run(
    generated: Tensor | Sampler, test: Tensor, preset: Preset, stream: str, device: torch.device
) -> tuple[Terms, np.ndarray]:
    generator = torch.Generator("cpu")
    generator.manual_seed(_derived_seed(stream))
    with torch.device("cpu"):
        critic = Critic(preset.channels, *test.shape[2:])
    for name, parameter in critic.named_parameters():
        if name.endswith("weight"):
            parameter.data.normal_(0, preset.init_std, generator=generator)
        else:
            parameter.data.zero_()
    critic.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    fakes = _fake_batches(generated, test, preset, stream, generator)
    losses = _train(critic, fakes, test, preset, generator, device)
    with torch.inference_mode():
        fake = torch.cat(
            [critic(to_critic(images.to(device))) for images in _final_fakes(generated, test, preset, stream)]
        )
        real = torch.cat([critic(to_critic(images.to(device))) for images in test.split(CHUNK)])
    return _terms(real.double(), fake.double()), losses


def _train(
    critic: Critic,
    fakes: Iterator[Tensor],
    test: Tensor,
    preset: Preset,
    generator: torch.Generator,
    device: torch.device,
) -> np.ndarray:
    """Minimizes E log(1 + e^f(fake)) + E log(1 + e^-f(real)); the paper's formula prints -x_real for -f(x_real)."""
    optimizer = torch.optim.Adam(critic.parameters(), lr=preset.learning_rate, betas=preset.betas)
    every = max(1, preset.steps // LOSS_POINTS)
    losses = []
    with progress(preset.steps, "Neural Divergence", "steps") as counter:
        for step in range(preset.steps):
            real = test[_rows(len(test), preset.batch_size, generator, test.device)]
            batch = torch.cat([real.to(device), next(fakes).to(device)])
            real_logits, fake_logits = critic(to_critic(batch)).chunk(2)
            loss = functional.softplus(fake_logits).mean() + functional.softplus(-real_logits).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % every == 0:
                losses.append(loss.detach())
            counter.advance(1)
    return torch.stack(losses).cpu().numpy()


def _rows(count: int, batch_size: int, generator: torch.Generator, device: torch.device) -> Tensor:
    return torch.randint(count, (batch_size,), generator=generator, device="cpu").to(device)


def _fake_batches(
    generated: Tensor | Sampler, test: Tensor, preset: Preset, stream: str, generator: torch.Generator
) -> Iterator[Tensor]:
    """Batches without end: rows of the pool drawn with replacement, or fresh images."""
    if isinstance(generated, Tensor):
        while True:
            yield generated[_rows(len(generated), preset.batch_size, generator, generated.device)]
    per_chunk = max(1, CHUNK // preset.batch_size)
    chunk = 0
    while True:
        images = _sampled(generated, per_chunk * preset.batch_size, f"{stream}/training/{chunk}", test)
        yield from images.split(preset.batch_size)
        chunk += 1


def _final_fakes(generated: Tensor | Sampler, test: Tensor, preset: Preset, stream: str) -> Iterator[Tensor]:
    if isinstance(generated, Tensor):
        yield from generated[: preset.samples].split(CHUNK)
        return
    with progress(preset.samples, "Neural Divergence, final means", "images") as counter:
        for start in range(0, preset.samples, CHUNK):
            count = min(CHUNK, preset.samples - start)
            yield _sampled(generated, count, f"{stream}/final/{start}", test)
            counter.advance(count)


def _sampled(
    sampler: Callable[[int, int], tuple[Tensor, Tensor | None]], count: int, stream: str, test: Tensor
) -> Tensor:
    with torch.no_grad():
        images, _ = sampler(count, _derived_seed(stream))
    check_images(images, "sampler")
    check_same_size(images, "sampler", test, "test")
    if len(images) != count:
        raise EvaluationError(f"sampler: got {len(images)} images, expected the {count} it was asked for")
    return images


def _derived_seed(stream: str) -> int:
    return int.from_bytes(hashlib.blake2b(stream.encode(), digest_size=4).digest(), "little")


def _terms(real: Tensor, fake: Tensor) -> Terms:
    return Terms(
        softplus_fake=float(functional.softplus(fake).mean()),
        softplus_real=float(functional.softplus(-real).mean()),
        critic_gap=float(real.mean() - fake.mean()),
        accuracy=float(((real > 0).double().mean() + (fake <= 0).double().mean()) / 2),
        fake_mean=float(fake.mean()),
        fake_std=float(fake.std(correction=0)),
        real_mean=float(real.mean()),
        real_std=float(real.std(correction=0)),
    )


BETTER = {"softplus_fake": "higher", "softplus_real": "higher", "critic_gap": "lower", "accuracy": "lower"}


def measure(context: "Context") -> list[Value]:
    """Every term of the critics between fresh samples, or the generated images, and the test images."""
    settings = context.settings
    generated = context.sampler if context.sampler is not None else context.generated
    assert generated is not None
    assert context.test is not None
    result = neural_divergence(
        generated,
        context.test,
        preset=settings.nd_preset,
        steps=settings.nd_steps,
        samples=settings.nd_samples,
        batch_size=settings.nd_batch_size,
        num_critics=settings.nd_critics,
        seed=settings.seed,
        device=context.device,
    )
    names = ("preset", "steps", "batch_size", "samples", "num_critics", "num_test", "pool")
    fields = {name: getattr(result, name) for name in names}
    fields |= {"test_fingerprint": context.test_fingerprint, "seed": settings.seed, **context.generation_fields()}
    record = {"test": context.test_name, "log_2": log(2), "note": result.note}
    arrays = {
        f"{result.label}/losses": result.losses,
        f"{result.label}/critics": np.array(result.critics),  # (num_critics, terms)
    }
    return [
        Value(
            key=f"{result.label}/{term}",
            value=getattr(result, term),
            std=result.spread(term) if result.num_critics > 1 else None,
            count=result.num_test if term.endswith("real") or term.startswith("real") else result.samples,
            better=BETTER.get(term, ""),
            fields=fields,
            record=record,
            arrays=arrays if term == "softplus_fake" else {},
        )
        for term in Terms._fields
    ]
