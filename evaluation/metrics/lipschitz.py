"""Empirical Lipschitz histograms (eLhist) and Jacobian norms of a discriminator (Sanyal et al. 2020, 5.3 and E.2).

eLhist is the distribution of |f(x) - f(y)| / ||x - y||_2 over pairs of images; its local counterpart is the norm of the
gradient of f at single images. Both refer to the critic's input range [-1, 1]; for [0, 1] they would be twice as large.
"""

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from evaluation.context import Context
from evaluation.errors import EvaluationError
from evaluation.images.checks import check_inputs, check_labels, fingerprint, to_critic
from evaluation.reporting.value import Value
from evaluation.runtime.isolation import still
from evaluation.statistics.pairs import pairs_across, pairs_within, rows_by_class
from evaluation.statistics.percentiles import RESAMPLES, Statistic, summarize

BATCH_SIZE = 100  # images or pairs per pass; affects the speed only
ROUNDING = 1e-5  # difference allowed between two float32 passes, relative to the largest logit

Logits = Callable[[Tensor, Tensor | None], Tensor]  # images, labels or None -> logits (N,)


class Ratios(NamedTuple):
    """Ratios, distances and differences of P pairs, each (P,); a pair of equal images has distance 0 and ratio NaN."""

    ratio: Tensor  # difference / distance
    distance: Tensor  # ||x - y||_2 over all pixels
    difference: Tensor  # |f(x) - f(y)|


def empirical_lipschitz(
    critic: Callable[..., Tensor], x: Tensor, y: Tensor, labels: Tensor | None = None, *, batch_size: int = BATCH_SIZE
) -> Tensor:
    """Computes |f(x_i) - f(y_i)| / ||x_i - y_i||_2 for each pair i, (P,); NaN for x_i = y_i. Sanyal et al. 2020, 5.3.

    Args:
        critic: (images) or (images, labels) -> logits (P,) or (P, 1). A module is switched to eval mode and back. If an
            image's logit depends on its batch, as with minibatch statistics, images are passed one at a time.
        x, y: (P, ...) of one shape, float32 or float64, in the critic's input range, [-1, 1] for a discriminator.
        labels: int64 (P,), the class of both images of a pair, for a conditional critic.

    Raises:
        EvaluationError: inputs of a wrong shape or type or not finite; a critic that does not return one finite logit
            per image, or returns different logits for the same images.
    """
    return pair_ratios(critic, x, y, labels, batch_size=batch_size).ratio


def pair_ratios(
    critic: Callable[..., Tensor], x: Tensor, y: Tensor, labels: Tensor | None = None, *, batch_size: int = BATCH_SIZE
) -> Ratios:
    """Computes the ratios of `empirical_lipschitz` together with distances and differences."""
    for points in (x, y):
        _check_points(points, labels)
    if x.shape != y.shape:
        raise EvaluationError(f"pairs: got {tuple(x.shape)} and {tuple(y.shape)}, expected one shape")
    parts = []
    with _evaluated(critic, x, labels) as evaluate, torch.no_grad():
        for rows in torch.arange(len(x), device=x.device).split(batch_size):
            both = torch.cat([x[rows], y[rows]])
            logits = evaluate(both, None if labels is None else labels.to(x.device)[rows].repeat(2)).double()
            difference = (logits[: len(rows)] - logits[len(rows) :]).abs()
            distance = torch.linalg.vector_norm((x[rows] - y[rows]).flatten(1), dim=1, dtype=torch.float64)
            ratio = torch.where(distance > 0, difference / distance, torch.nan)
            parts.append(torch.stack([ratio, distance, difference]))
    return Ratios(*torch.cat(parts, dim=1).to(x.dtype))


def jacobian_norms(
    critic: Callable[..., Tensor], x: Tensor, labels: Tensor | None = None, *, batch_size: int = BATCH_SIZE
) -> Tensor:
    """Computes ||d f(x_i) / d x_i||_2 for each image i, (N,), at fixed labels. Sanyal et al. 2020, E.2.

    Takes one backward pass per batch, of the sum of the logits, because other images' logits do not depend on x_i.
    Gradients of parameters are neither computed nor changed. For the arguments see `empirical_lipschitz`.

    Raises:
        EvaluationError: see `empirical_lipschitz`; a critic that is not differentiable.
    """
    _check_points(x, labels)
    norms = []
    with _evaluated(critic, x, labels) as evaluate:
        for rows in torch.arange(len(x), device=x.device).split(batch_size):
            images = x[rows].detach().requires_grad_()
            logits = evaluate(images, None if labels is None else labels.to(x.device)[rows])
            norms.append(torch.linalg.vector_norm(gradient_of(logits.sum(), images, "critic").flatten(1), dim=1))
    return torch.cat(norms)


def samples_interact(critic: Callable[..., Tensor], x: Tensor, labels: Tensor | None = None) -> bool:
    """Tests on two images whether an image's logit depends on the other images of its batch.

    Examples are batch normalization in training mode and minibatch standard deviations.
    """
    _check_points(x, labels)
    with still(critic):
        return _interact(partial(_logits, critic), x, labels)


@contextmanager
def _evaluated(critic: Callable[..., Tensor], x: Tensor, labels: Tensor | None) -> Iterator[Logits]:
    """Yields the critic in eval mode as a function whose logits depend on single images; restores it afterwards."""
    with still(critic):
        evaluate = partial(_logits, critic)
        yield partial(_one_by_one, evaluate) if _interact(evaluate, x, labels) else evaluate


def _interact(evaluate: Logits, x: Tensor, labels: Tensor | None) -> bool:
    # A batch of two works with minibatch layers of any group size. One image is negated so that the two differ.
    pair = torch.stack([x[0], -x[-1]]).requires_grad_()
    classes = None if labels is None else labels[[0, -1]].to(x.device)
    logits, again = evaluate(pair, classes), evaluate(pair, classes)
    alone = evaluate(pair[:1], None if classes is None else classes[:1])
    rounding = ROUNDING * logits.abs().max()
    if bool((logits - again).abs().max() > rounding):
        raise EvaluationError(
            "critic: got different logits for the same images, expected equal logits; put every module inside it into "
            "eval mode, in which spectral normalization and dropout are constant"
        )
    if bool((logits[0] - alone[0]).abs() > rounding):
        return True
    if not logits.requires_grad:
        return False
    (gradient,) = torch.autograd.grad(logits[0], pair, allow_unused=True)
    return gradient is not None and bool(gradient[1].any())


def _one_by_one(evaluate: Logits, images: Tensor, labels: Tensor | None) -> Tensor:
    classes = [None] * len(images) if labels is None else labels.split(1)
    return torch.cat([evaluate(image, label) for image, label in zip(images.split(1), classes, strict=True)])


def _logits(critic: Callable[..., Tensor], images: Tensor, labels: Tensor | None) -> Tensor:
    """Returns the critic's logits (N,) after checking them."""
    logits = critic(images, labels) if labels is not None or _requires_labels(critic) else critic(images)
    if not isinstance(logits, Tensor) or logits.shape not in ((len(images),), (len(images), 1)):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise EvaluationError(
            f"critic: got {got} for {len(images)} images, expected one logit for each; pass only its adversarial head"
        )
    if not bool(logits.isfinite().all()):
        raise EvaluationError("critic: got logits that are not finite; has its training diverged?")
    return logits.flatten()


def _requires_labels(critic: Callable[..., Tensor]) -> bool:
    """Tells whether a critic requires a second argument, which is then passed even if it is None."""
    try:
        parameters = inspect.signature(critic.forward if isinstance(critic, nn.Module) else critic).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(one.kind in positional and one.default is inspect.Parameter.empty for one in parameters) == 2


def gradient_of(output: Tensor, images: Tensor, name: str, *, retain_graph: bool = False) -> Tensor:
    """Computes the gradient of a scalar with respect to the images; raises EvaluationError if there is none."""
    gradient = None
    if output.requires_grad:
        (gradient,) = torch.autograd.grad(output, images, retain_graph=retain_graph, allow_unused=True)
    if gradient is None:
        raise EvaluationError(
            f"{name}: got logits without a gradient with respect to the images, expected a differentiable network; "
            "is it run under no_grad, or are images detached inside?"
        )
    return gradient


def _check_points(x: Tensor, labels: Tensor | None) -> None:
    check_inputs(x, "critic's")
    check_labels(labels, len(x), "critic's")


class Points(NamedTuple):
    """A set of images from which pairs and single images are drawn."""

    name: str
    images: Tensor  # uint8 (N, C, H, W)
    rows: list[Tensor]  # rows of the images of each class; a single class if the critic is unconditional
    fields: dict[str, Any]


PAIRS = (("real", "fake"), ("real", "real"), ("fake", "fake"), ("test", "fake"))


def measure(context: Context) -> list[Value]:
    """Measures 95th percentiles of the ratios of each kind of pair, and of Jacobian norms at and near images.

    Real images are the critic's training images, by default the reference. Test images are used if there are at least
    `num_lipschitz` of them, they differ from the real ones, and for a conditional critic they have labels, at least two
    of each class. The arrays hold the full distributions. The record holds other percentiles.
    """
    points = {name: points_of(context, name, role) for name, role in image_roles(context).items()}
    values = [_elhist(context, points[first], points[second]) for first, second in PAIRS if first in points]
    for one in points.values():
        values += [_jacobian(context, one, noise) for noise in sorted({0.0, context.settings.lipschitz.noise})]
    return values


def image_roles(context: Context) -> dict[str, str]:
    """Maps the paper's names of image sets to those of the context."""
    real = context.training_role
    roles = {"real": real, "fake": "generated"}
    if context.test is None or len(context.test) < context.settings.num_lipschitz:
        return roles
    if context.critic_is_conditional:
        labels, num_classes = context.test_labels, context.image_set(real).num_classes
        if labels is None or int(labels.bincount(minlength=num_classes)[:num_classes].min()) < 2:
            return roles
    if context.image_set("test").fingerprint != context.image_set(real).fingerprint:
        roles["test"] = "test"
    return roles


def check(context: Context) -> None:
    """Raises EvaluationError if the real or the generated images have too few images for pairs, also of a class."""
    if not context.has(context.training_role):
        return
    real = context.image_set(context.training_role)
    if len(real) < 2:
        raise EvaluationError("metric elhist: got 1 real image, expected at least 2 for pairs; give more")
    if not context.critic_is_conditional:
        return
    count = context.settings.num_lipschitz
    rows_by_class(real.labels(len(real)), real.num_classes, "real")
    if context.generated_labels is not None:
        labels = context.generated_labels[:count].cpu()
        rows_by_class(labels, real.num_classes, "generated", _more_of_a_class(context))


def _more_of_a_class(context: Context) -> str:
    """Advice for a class with too few generated images."""
    advice = f"raise {context.setting('lipschitz.pairs')}"
    unequal = getattr(context.settings, "labels", "balanced") != "balanced"
    return advice + f", set {context.setting('labels')}=balanced" * unequal


def points_of(context: Context, name: str, role: str) -> Points:
    """Collects all real images, or the first `num_lipschitz` generated images, because the number of these varies."""
    images, labels = getattr(context, role), getattr(context, f"{role}_labels")
    fields: dict[str, Any] = {}
    if role == "generated":
        count = context.settings.num_lipschitz
        images, labels = images[:count], None if labels is None else labels[:count]
        fields["generation"] = dict(context.protocol)
    else:
        fields[f"{name}_fingerprint"] = context.image_set(role).fingerprint
    if not context.critic_is_conditional:
        return Points(name, images, [torch.arange(len(images), device="cpu")], fields)
    num_classes = context.image_set(image_roles(context)["real"]).num_classes
    fields["num_classes"] = num_classes
    if role != "generated":
        fields[f"{name}_labels"] = fingerprint(labels)
    return Points(name, images, rows_by_class(labels.cpu(), num_classes, role), fields)


def drawn_pairs(context: Context, first: Points, second: Points) -> tuple[Tensor, Tensor]:
    """Draws rows (P, 2) of pairs and their classes (P,), uniformly; an unconditional critic has one class, 0."""
    generator = torch.Generator("cpu").manual_seed(context.settings.seed)
    shape = (context.settings.lipschitz.pairs,)
    classes = torch.randint(len(first.rows), shape, generator=generator, device="cpu")
    if first is second:
        return pairs_within(first.rows, classes, generator), classes
    return pairs_across(first.rows, second.rows, classes, generator), classes


def shown(context: Context, points: Points, rows: Tensor) -> Tensor:
    """Returns images in the critic's input range, on its device."""
    return to_critic(points.images[rows.to(points.images.device)].to(context.device))


def _elhist(context: Context, first: Points, second: Points) -> Value:
    assert context.critic is not None
    rows, classes = drawn_pairs(context, first, second)
    labels = classes if context.critic_is_conditional else None
    x, y = shown(context, first, rows[:, 0]), shown(context, second, rows[:, 1])
    found = pair_ratios(context.critic, x, y, labels, batch_size=context.settings.batch_size)
    fields = {**first.fields, **second.fields, "pairing": "any" if labels is None else "matched"}
    record = {
        "equal_pairs": int((found.distance == 0).sum()),  # pairs of equal images, which have no ratio
        "one_at_a_time": samples_interact(context.critic, x, labels),
        "distinct_images": [len(side.unique()) for side in rows.unbind(dim=1)],
    }
    arrays = {name: tensor.cpu().numpy() for name, tensor in found._asdict().items()}
    return _value(context, f"elhist/{first.name}_{second.name}", "ratio", arrays, classes, fields, record)


def _jacobian(context: Context, points: Points, noise: float) -> Value:
    """Measures norms at the first image of each pair within a set, or at a random normal step from it.

    The step is that of Kodali et al. 2018.
    """
    assert context.critic is not None
    rows, classes = drawn_pairs(context, points, points)
    labels = classes if context.critic_is_conditional else None
    x = shown(context, points, rows[:, 0])
    generator = torch.Generator("cpu").manual_seed(context.settings.seed)
    x = x + noise * torch.randn(x.shape, generator=generator, device="cpu").to(x.device)
    norms = jacobian_norms(context.critic, x, labels, batch_size=context.settings.batch_size)
    fields = {**points.fields, "noise": noise}
    key = f"jacobian/{points.name}{'_near' if noise else ''}"
    return _value(context, key, "norm", {"norm": norms.cpu().numpy()}, classes, fields, {})


def _value(
    context: Context,
    key: str,
    name: str,
    arrays: dict[str, np.ndarray],
    classes: Tensor,
    fields: dict[str, Any],
    record: dict[str, Any],
) -> Value:
    """Builds the value of the 95th percentile of the array `name`."""
    seed = context.settings.seed
    values = arrays[name][np.isfinite(arrays[name])]
    statistics = summarize(values, seed=seed) if len(values) else {}
    p95 = statistics.get("p95", Statistic(math.nan, None))
    if context.critic_is_conditional:
        arrays = {**arrays, "class": classes.numpy()}
    return Value(
        key=f"{key}/p95",
        value=p95.value,
        std=None,
        count=len(values),
        better="",
        fields={**critic_protocol(context), **fields},
        record={
            "statistics": {one: each._asdict() for one, each in statistics.items()},
            "interval": f"95 %, percentile bootstrap, {RESAMPLES:,} resamples, seed {seed}",
            "note": "" if len(values) else f"{key}: all pairs are of equal images, so no ratio is defined",
            **record,
        },
        arrays={f"{key}/{one}": array for one, array in arrays.items()},
        interval=p95.interval,
    )


def critic_protocol(context: Context) -> dict[str, Any]:
    """Returns the protocol fields of all values, without the critic: values of different critics are to be compared."""
    fields = context.generation_fields()
    return {
        **{name: fields[name] for name in ("protocol_version", "image_size")},
        "pairs": context.settings.lipschitz.pairs,
        "seed": context.settings.seed,
        "conditional": context.critic_is_conditional,
        "input_scale": "p / 128 - 1",
        **context.input_fields(),
        "critic_mode": "eval",
        "critic_dtype": "float32",
        "tf32": False,
    }
