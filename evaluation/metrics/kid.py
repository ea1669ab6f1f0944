"""Kernel Inception distance, the unbiased squared maximum mean discrepancy of features (Binkowski et al. 2018).

k(x, y) = (x.y / D + 1)^3,  MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y) over distinct images. The estimate is unbiased
for any number of images, so for equal distributions it is negative about half of the time.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from evaluation.context import Context
from evaluation.errors import EvaluationError
from evaluation.images.features import float64_pair
from evaluation.reporting.value import Value
from evaluation.statistics.intervals import normal_interval

SUBSET_SEED = 2020  # as in torch-fidelity
BLOCK = 2048  # rows and columns of the kernel matrix computed at a time
FEWEST = 3  # images that the jackknife requires


class Kid(NamedTuple):
    """Mean and population standard deviation over subsets; value over all pairs of images and its standard error."""

    mean: float
    std: float
    all_pairs: float
    standard_error: float


class Estimate(NamedTuple):
    """Unbiased squared MMD over all pairs of images, and its standard error by the delete-one jackknife."""

    value: float
    standard_error: float


class _Sums(NamedTuple):
    """Weighted sums of kernel values for each of N + M images; sums within a set exclude the image itself."""

    xx: Tensor  # (N, S)
    yy: Tensor  # (M, S)
    xy: Tensor  # (N, S), over y
    yx: Tensor  # (M, S), over x


def kid(
    generated: Tensor, reference: Tensor, *, subsets: int = 100, subset_size: int = 1000, seed: int = SUBSET_SEED
) -> Kid:
    """Computes KID of features (N, D) and (M, D), in float64, over torch-fidelity's random subsets and over all pairs.

    Each kernel value is computed once for all subsets; memory grows with N + M, time with (N + M)^2 D.

    Raises:
        EvaluationError: fewer rows than `subset_size` or 3, different D, or features that are not finite.
    """
    x, y = float64_pair(generated, reference, "kid", at_least=max(subset_size, FEWEST))
    random = np.random.RandomState(seed)
    members_x, members_y = torch.zeros(len(x), subsets), torch.zeros(len(y), subsets)
    for subset in range(subsets):
        for members in (members_x, members_y):
            members[torch.from_numpy(random.choice(len(members), subset_size, replace=False)), subset] = 1
    members_x, members_y = members_x.to(x), members_y.to(y)
    sums = _kernel_sums(x, y, members_x, members_y)
    within = (members_x * sums.xx[:, 1:]).sum(0) + (members_y * sums.yy[:, 1:]).sum(0)  # (subsets,)
    between = (members_x * sums.xy[:, 1:]).sum(0)
    values = within / (subset_size * (subset_size - 1)) - 2 * between / subset_size**2
    return Kid(float(values.mean()), float(values.std(correction=0)), *_jackknife(sums))


def kid_of_all_pairs(generated: Tensor, reference: Tensor) -> Estimate:
    """Computes KID of features (N, D) and (M, D) over all pairs, in float64; unlike subsets this adds no noise.

    Raises:
        EvaluationError: fewer than 3 rows, different D, or features that are not finite.
    """
    x, y = float64_pair(generated, reference, "kid", at_least=FEWEST)
    return _jackknife(_kernel_sums(x, y, x[:, :0], y[:, :0]))


def _kernel_sums(x: Tensor, y: Tensor, weights_x: Tensor, weights_y: Tensor) -> _Sums:
    """Computes the sums for weights (N, S) and (M, S), after prepending a column of ones."""
    weights_x = torch.cat([torch.ones_like(x[:, :1]), weights_x], dim=1)
    weights_y = torch.cat([torch.ones_like(y[:, :1]), weights_y], dim=1)
    xy, yx = torch.zeros_like(weights_x), torch.zeros_like(weights_y)
    for i in range(0, len(x), BLOCK):
        for j in range(0, len(y), BLOCK):
            kernel = _kernel(x[i : i + BLOCK], y[j : j + BLOCK])
            xy[i : i + BLOCK] += kernel @ weights_y[j : j + BLOCK]
            yx[j : j + BLOCK] += kernel.T @ weights_x[i : i + BLOCK]
    return _Sums(_sums_within(x, weights_x), _sums_within(y, weights_y), xy, yx)


def _sums_within(x: Tensor, weights: Tensor) -> Tensor:
    sums = torch.zeros_like(weights)
    for i in range(0, len(x), BLOCK):
        for j in range(0, i + 1, BLOCK):
            kernel = _kernel(x[i : i + BLOCK], x[j : j + BLOCK])
            if i == j:
                kernel.fill_diagonal_(0)
            else:
                sums[j : j + BLOCK] += kernel.T @ weights[i : i + BLOCK]
            sums[i : i + BLOCK] += kernel @ weights[j : j + BLOCK]
    return sums


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    product = torch.mm(x, y.T).div_(x.shape[1]).add_(1)
    return product.square().mul_(product)


def _jackknife(sums: _Sums) -> Estimate:
    xx, yy, xy, yx = (part[:, 0] for part in sums)
    n, m = len(xx), len(yy)
    own_x, own_y, cross = xx.sum(), yy.sum(), xy.sum()
    value = own_x / (n * (n - 1)) + own_y / (m * (m - 1)) - 2 * cross / (n * m)
    without_x = (own_x - 2 * xx) / ((n - 1) * (n - 2)) - 2 * (cross - xy) / ((n - 1) * m)
    without_y = (own_y - 2 * yy) / ((m - 1) * (m - 2)) - 2 * (cross - yx) / (n * (m - 1))
    variance = (n - 1) * without_x.var(correction=0) + (m - 1) * without_y.var(correction=0)
    return Estimate(float(value), float(variance.sqrt()))


def check(context: Context) -> None:
    """Raises EvaluationError for fewer generated or reference images than a subset has, or than FEWEST."""
    size, name = subset_size(context), context.setting("kid_subset_size")
    for role, count in (("reference", context.num_real), ("generated", context.required("num_fid"))):
        if 0 < count < size:
            raise EvaluationError(
                f"metric kid: got {count} {role} images, expected at least {name} = {size}; "
                f"give more, or lower {name} (a different protocol, with a different hash)"
            )
        if 0 < count < FEWEST:
            raise EvaluationError(f"metric kid: got {count} {role} images, expected at least {FEWEST}; give more")


def subset_size(context: Context) -> int:
    """Images in each subset: `kid_subset_size`; in protocol `all`, half of the smaller set if that has fewer images."""
    size = context.settings.kid_subset_size
    smaller = min(context.num_real, context.required("num_fid") or context.num_real)
    return max(2, smaller // 2) if context.settings.protocol == "all" and smaller < size else size


def measure(context: Context) -> list[Value]:
    """Measures KID of the first `num_fid` generated and `num_real` reference images, over subsets and all pairs."""
    settings, count, device = context.settings, context.required("num_fid"), context.float64_device
    generated = context.features("generated", count).to(device)
    reference = context.features_as_given("reference", context.num_real).to(device)  # torch-fidelity's order
    size = subset_size(context)
    result = kid(generated, reference, subsets=settings.kid_subsets, subset_size=size)
    fields = {"num_generated": count, "kernel": "(x.y / D + 1)^3", **context.image_fields(context.num_real)}
    subsets = {"subsets": settings.kid_subsets, "subset_size": size, "subset_seed": SUBSET_SEED}
    record = {"reference": context.reference_name, **_note(context.key("kid"), result.mean)}
    over_subsets = context.value(
        "kid", result.mean, count, "lower", {**fields, **subsets}, std=result.std, record=record
    )
    record = {
        "reference": context.reference_name,
        "interval": "delete-one jackknife, normal",
        **_note(context.key("kid_all_pairs"), result.all_pairs),
    }
    interval = normal_interval(result.all_pairs, result.standard_error)
    return [
        over_subsets,
        context.value("kid_all_pairs", result.all_pairs, count, "lower", fields, record=record, interval=interval),
    ]


def _note(key: str, value: float) -> dict[str, str]:
    if value >= 0:
        return {}
    return {"note": f"{key} is below 0: the estimate is unbiased and cannot distinguish the two sets of images"}
