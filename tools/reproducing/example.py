"""The linear example of Sanyal et al. 2020, Appendix B.2: f(x) = W2 W1 x, whose first weight loses rank."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch

from evaluation.reporting.value import protocol_hash
from reproducing.measured import MeasuredRun
from reproducing.results import Ours, Spread

SIZE = 64  # of x and of both layers' outputs
PAIRS = 2000


@dataclass(frozen=True)
class LinearExample:
    """f(x) = W2 W1 x with random orthogonal weights, of which W1 keeps `rank` singular values; the others become 0.

    The product of the layers' norms and the norm of the Jacobian stay 1. Nothing is trained: a seed draws the weights,
    and pairs of standard normal points, of which |f(x) - f(y)|^2 / |x - y|^2 is rank / 64 on average.
    """

    label: str
    rank: int

    note: ClassVar[str] = "In our columns ± is the standard deviation over seeds."

    def reach(self, spread: Spread) -> float:
        """Number shown after ±: the standard deviation over seeds."""
        return spread.std

    def groups(self, metrics: Any) -> tuple[tuple[str, ...], ...]:
        """Groups of metrics: none, as there is no run to evaluate."""
        return ()

    def values(self, seed: int) -> dict[str, float]:
        """Product of the layers' norms, norm of the Jacobian W2 W1, largest |f(x) - f(y)| / |x - y| over the pairs."""
        random = torch.Generator().manual_seed(seed)
        draw = partial(torch.randn, generator=random, dtype=torch.float64)
        first, second = (torch.linalg.qr(draw(SIZE, SIZE)).Q for _ in range(2))
        first[self.rank :] = 0
        jacobian = second @ first
        steps = draw(PAIRS, SIZE) - draw(PAIRS, SIZE)
        norms = [float(torch.linalg.matrix_norm(matrix, 2)) for matrix in (first, second, jacobian)]
        largest = float(((steps @ jacobian.T).norm(dim=1) / steps.norm(dim=1)).max())
        return {"example/product": norms[0] * norms[1], "example/jacobian": norms[2], "example/ratio": largest}

    def measured(self, seed: int) -> MeasuredRun:
        """The values in place of those of a trained run."""
        fields = {"size": SIZE, "pairs": PAIRS}
        values = {
            key: (value, {"fields": fields, "hash": protocol_hash(key, fields)})
            for key, value in self.values(seed).items()
        }
        return MeasuredRun(Path(f"example-rank{self.rank}-seed{seed}"), [], values)

    def conditions(self, config: None, runs: Sequence[MeasuredRun], values: Sequence[Ours]) -> Mapping[str, str]:
        """Conditions of some values: the function, the points, seeds."""
        return {
            "network": f"f(x) = W2 W1 x, orthogonal {SIZE}x{SIZE} weights, some singular values of W1 0; not trained",
            "pairs": f"{PAIRS:,} of standard normal points",
            "seeds": str(len(runs)),
        }
