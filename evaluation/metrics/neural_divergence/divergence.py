"""Neural Divergence: how well a critic trained from scratch distinguishes generated images from real test images.

Gulrajani et al. 2019 proposed it with the WGAN-GP objective (preset "gulrajani2019"); Sanyal et al. 2020, Appendix E.1,
use a smaller critic and the logistic loss (preset "srn2020"). With m = (p_real + p_fake) / 2, the optimal logistic
critic has E_fake log(1 + e^f) = log 2 - KL(p_fake || m), at most log 2 = 0.693, and higher is better.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from math import log, sqrt
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from evaluation.context import Context
from evaluation.errors import EvaluationError
from evaluation.images.checks import Sampler, fingerprint
from evaluation.metrics.neural_divergence.critic import LOSSES, Noise, Training, gradient_penalties
from evaluation.metrics.neural_divergence.images import (
    CHUNK,
    CriticImages,
    count_unseen,
    critic_images,
    steps_per_chunk,
)
from evaluation.metrics.neural_divergence.unfinished import Unfinished
from evaluation.reporting.value import Value, protocol_hash
from evaluation.runtime.isolation import isolated
from evaluation.runtime.progress import progress
from evaluation.settings import Settings
from evaluation.settings.presets import PRESETS, Preset, check_settings
from evaluation.statistics.intervals import student_interval

VERSION = 2  # version of saved states; increment with any change to how critics are trained or evaluated
PASS = 256  # images per pass of a trained critic
LOSS_POINTS = 200  # recorded points of each critic's loss curve
WRONG_SIGN = 2 * log(2)  # upper bound of softplus_fake for a critic at least as good as f = 0
FAR_BELOW_CHANCE = -0.1  # a lower WGAN-GP objective shows that the critic has not converged: for identical sets it is 0


class Terms(NamedTuple):
    """Terms of one trained critic f; E_real is the mean over all real images, E_fake over the generated samples."""

    softplus_fake: float  # E_fake log(1 + e^f), the quantity that Sanyal et al. report
    softplus_real: float  # E_real log(1 + e^-f)
    critic_gap: float  # E_real f - E_fake f
    gradient_penalty: float  # E (|grad f| - 1)^2 between random pairs of a real and a generated image
    divergence: float  # the maximized objective, 0 for the uninformative critic f = 0
    accuracy: float  # mean of the fractions of real images with f > 0 and of generated images with f <= 0
    fake_mean: float
    fake_std: float
    real_mean: float
    real_std: float


class Meaning(NamedTuple):
    """Interpretation of a term: better direction ("higher", "lower" or "" for none), range for a converged critic."""

    better: str
    low: float | None
    high: float | None


_OF_ANY_CRITIC = {
    "critic_gap": Meaning("lower", 0, None),
    "gradient_penalty": Meaning("", 0, None),
    "fake_mean": Meaning("", None, None),
    "fake_std": Meaning("", 0, None),
    "real_mean": Meaning("", None, None),
    "real_std": Meaning("", 0, None),
}
MEANINGS: dict[str, dict[str, Meaning]] = {
    "logistic": {
        **_OF_ANY_CRITIC,
        "softplus_fake": Meaning("higher", 0, log(2)),
        "softplus_real": Meaning("higher", 0, log(2)),
        "divergence": Meaning("lower", 0, 2 * log(2)),
        "accuracy": Meaning("lower", 0.5, 1),
    },
    # Adding a constant to f changes neither this loss nor its penalty, but it changes the terms that compare f with 0.
    "wasserstein": {
        **_OF_ANY_CRITIC,
        "softplus_fake": Meaning("", 0, None),
        "softplus_real": Meaning("", 0, None),
        "divergence": Meaning("lower", 0, None),
        "accuracy": Meaning("", 0, 1),
    },
}
OF_REAL_IMAGES = ("softplus_real", "critic_gap", "divergence", "accuracy", "real_mean", "real_std")


class NeuralDivergence(NamedTuple):
    """Means of `Terms` over the critics, their spread, and the settings of the run."""

    softplus_fake: float
    softplus_real: float
    critic_gap: float
    gradient_penalty: float
    divergence: float
    accuracy: float
    fake_mean: float
    fake_std: float
    real_mean: float
    real_std: float
    preset: str  # name of the preset, or "custom"
    settings: Preset  # the preset with changes applied
    steps: int
    batch_size: int
    samples: int
    num_critics: int
    num_test: int  # real images that critics were trained on
    num_unseen: int  # real images held out
    pool: int | None  # size of the pool of generated training images; None: new images from the sampler
    final_images: str  # "fresh", or "pool" if critics are evaluated on the images that they were trained on
    critics: tuple[Terms, ...]
    unseen_critics: tuple[Terms, ...]  # terms of the same critics for held-out real images; () without these
    losses: np.ndarray  # (num_critics, points), training losses of the critics
    updates: str  # how critics were updated, as one CUDA graph or operation by operation, and why
    note: str  # a reason not to trust the value, or ""

    @property
    def label(self) -> str:
        """Prefix of the keys: "nd/" and the preset's name; "nd_short/" if critics have fewer steps than the preset."""
        return label_of(self.preset, self.steps)

    @property
    def unseen(self) -> Terms | None:
        """Means over the critics for the held-out real images; the gradient penalty is that of the training images."""
        return _means(self.unseen_critics) if self.unseen_critics else None

    def spread(self, term: str) -> float:
        """Returns the population standard deviation of a term over the critics."""
        return float(np.std([getattr(critic, term) for critic in self.critics]))


def neural_divergence(
    generated: Tensor | Sampler,
    test: Tensor,
    *,
    preset: str | Preset = "srn2020",
    steps: int | None = None,
    samples: int | None = None,
    batch_size: int | None = None,
    num_critics: int | None = None,
    critic_holdout: float = 0.0,
    pool: int | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    checkpoints: Path | None = None,
    identity: str = "",
) -> NeuralDivergence:
    """Trains critics to distinguish `generated` from `test` and returns the means of their terms.

    Args:
        generated: a sampler (count, seed) -> (uint8 images, labels or None), or a pool, uint8 (N, C, H, W). Critics can
            memorize a finite pool, but not new images from a sampler. A pool on the device is read fastest.
        test: real images, uint8 (M, C, H, W).
        preset: name of a preset, or custom settings.
        steps, samples, batch_size, num_critics: None uses the preset's. `samples` is at most the size of a pool.
        critic_holdout: fraction of the test images, drawn by the seed, that critics are not trained on. Their terms are
            reported separately; the difference shows memorization.
        pool: number of images that the sampler generates once for training; None: new images for each update. The final
            means are always over new images.
        seed: draws the critics' weights and batches; equal seeds give equal results on the same machine.
        checkpoints: folder for the state of a run, saved about once a minute, from which the same call resumes bit for
            bit; `unfinished.forget_finished` removes the final state.
        identity: text that identifies a sampler, such as the hash of its checkpoint; required with `checkpoints`.

    Raises:
        EvaluationError: invalid images or settings, or a critic that diverged.
    """
    chosen = check_settings(preset, steps=steps, samples=samples, batch_size=batch_size, num_critics=num_critics)
    if isinstance(generated, Tensor):
        chosen = replace(chosen, samples=min(chosen.samples, len(generated)))
    elif checkpoints is not None and not identity:
        raise EvaluationError("nd: got checkpoints without identity, expected a text that identifies the sampler")
    with isolated(), torch.inference_mode(False), torch.enable_grad():
        images = critic_images(generated, test, critic_holdout, pool, seed, torch.device(device))
        unfinished = Unfinished(checkpoints, {} if checkpoints is None else _key(images, chosen, seed, identity))
        finished = _finished(images, chosen, seed, unfinished)
    unfinished.finish({"finished": [critic.plain() for critic in finished], "current": None})
    return _result(images, finished, preset if isinstance(preset, str) else "custom", chosen)


def _result(images: CriticImages, finished: Sequence["Finished"], name: str, settings: Preset) -> NeuralDivergence:
    terms = tuple(critic.terms for critic in finished)
    means = _means(terms)
    if not np.isfinite(means).all():
        raise EvaluationError(
            f"nd: a critic diverged within {settings.steps} steps, expected finite logits; try another seed"
        )
    return NeuralDivergence(
        **means._asdict(),
        preset=name,
        settings=settings,
        steps=settings.steps,
        batch_size=settings.batch_size,
        samples=settings.samples,
        num_critics=settings.num_critics,
        num_test=len(images.real),
        num_unseen=len(images.unseen),
        pool=None if images.pool is None else len(images.pool),
        final_images="pool" if images.sampler is None else "fresh",
        critics=terms,
        unseen_critics=tuple(terms for critic in finished for terms in critic.unseen),
        losses=np.stack([critic.losses.numpy() for critic in finished]),
        updates="; ".join(dict.fromkeys(critic.updates for critic in finished)),
        note=_note(means, settings),
    )


def _key(images: CriticImages, preset: Preset, seed: int, identity: str) -> dict[str, Any]:
    """Returns the key of a run's state: everything that affects the run."""
    return {
        "version": VERSION,
        "settings": asdict(preset),
        "seed": seed,
        "real": fingerprint(images.real),
        "unseen": fingerprint(images.unseen),
        "sampler": None if images.sampler is None else identity,
        "pool": None if images.pool is None else fingerprint(images.pool),
        "device": images.device.type,
        "torch": version("torch"),
    }


class Finished(NamedTuple):
    """Results of a trained critic; `unseen` is () without held-out real images."""

    terms: Terms
    unseen: tuple[Terms, ...]
    losses: Tensor
    updates: str

    def plain(self) -> dict[str, Any]:
        """Converts the results to plain containers, numbers and tensors."""
        return {**self._asdict(), "terms": list(self.terms), "unseen": [list(terms) for terms in self.unseen]}

    @classmethod
    def of(cls, plain: dict[str, Any]) -> "Finished":
        """Restores the results from the output of `plain`."""
        terms, unseen = Terms(*plain["terms"]), tuple(Terms(*terms) for terms in plain["unseen"])
        return cls(terms, unseen, plain["losses"], plain["updates"])


def _finished(images: CriticImages, preset: Preset, seed: int, unfinished: Unfinished) -> list[Finished]:
    """Trains and evaluates all critics, resuming an unfinished run."""
    state = unfinished.read() or {"finished": [], "current": None}
    with unfinished.restoring():
        finished = [Finished.of(plain) for plain in state["finished"]]
        current = state["current"]
    for number in range(len(finished), preset.num_critics):
        run = CriticRun(images, preset, f"{seed}/critic {number}")
        if current is not None:
            with unfinished.restoring():
                run.restore(current)
            current = None
        plain = [critic.plain() for critic in finished]
        title = f"Neural Divergence, critic {number + 1} of {preset.num_critics}"
        with progress(run.total, title, "images") as counter:
            counter.advance(run.done)
            while run.done < run.total:
                counter.advance(run.advance())
                if unfinished.due:
                    unfinished.write({"finished": plain, "current": run.state()})
        finished.append(run.result())
    return finished


class CriticRun:
    """Training and then evaluation of one critic on `samples` generated images, in chunks."""

    def __init__(self, images: CriticImages, preset: Preset, stream: str) -> None:
        self.images, self.preset, self.stream = images, preset, stream
        channels, height, width = images.real.shape[1:]
        loss_every = max(1, preset.steps // LOSS_POINTS)
        self.training = Training(
            preset, (height, width), stream, images.device, loss_every=loss_every, image_channels=channels
        )
        self.fake_logits, self.penalties = (torch.empty(0, device=images.device) for _ in range(2))

    @property
    def total(self) -> int:
        """Number of generated images that training and evaluation use in all."""
        return self.preset.steps * self.preset.batch_size + self.preset.samples

    @property
    def done(self) -> int:
        """Number of generated images used so far."""
        return self.training.step * self.preset.batch_size + len(self.fake_logits)

    def advance(self) -> int:
        """Trains or evaluates on the next chunk; returns the number of generated images used."""
        before, training = self.done, self.training
        if training.step < self.preset.steps:
            chunk = training.step // steps_per_chunk(self.preset)
            training.run(*self.images.batches(self.preset, self.stream, chunk, training.generator))
        else:
            self._measure()
        return self.done - before

    def _measure(self) -> None:
        """Evaluates a chunk of generated images, and the gradient penalty at random pairs of real and generated images.

        The other terms are means over all real images, of which the reference code draws a sample.
        """
        start, critic = len(self.fake_logits), self.training.average
        stream = f"{self.stream}/final/{start}"
        count = min(CHUNK, self.preset.samples - start)
        images = self.images.final(stream, start, count), self.images.partners(stream, count)
        noise = Noise(f"{stream}/noise", self.images.device)
        for pair in zip(*(part.split(PASS) for part in images), strict=True):
            fake, real = (noise.pixels(part, self.preset) for part in pair)
            with torch.no_grad():
                self.fake_logits = torch.cat([self.fake_logits, critic(fake)])
            penalties = gradient_penalties(critic, real, fake, noise.shares(len(fake)), create_graph=False)
            self.penalties = torch.cat([self.penalties, penalties])

    def result(self) -> Finished:
        """Evaluates the real images and returns the results of the critic."""
        unseen = (self._terms(self.images.unseen, "unseen"),) if len(self.images.unseen) else ()
        terms = self._terms(self.images.real, "real")
        return Finished(terms, unseen, self.training.loss_curve(), self.training.update.name)

    def _terms(self, real: Tensor, name: str) -> Terms:
        noise = Noise(f"{self.stream}/final/{name}/noise", self.images.device)
        batches = (noise.pixels(part.to(self.images.device), self.preset) for part in real.split(PASS))
        with torch.no_grad():
            logits = [self.training.average(batch) for batch in batches]
        return _terms(torch.cat(logits).double(), self.fake_logits.double(), self.penalties.double(), self.preset)

    def state(self) -> dict[str, Any]:
        """Returns the state from which `restore` continues bit for bit; plain containers and tensors."""
        return {
            "training": self.training.state(),
            "fake_logits": self.fake_logits.cpu(),
            "penalties": self.penalties.cpu(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restores a state that `state` returned."""
        self.training.restore(state["training"])
        self.fake_logits = state["fake_logits"].to(self.images.device)
        self.penalties = state["penalties"].to(self.images.device)


def _terms(real: Tensor, fake: Tensor, penalties: Tensor, preset: Preset) -> Terms:
    """Computes the terms from a critic's float64 logits (M,) and (N,), and gradient penalties (N,)."""
    loss = LOSSES[preset.loss]
    penalty = float(penalties.mean())
    return Terms(
        softplus_fake=float(functional.softplus(fake).mean()),
        softplus_real=float(functional.softplus(-real).mean()),
        critic_gap=float(real.mean() - fake.mean()),
        gradient_penalty=penalty,
        divergence=loss.chance - float(loss.of(real, fake)) - preset.gp_lambda * penalty,
        accuracy=float(((real > 0).double().mean() + (fake <= 0).double().mean()) / 2),
        fake_mean=float(fake.mean()),
        fake_std=float(fake.std(correction=0)),
        real_mean=float(real.mean()),
        real_std=float(real.std(correction=0)),
    )


def _means(critics: Sequence[Terms]) -> Terms:
    return Terms(*np.mean(np.array(critics), axis=0).tolist())


def _note(terms: Terms, preset: Preset) -> str:
    if preset.loss == "logistic" and terms.softplus_fake > WRONG_SIGN:
        reason = f"softplus_fake {terms.softplus_fake:.3f} exceeds 2 log 2 = 1.386"
    elif preset.loss == "wasserstein" and terms.divergence < FAR_BELOW_CHANCE:
        reason = f"divergence {terms.divergence:.3f} is below 0, the value for identical sets"
    else:
        return ""
    return f"{reason}: the critic has not converged, do not report this value"


def interval_of_mean(values: Sequence[float]) -> tuple[float, float] | None:
    """Returns the 95 % interval, by Student's t, of the mean of independent values; None for a single value."""
    if len(values) < 2:
        return None
    return student_interval(float(np.mean(values)), float(np.std(values, ddof=1)) / sqrt(len(values)), len(values) - 1)


def replaced(settings: Settings) -> dict[str, str]:
    """Test images are replaced by training images if the settings say so."""
    return {"test": "trained_on"} if settings.nd.split == "train" else {}


def label_of(preset: str, steps: int) -> str:
    """Returns the prefix of the keys for the name of a preset and the number of steps."""
    short = preset in PRESETS and steps < PRESETS[preset].steps
    return f"{'nd_short' if short else 'nd'}/{preset}"


def directed(settings: Settings) -> tuple[str, ...]:
    """Returns the keys of the terms that can be ranked."""
    chosen, preset = settings.nd, PRESETS[settings.nd.preset]
    label = label_of(chosen.preset, chosen.steps or preset.steps)
    terms = [term for term, meaning in MEANINGS[preset.loss].items() if meaning.better]
    unseen = [f"unseen/{term}" for term in terms if term in OF_REAL_IMAGES and chosen.holdout]
    return tuple(f"{label}/{term}" for term in (*terms, *unseen))


def check(context: Context) -> None:
    """Raises EvaluationError for a holdout that leaves no images, or a pool without a sampler to fill it."""
    settings = context.settings.nd
    role = context.training_role if settings.split == "train" else "test"
    if context.has(role):
        count_unseen(len(context.image_set(role)), settings.holdout)
    if settings.pool is not None and context.generated is not None and context.sampler is None:
        raise EvaluationError(
            f"metric nd: got {context.setting('nd.pool')} for a fixed set of images, expected a generator that makes "
            "the pool; leave it out"
        )


def measure(context: Context) -> list[Value]:
    """Measures all terms of critics trained on new samples, or on the generated images, against real images.

    Real images are the test images, or the training images by nd.split, as Sanyal et al. took them for CelebA.
    """
    settings = context.settings.nd
    generated = context.sampler if context.sampler is not None else context.generated
    assert generated is not None
    role = context.training_role if settings.split == "train" else "test"
    result = neural_divergence(
        generated,
        context.image_set(role).images,
        preset=settings.preset,
        steps=settings.steps,
        samples=settings.num_samples,
        batch_size=settings.batch_size,
        num_critics=settings.num_critics,
        critic_holdout=settings.holdout,
        pool=settings.pool,
        seed=context.settings.seed,
        device=context.device,
        checkpoints=context.nd_checkpoints,
        identity=_identity(context),
    )
    names = ("preset", "num_unseen", "pool", "final_images")
    fields = {
        **asdict(result.settings),
        **{name: getattr(result, name) for name in names},
        **_real_fields(context, role, result.num_test),
        "seed": context.settings.seed,
        **context.generation_fields(),
        **context.input_fields(),
    }
    chance = LOSSES[result.settings.loss].chance
    record = {**_real_names(context, role), "note": result.note, "chance": chance, "updates": result.updates}
    values = [_value(result, result.critics, term, "", fields, record) for term in Terms._fields]
    # Critics have the shape (num_critics, terms).
    arrays = {f"{result.label}/losses": result.losses, f"{result.label}/critics": np.array(result.critics)}
    values[0] = replace(values[0], arrays=arrays)
    if result.unseen_critics:
        values += [_value(result, result.unseen_critics, term, "unseen/", fields, record) for term in OF_REAL_IMAGES]
    return values


def _real_fields(context: Context, role: str, count: int) -> dict[str, Any]:
    """Protocol fields of the real images: number and fingerprint; their split unless it is test."""
    shown = context.image_set(role).fingerprint
    if role == "test":
        return {"num_test": count, "test_fingerprint": shown}
    return {"split": "train", "num_train": count, "train_fingerprint": shown}


def _real_names(context: Context, role: str) -> dict[str, str]:
    """Names of the real images, for people."""
    if role == "test":
        return {"test": context.test_name}
    return {"train": context.reference_name if role == "reference" else f"{context.title}, train"}


def _identity(context: Context) -> str:
    """Hashes the caller's description of the generator; returns "" without a description or a checkpoint folder."""
    if context.nd_checkpoints is None or not context.subject:
        return ""
    hashed = "checkpoint_sha256" in context.subject  # identifies the file independently of its path
    subject = {name: value for name, value in context.subject.items() if not (hashed and name == "checkpoint")}
    return protocol_hash("identity", {"subject": subject, "protocol": context.protocol})


def _value(
    result: NeuralDivergence,
    critics: Sequence[Terms],
    term: str,
    prefix: str,
    fields: dict[str, Any],
    record: dict[str, Any],
) -> Value:
    values = [getattr(critic, term) for critic in critics]
    meaning = MEANINGS[result.settings.loss][term]
    interval = interval_of_mean(values)
    num_real = result.num_unseen if prefix else result.num_test
    record = {**record, "bounds": [meaning.low, meaning.high]}
    if interval is not None:
        record["interval"] = f"Student t over {len(values)} critics"
    return Value(
        key=f"{result.label}/{prefix}{term}",
        value=float(np.mean(values)),
        std=float(np.std(values)) if len(values) > 1 else None,
        count=num_real if "real" in term else result.samples,
        better=meaning.better,
        fields=fields,
        record=record,
        interval=interval,
    )
