"""Alarms for runs that have collapsed, although all of their numbers are finite.

A sign of collapse is computed from a log line or a sample grid. A sign that is present several times in a row becomes
an alarm, which ends the first time that the sign is absent. The bounds have a margin on both sides: each docstring
gives values of runs that trained well and of runs that were made to collapse. Bounds of losses are in gan/losses.py.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from gan.losses import Loss
from gan.normalization import LayerSpectrum

PATIENCE = {
    "discriminator_certain": 5,
    "discriminator_indifferent": 5,
    "spectral_norm": 5,
    "no_gradient": 5,
    "vanishing_gradient": 5,
    "exploding_gradient": 5,
    "identical_samples": 2,
}
"""Consecutive times that a sign must be present to become an alarm. Most signs are counted in log lines, where one
unusual batch may dominate a short window, or in records of gradients, of one batch each; identical samples in sample
grids, with fixed latents, so two suffice."""

ROUNDING = 1e-6
"""Relative rounding error of mean logits: float32 has 6e-8, a mean over a batch and many steps a few times that."""

SIGMA_GROWTH = 20.0
"""Maximum spectral norm of a weight before normalization, relative to its initial value. If the weight is normalized,
growth by a factor divides its relative learning rate by that factor. Updates of 2e-4 in random directions would take
a 128 x 1152 matrix from 2 to 5 in 250,000 steps. Trained runs: at most 1.5; learning rate 1: 22 after 60 steps."""

NO_GRADIENT = 1e-8
"""Minimum root mean square of the generator's gradients. Adam divides by their size plus 1e-8, so updates of smaller
gradients are smaller than the learning rate. A dead layer gives 0."""

VANISHED, EXPLODED = 1e-3, 1e3
"""Minimum and maximum norm of the gradient in a discriminator's weight, relative to the first record.
300 steps of the quickstart without normalization, with SN and with SRN: 0.12 to 12; with WGAN-GP: 0.38 to 65. Without
normalization at learning rate 1, and with SN and ten discriminator steps against a generator that stands still: 0; with
the Wasserstein loss and no bound on the weights: 1e6."""

SAME_SPREAD = 0.2
"""Minimum standard deviation of a pixel over eight latents, relative to real images. Untrained generator: 0.56; trained
ones: 0.9; learning rate 1: 0.08 to 0.13."""


class Alarm(NamedTuple):
    """An alarm that begins or ends.

    text: description of the sign, empty at the end.
    since: the last step at which the sign was absent.
    """

    name: str
    begins: bool
    text: str
    since: int


@dataclass
class Health:
    """State of a run's alarms: plain numbers, saved in checkpoints.

    seen: consecutive times that each sign has been present.
    unseen: the last step at which each sign was absent.
    sigmas: initial spectral norm of each weight, before normalization.
    gradients: norm of the gradient in each weight of the discriminator at the first record; empty without records.
    """

    seen: dict[str, int] = field(default_factory=dict)
    unseen: dict[str, int] = field(default_factory=dict)
    sigmas: dict[str, float] = field(default_factory=dict)
    gradients: dict[str, float] = field(default_factory=dict)

    def state_dict(self) -> dict[str, Any]:
        """State as nested dictionaries of plain numbers."""
        return asdict(self)

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> "Health":
        """Restores a state from `state_dict`.

        Raises:
            TypeError, ValueError: `state` has an invalid form.
        """
        counts, steps, sigmas, gradients = (state.get(part, {}) for part in ("seen", "unseen", "sigmas", "gradients"))
        return cls(
            {str(name): int(value) for name, value in counts.items()},
            {str(name): int(value) for name, value in steps.items()},
            {str(name): float(value) for name, value in sigmas.items()},
            {str(name): float(value) for name, value in gradients.items()},
        )

    def begin(self, layers: Iterable[LayerSpectrum]) -> None:
        """Stores the spectral norms before the first step."""
        self.sigmas = {layer.name: layer.sigma for layer in layers}

    def active(self) -> dict[str, bool]:
        """Whether each alarm is on."""
        return {name: self.seen.get(name, 0) >= patience for name, patience in PATIENCE.items()}

    def watch(self, step: int, signs: Mapping[str, str]) -> list[Alarm]:
        """Counts the signs at a step; returns the alarms that begin or end.

        Args:
            signs: description of each sign by name, empty where it is absent.
        """
        before = self.active()
        for name, text in signs.items():
            self.seen[name] = self.seen.get(name, 0) + 1 if text else 0
            if not text:
                self.unseen[name] = step
        now = self.active()
        return [
            Alarm(name, now[name], text, self.unseen.get(name, 0))
            for name, text in signs.items()
            if now[name] != before[name]
        ]


def signs_of_line(
    loss: Loss,
    scalars: Mapping[str, float],
    layers: Sequence[LayerSpectrum],
    first_sigmas: Mapping[str, float],
    gradient: float,
) -> dict[str, str]:
    """Signs of collapse in a log line, by alarm.

    Args:
        loss: the training losses, which define bounds for the discriminator's signs.
        scalars: d_loss, real_logit and fake_logit of the line.
        first_sigmas: see `Health.sigmas`.
        gradient: see `gradient_size`.
    """
    return {
        "discriminator_certain": _certain(loss.certain_loss, scalars["d_loss"]),
        "discriminator_indifferent": _indifferent(loss.indifferent_gap, scalars["real_logit"], scalars["fake_logit"]),
        "spectral_norm": _grown(layers, first_sigmas),
        "no_gradient": f"the generator's gradients have RMS {gradient:.2g}" if gradient < NO_GRADIENT else "",
    }


def _certain(bound: float | None, value: float) -> str:
    if bound is None or value >= bound:
        return ""
    return (
        f"the discriminator's loss is {value:.2g}: it separates real from generated perfectly and has stopped learning"
    )


def _indifferent(bound: float | None, real: float, fake: float) -> str:
    if bound is None or abs(real - fake) > max(bound, ROUNDING * max(abs(real), abs(fake))):
        return ""
    return f"mean logits are {real:.4g} (real) and {fake:.4g}: the discriminator cannot tell real from generated"


def _grown(layers: Sequence[LayerSpectrum], first: Mapping[str, float]) -> str:
    growth = {layer.name: layer.sigma / first[layer.name] for layer in layers if first.get(layer.name)}
    worst = max(growth, key=lambda name: growth[name], default="")
    if not worst or growth[worst] <= SIGMA_GROWTH:
        return ""
    return f"the spectral norm of {worst} is {growth[worst]:.3g} times its initial value"


def signs_of_gradients(gradients: Mapping[str, float], first: Mapping[str, float]) -> dict[str, str]:
    """Signs of collapse in the discriminator's gradients, by alarm.

    Args:
        gradients: norm of the gradient in each weight.
        first: see `Health.gradients`.
    """
    ratios = [(norm / first[name], name) for name, norm in gradients.items() if first.get(name)]
    (least, vanishing), (most, exploding) = min(ratios, default=(1.0, "")), max(ratios, default=(1.0, ""))
    text = "the gradient in {} is {:.2g} times that of the first record"
    return {
        "vanishing_gradient": text.format(vanishing, least) if least < VANISHED else "",
        "exploding_gradient": text.format(exploding, most) if most > EXPLODED else "",
    }


def gradient_size(network: nn.Module) -> float:
    """Root mean square of all elements of the last step's gradients; waits for the device."""
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    if not gradients:
        return 0.0
    return float(get_total_norm(gradients)) / sum(gradient.numel() for gradient in gradients) ** 0.5


def all_finite(network: nn.Module) -> bool:
    """Whether every parameter is finite; waits for the device once."""
    largest = get_total_norm((parameter.detach() for parameter in network.parameters()), math.inf)
    return math.isfinite(largest)


def signs_of_samples(spread: float) -> dict[str, str]:
    """Signs of collapse in a sample grid, by alarm.

    Args:
        spread: spread of the grid relative to real images, see `spread`.
    """
    text = f"samples of different latents differ {spread:.2g} times as much as real images do"
    return {"identical_samples": text if spread < SAME_SPREAD else ""}


def spread(images: Tensor) -> float:
    """Standard deviation over the images of each group, averaged over pixels and groups.

    Args:
        images: (groups, N, C, H, W), N at least 2.
    """
    return float(images.float().std(dim=1).mean())


__all__ = [
    "PATIENCE",
    "Alarm",
    "Health",
    "all_finite",
    "gradient_size",
    "signs_of_gradients",
    "signs_of_line",
    "signs_of_samples",
    "spread",
]
