"""Signs that a run has collapsed although all of its numbers are finite, and when they become alarms.

A sign is read from what a line of the log, or a sample grid, holds anyway. Seen several times in a row it is an alarm,
which ends the first time that it is not seen. The bounds leave room on both sides: beside each stand the values of the
runs of this project that trained, and of those that were made to collapse.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gan.normalization import LayerSpectrum

PATIENCE = {
    "discriminator_certain": 5,
    "discriminator_indifferent": 5,
    "spectral_norm": 5,
    "no_gradient": 5,
    "identical_samples": 2,
}
"""The alarms: how often in a row a sign is seen before it is one. In lines of the log, which a single odd batch may
spoil if they are short; identical samples in sample grids, whose latents never change, so that two are enough."""

CERTAIN_LOSS = {"hinge": 0.05, "non_saturating": 0.05, "wasserstein": None}
"""Mean loss of a discriminator that tells every image: hinge and logistic loss are never negative, and near 0 all their
gradients are, so that it learns no more. 2.5% and 3.6% of what a constant one pays; trained runs: 0.6 and more, 60
unnormalized discriminator steps per generator step: 0.001. Penalties are never negative either, and only hide the
sign. The Wasserstein loss has no lower end."""

INDIFFERENT_GAP = {"hinge": 0.02, "non_saturating": 0.014, "wasserstein": 0.0}
"""Mean logit of real minus mean logit of fake images of a discriminator that tells nothing. A constant one has 0 and
pays 2 (hinge), 2 ln 2 (logistic) or 0 (Wasserstein); the bounds are 1% of that. Unlike the loss, the gap does not
contain the penalty. Trained runs: 0.2 and more. The Wasserstein loss has no scale, and its gap goes to 0 where training
succeeds: only logits that are equal up to rounding are a sign."""

ROUNDING = 1e-6
"""Of mean logits, relative: float32 carries 6e-8, and a mean over a batch and many steps a few times that."""

SIGMA_GROWTH = 20.0
"""Largest spectral norm of a raw weight, in units of the one it began with. Normalized or not: where the weight is
normalized, its relative learning rate has fallen by that factor. Updates of 2e-4 in random directions would take a
128 x 1152 matrix from 2 to 5 in 250,000 steps; trained runs: 1.5 at most; learning rate 1: 22 after 60 steps."""

NO_GRADIENT = 1e-8
"""Root mean square of the generator's gradients. Adam divides by their own size plus 1e-8, so below that a step is no
longer of the learning rate's size. Behind a dead layer: 0."""

SAME_SPREAD = 0.2
"""Standard deviation over eight latents, per pixel, in units of the real images'. An untrained generator: 0.56; trained
ones: 0.9; learning rate 1: 0.08 to 0.13."""


class Alarm(NamedTuple):
    """One that begins or ends.

    text: what is seen, empty at the end.
    since: the last step at which nothing was.
    """

    name: str
    begins: bool
    text: str
    since: int


@dataclass
class Health:
    """What the alarms of a run remember: plain numbers, which a checkpoint holds.

    seen: how often in a row each sign has been seen up to now.
    unseen: the last step at which it was not.
    sigmas: spectral norm that each raw weight began with.
    """

    seen: dict[str, int] = field(default_factory=dict)
    unseen: dict[str, int] = field(default_factory=dict)
    sigmas: dict[str, float] = field(default_factory=dict)

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> "Health":
        """From what `state_dict` returned.

        Raises:
            TypeError, ValueError: from something else.
        """
        counts, steps, sigmas = (state.get(part, {}) for part in ("seen", "unseen", "sigmas"))
        return cls(
            {str(name): int(value) for name, value in counts.items()},
            {str(name): int(value) for name, value in steps.items()},
            {str(name): float(value) for name, value in sigmas.items()},
        )

    def begin(self, layers: Iterable[LayerSpectrum]) -> None:
        """Call with the spectra before the first step."""
        self.sigmas = {layer.name: layer.sigma for layer in layers}

    def active(self) -> dict[str, bool]:
        """Of every alarm, whether it is on."""
        return {name: self.seen.get(name, 0) >= patience for name, patience in PATIENCE.items()}

    def watch(self, step: int, signs: Mapping[str, str]) -> list[Alarm]:
        """The alarms that begin or end now.

        Args:
            signs: by name, what is seen; empty where nothing is.
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
    loss: str,
    scalars: Mapping[str, float],
    layers: Sequence[LayerSpectrum],
    first_sigmas: Mapping[str, float],
    gradient: float,
) -> dict[str, str]:
    """What a line of the log tells, by the alarm's name.

    Args:
        loss: a key of gan.losses.LOSSES; the losses and logits of one that has no bounds here are no sign.
        scalars: of the line: d_loss, real_logit, fake_logit.
        first_sigmas: see `Health.sigmas`.
        gradient: see `gradient_size`.
    """
    return {
        "discriminator_certain": _certain(loss, scalars["d_loss"]),
        "discriminator_indifferent": _indifferent(loss, scalars["real_logit"], scalars["fake_logit"]),
        "spectral_norm": _grown(layers, first_sigmas),
        "no_gradient": f"the generator's gradients are {gradient:.2g} in size" if gradient < NO_GRADIENT else "",
    }


def _certain(loss: str, value: float) -> str:
    bound = CERTAIN_LOSS.get(loss)
    if bound is None or value >= bound:
        return ""
    return f"the discriminator's loss is {value:.2g}, it tells every image and learns no more"


def _indifferent(loss: str, real: float, fake: float) -> str:
    bound = INDIFFERENT_GAP.get(loss)
    if bound is None or abs(real - fake) > max(bound, ROUNDING * max(abs(real), abs(fake))):
        return ""
    return f"mean logits of real and of generated images are {real:.4g} and {fake:.4g}, the discriminator tells nothing"


def _grown(layers: Sequence[LayerSpectrum], first: Mapping[str, float]) -> str:
    growth = {layer.name: layer.sigma / first[layer.name] for layer in layers if first.get(layer.name)}
    worst = max(growth, key=lambda name: growth[name], default="")
    if not worst or growth[worst] <= SIGMA_GROWTH:
        return ""
    return f"the spectral norm of {worst} is {growth[worst]:.3g} times what it began with"


def gradient_size(network: nn.Module) -> float:
    """Root mean square over all elements of the gradients of the last step; waits for the device."""
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    if not gradients:
        return 0.0
    norms = torch.stack([torch.linalg.vector_norm(gradient.float()) for gradient in gradients])
    return float(torch.linalg.vector_norm(norms)) / sum(gradient.numel() for gradient in gradients) ** 0.5


def signs_of_samples(spread: float) -> dict[str, str]:
    """What a sample grid tells.

    Args:
        spread: of the grid in units of the real images', see `spread`.
    """
    text = f"samples of different latents differ {spread:.2g} times as much as real images do"
    return {"identical_samples": text if spread < SAME_SPREAD else ""}


def spread(images: Tensor) -> float:
    """Standard deviation over images, mean over pixels and groups, in units of their values.

    Args:
        images: (groups, N, 3, H, W), N at least 2; those of one group are compared.
    """
    return float(images.float().std(dim=1).mean())


__all__ = [
    "CERTAIN_LOSS",
    "INDIFFERENT_GAP",
    "PATIENCE",
    "Alarm",
    "Health",
    "gradient_size",
    "signs_of_line",
    "signs_of_samples",
    "spread",
]
