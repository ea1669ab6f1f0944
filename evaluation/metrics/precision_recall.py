"""Precision and recall (Kynkäänniemi et al. 2019); density and coverage (Naeem et al. 2020).

Each image of a set carries a ball that reaches to its k-th nearest neighbour in that set. Balls are closed, as in the
first paper: a distance equal to the radius, to rounding, is inside.
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

DISTANCES = 2**24  # held at a time: 128 MiB
ROUNDING = 1e-12  # of squared distances in float64, as a share of the squared norms


class Prdc(NamedTuple):
    """Shares of images, and the density, of one set of generated images against one of real images."""

    precision: float  # generated images in the ball of some real image
    recall: float  # real images in the ball of some generated image
    density: float  # real balls around a generated image over the k expected of them; 1 where the sets are alike
    coverage: float  # real images whose ball holds a generated image
    density_error: float  # standard error over generated images

    @property
    def f_score(self) -> float:
        """Harmonic mean of precision and recall; 0 where both are."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def prdc(*, real: Tensor, fake: Tensor, pr_neighbours: int = 3, dc_neighbours: int = 5) -> Prdc:
    """Precision, recall, density and coverage of features (N, D) and (M, D), in float64.

    Args:
        pr_neighbours: k of precision and recall; 3 in the paper and in torch-fidelity.
        dc_neighbours: k of density and coverage; 5 in the paper.

    Raises:
        EvaluationError: no more rows than neighbours, different D, or features that are not finite.
    """
    neighbours = (pr_neighbours, dc_neighbours)
    real, fake = float64_pair(real, fake, "prdc", at_least=max(neighbours) + 1)
    centre = real.mean(dim=0)  # small norms keep rounding small
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
    """Squared distances (N,) of each row to its k-th nearest other row, for both k."""
    nearest = [
        distances.topk(max(neighbours) + 1, dim=1, largest=False).values[:, list(neighbours)]  # the row itself is first
        for _, distances in _distances(rows, rows)
    ]
    first, second = torch.cat(nearest).clamp(min=0).T.contiguous()
    return first, second


def _distances(x: Tensor, y: Tensor, rounding: float = 0.0) -> Iterator[tuple[int, Tensor]]:
    """Squared distances of some rows of x to all of y, (rows, M), and where the rows begin.

    They are lowered by `rounding` times the squared norms, so that equal distances compare as equal or smaller.
    """
    norms_x, norms_y = x.square().sum(dim=1), y.square().sum(dim=1)
    size = max(1, DISTANCES // len(y))
    for start in range(0, len(x), size):
        norms = norms_x[start : start + size, None] + norms_y
        yield start, torch.addmm(norms, x[start : start + size], y.T, beta=1 - rounding, alpha=-2)


def check(context: Context) -> None:
    """Refuses sets with too few images for their neighbours.

    Raises:
        EvaluationError: naming the count and the number of neighbours.
    """
    most = max(context.settings.pr_neighbours, context.settings.dc_neighbours)
    for role, count in (("reference", context.num_real), ("generated", context.required("num_fid"))):
        if 0 < count <= most:
            raise EvaluationError(
                f"metric prdc: got {count} {role} images, expected more than the {most} neighbours; give more"
            )


def measure(context: Context) -> list[Value]:
    """Precision, recall, density, coverage of the first `num_fid` generated and `num_real` reference images."""
    settings, count = context.settings, context.required("num_fid")
    device = context.float64_device
    result = prdc(
        real=context.features("reference", context.num_real).to(device),
        fake=context.features("generated", count).to(device),
        pr_neighbours=settings.pr_neighbours,
        dc_neighbours=settings.dc_neighbours,
    )
    fields = {
        "num_generated": count,
        "num_reference": context.num_real,
        **context.set_fields("reference", context.num_real),
        **context.extractor_fields(),
        **context.generation_fields(),
    }
    binomial, normal = "binomial over images (Wilson), balls fixed", "normal over images, cut at 0, balls fixed"
    num_real = context.num_real
    intervals: dict[str, tuple[int, int, tuple[float, float] | None, str]] = {
        "precision": (settings.pr_neighbours, count, wilson_interval(result.precision, count), binomial),
        "recall": (settings.pr_neighbours, num_real, wilson_interval(result.recall, num_real), binomial),
        "f_score": (settings.pr_neighbours, count, None, ""),
        "density": (settings.dc_neighbours, count, _of_density(result), normal),
        "coverage": (settings.dc_neighbours, num_real, wilson_interval(result.coverage, num_real), binomial),
    }
    return [
        Value(
            key=context.key(name),
            value=getattr(result, name),
            std=None,
            count=images,
            better="higher",
            fields={"neighbours": neighbours, **fields},
            record={"reference": context.reference_name, **({"interval": how} if interval else {})},
            interval=interval,
        )
        for name, (neighbours, images, interval, how) in intervals.items()
    ]


def _of_density(result: Prdc) -> tuple[float, float] | None:
    """The normal interval, cut at 0; None where no ball holds an image, so that the spread is unknown."""
    low, high = normal_interval(result.density, result.density_error)
    return (max(low, 0.0), high) if result.density else None
