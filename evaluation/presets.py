"""Published protocols, by name: how many images of which kind, and the critics of Neural Divergence."""

from dataclasses import dataclass, replace
from typing import Any

from evaluation.errors import EvaluationError


@dataclass(frozen=True)
class Protocol:
    """Counts of one published protocol; 0 means all there are."""

    reference: str  # the split that FID compares with
    num_real: int
    num_fid: int
    num_is: int
    is_splits: int


PROTOCOLS: dict[str, Protocol] = {
    # Sanyal et al. 2020, after Miyato et al. 2018
    "srn2020": Protocol(reference="train", num_real=10_000, num_fid=5_000, num_is=50_000, is_splits=10),
    # what most papers since 2020 print: all training images
    "full50k": Protocol(reference="train", num_real=0, num_fid=50_000, num_is=50_000, is_splits=10),
    # images the generator never saw
    "test10k": Protocol(reference="test", num_real=10_000, num_fid=10_000, num_is=50_000, is_splits=10),
}


@dataclass(frozen=True)
class Preset:
    """One published protocol; steps are critic updates, samples are generated images in the final means."""

    channels: tuple[int, ...]
    init_std: float
    learning_rate: float
    betas: tuple[float, float]
    batch_size: int  # real images, and as many generated ones
    steps: int
    samples: int
    num_critics: int


PRESETS: dict[str, Preset] = {
    "srn2020": Preset(
        channels=(16, 32, 64),
        init_std=0.02,
        learning_rate=2e-4,
        betas=(0.0, 0.9),
        batch_size=128,
        steps=100_000,
        samples=1_000_000,
        num_critics=3,  # not in the paper; one critic has no spread
    ),
}


def find_protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        EvaluationError: there is none.
    """
    if name not in PROTOCOLS:
        raise EvaluationError(f"protocol: got {name!r}, expected one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def check_settings(preset: str, **changes: int | None) -> Preset:
    """The preset with those changes that are not None.

    Raises:
        EvaluationError: an unknown preset, or a change below 1.
    """
    if preset not in PRESETS:
        raise EvaluationError(f"nd preset: got {preset!r}, expected one of {', '.join(PRESETS)}")
    given: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    for name, value in given.items():
        if value < 1:
            raise EvaluationError(f"nd {name}: got {value}, expected at least 1")
    return replace(PRESETS[preset], **given)
