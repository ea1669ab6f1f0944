"""Precision and recall (Kynkäänniemi et al. 2019); density and coverage (Naeem et al. 2020).

The radius of an image's ball is the distance to its k-th nearest neighbour in the same set. Balls are closed, as in the
first paper: a distance that equals the radius up to rounding is inside.
"""

from collections.abc import Iterator
from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from evaluation.context import Context
from evaluation.errors import EvaluationError
from evaluation.images.features import float64_pair
from evaluation.reporting.value import Value
from evaluation.statistics.intervals import normal_interval, wilson_interval

DISTANCES = 2**24  # distances computed at a time: 128 MiB
ROUNDING = 1e-12  # rounding error of squared distances in float64, relative to the squared norms


class Prdc(NamedTuple):
    """Precision, recall, density and coverage of generated images against real images."""

    precision: float  # fraction of generated images inside the ball of some real image
    recall: float  # fraction of real images inside the ball of some generated image
    # mean number of real images' balls around a generated image, divided by k; 1 for equal distributions
    density: float
    coverage: float  # fraction of real images whose ball contains a generated image
    density_error: float  # standard error of the density, over generated images

    @property
    def f_score(self) -> float:
        """Harmonic mean of precision and recall; 0 if both are 0."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def prdc(*, real: Tensor, fake: Tensor, pr_neighbours: int = 3, dc_neighbours: int = 5) -> Prdc:
    """Computes precision, recall, density and coverage of features (N, D) and (M, D), in float64.

    Args:
        pr_neighbours: k of precision and recall; 3 in the paper and in torch-fidelity.
        dc_neighbours: k of density and coverage; 5 in the paper.

    Raises:
        EvaluationError: too few rows for the neighbours, different D, or features that are not finite.
    """
    neighbours = (pr_neighbours, dc_neighbours)
    real, fake = float64_pair(real, fake, "prdc", at_least=max(neighbours) + 1)
    centre = real.mean(dim=0)  # smaller norms reduce rounding errors
    real, fake = real - centre, fake - centre
    (real_pr, real_dc), (fake_pr, _) = _radii(real, neighbours), _radii(fake, neighbours)
    precise, depth = [], []
    recalled, covered = (torch.zeros(len(real), dtype=torch.bool, device=real.device) for _ in range(2))
    for start, distances in _distances(fake, real, rounding=ROUNDING):  # (rows, N)
        inside = distances <= real_dc
        precise.append((distances <= real_pr).any(dim=1))
        depth.append(inside.sum(dim=1))
        covered |= inside.any(dim=0)
        recalled |= (distances <= fake_pr[start : start + len(distances), None]).any(dim=0)
    density = torch.cat(depth).double() / dc_neighbours
    return Prdc(
        precision=float(torch.cat(precise).double().mean()),
        recall=float(recalled.double().mean()),
        density=float(density.mean()),
        coverage=float(covered.double().mean()),
        density_error=float(density.std()) / sqrt(len(density)),
    )


def _radii(rows: Tensor, neighbours: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Returns the squared distance (N,) of each row to its k-th nearest other row, for both k."""
    nearest = [
        distances.topk(max(neighbours) + 1, dim=1, largest=False).values[:, list(neighbours)]  # the row itself is first
        for _, distances in _distances(rows, rows)
    ]
    first, second = torch.cat(nearest).clamp(min=0).T.contiguous()
    return first, second


def _distances(x: Tensor, y: Tensor, rounding: float = 0.0) -> Iterator[tuple[int, Tensor]]:
    """Yields, for each block of rows of x, the first row's index and squared distances to all rows of y, (rows, M).

    Reduces distances by `rounding` times the squared norms, so that a distance equal to a radius counts as inside.
    """
    norms_x, norms_y = x.square().sum(dim=1), y.square().sum(dim=1)
    size = max(1, DISTANCES // len(y))
    for start in range(0, len(x), size):
        norms = norms_x[start : start + size, None] + norms_y
        yield start, torch.addmm(norms, x[start : start + size], y.T, beta=1 - rounding, alpha=-2)


def check(context: Context) -> None:
    """Raises EvaluationError unless there are more generated and reference images than neighbours."""
    most = max(context.settings.pr_neighbours, context.settings.dc_neighbours)
    for role, count in (("reference", context.num_real), ("generated", context.required("num_fid"))):
        if 0 < count <= most:
            raise EvaluationError(
                f"metric prdc: got {count} {role} images, expected more than the {most} neighbours; give more, "
                f"or lower {context.setting('pr_neighbours')} and {context.setting('dc_neighbours')} "
                "(a different protocol, with a different hash)"
            )


def measure(context: Context) -> list[Value]:
    """Measures precision, recall, density, coverage of `num_fid` generated against `num_real` reference images."""
    settings, device = context.settings, context.float64_device
    count, num_real = context.required("num_fid"), context.num_real
    k_pr, k_dc = settings.pr_neighbours, settings.dc_neighbours
    real, fake = context.features("reference", num_real), context.features("generated", count)
    result = prdc(real=real.to(device), fake=fake.to(device), pr_neighbours=k_pr, dc_neighbours=k_dc)
    binomial, normal = "binomial over images (Wilson), balls fixed", "normal over images, cut at 0, balls fixed"
    values: dict[str, tuple[int, int, tuple[float, float] | None, str]] = {
        "precision": (k_pr, count, wilson_interval(result.precision, count), binomial),
        "recall": (k_pr, num_real, wilson_interval(result.recall, num_real), binomial),
        "f_score": (k_pr, count, None, ""),
        "density": (k_dc, count, _density_interval(result), normal),
        "coverage": (k_dc, num_real, wilson_interval(result.coverage, num_real), binomial),
    }
    noted = {"note": note} if (note := context.count_note(count)) else {}
    return [
        context.value(
            name,
            getattr(result, name),
            images,
            "higher",
            {"neighbours": neighbours, "num_generated": count, **context.image_fields(num_real)},
            record={"reference": context.reference_name, **({"interval": method} if interval else {}), **noted},
            interval=interval,
        )
        for name, (neighbours, images, interval, method) in values.items()
    ]


def _density_interval(result: Prdc) -> tuple[float, float] | None:
    """Returns the 95 % normal interval, clipped at 0; None for a density of 0, which has no spread to estimate from."""
    low, high = normal_interval(result.density, result.density_error)
    return (max(low, 0.0), high) if result.density else None
