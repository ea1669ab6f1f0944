"""Inception Score (Salimans et al. 2016), computed as in the original code and in torch-fidelity."""

import numpy as np
import torch
from torch import Tensor

from evaluation.context import Context
from evaluation.errors import EvaluationError
from evaluation.reporting.value import Value

SHUFFLE_SEED = 2020  # as in torch-fidelity
IMAGES_PER_SPLIT, MOST_SPLITS = 5_000, 10  # as published: 50,000 images in 10 splits


def inception_score(logits: Tensor, splits: int = 10, *, seed: int = SHUFFLE_SEED) -> tuple[float, float]:
    """Computes mean and population standard deviation over `splits` parts of IS = exp(E_x KL(p(y|x) || p(y))).

    Rows are shuffled by a seeded permutation and split into parts whose sizes differ by at most 1; softmax in float64.

    Args:
        logits: (N, K); for the usual score, Inception's logits without the bias of its last layer.

    Raises:
        EvaluationError: logits that are not a finite tensor (N, K), or fewer rows than splits.
    """
    if not isinstance(logits, Tensor):
        raise EvaluationError(
            f"inception_score: got {type(logits).__name__}, expected logits as a torch tensor of floats (N, K)"
        )
    if logits.ndim != 2 or not logits.is_floating_point():
        raise EvaluationError(f"inception_score: got logits {tuple(logits.shape)}, expected floats (N, K)")
    if not 1 <= splits <= len(logits):
        raise EvaluationError(
            f"inception_score: got {splits} splits for {len(logits)} images, expected 1 to {len(logits)}"
        )
    if not bool(logits.isfinite().all()):
        raise EvaluationError("inception_score: got logits with NaN or infinite entries, expected finite ones")
    count = len(logits)
    order = np.random.RandomState(seed).permutation(count)
    scores = []
    for part in range(splits):
        rows = torch.from_numpy(order[part * count // splits : (part + 1) * count // splits])
        log_p = logits[rows.to(logits.device)].double().log_softmax(dim=1)
        p = log_p.exp()
        # logsumexp keeps the log of the mean finite if every p underflows; p log p is then 0, not NaN.
        log_marginal = log_p.logsumexp(dim=0) - np.log(len(rows))
        scores.append(float((p * (log_p - log_marginal)).sum(dim=1).mean().exp()))
    return float(np.mean(scores)), float(np.std(scores))


def check(context: Context) -> None:
    """Raises EvaluationError for fewer images than splits."""
    count, splits = context.required("num_is"), context.settings.number("is_splits")
    if 0 < count < splits:
        raise EvaluationError(
            f"metric is: got {count} generated images, expected at least one for each of {splits} splits; give more, "
            f"or lower {context.setting('is_splits')} (a different protocol, with a different hash)"
        )


def splits_of(count: int) -> int:
    """Returns the number of splits for all of `count` images: one for IMAGES_PER_SPLIT, from 1 to MOST_SPLITS.

    A score of few images is too low, so small splits would say more about their size than about the images.
    """
    return max(1, min(MOST_SPLITS, count // IMAGES_PER_SPLIT))


def measure(context: Context) -> list[Value]:
    """Measures IS of the first `num_is` generated images."""
    logits = context.logits("generated", context.required("num_is"))
    splits = context.settings.number("is_splits") or splits_of(len(logits))
    mean, std = inception_score(logits, splits)
    fields = {"num_generated": len(logits), "splits": splits, "shuffle_seed": SHUFFLE_SEED}
    return [context.value("is", mean, len(logits), "higher", fields, std=std if splits > 1 else None)]
