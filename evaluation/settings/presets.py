"""Evaluation protocols by name: numbers of images, and training of Neural Divergence critics."""

from dataclasses import dataclass, replace
from typing import Any

from evaluation.errors import EvaluationError

RESIZES = ("box", "bilinear", "bicubic", "lanczos", "pad")
"""Ways to another image size: Pillow's filters, which widen with the reduction factor, and a black border. FID depends
on the choice."""


@dataclass(frozen=True)
class Protocol:
    """Numbers of images of a protocol; 0 means all. is_splits: 0 means one for 5,000 images, from 1 to 10."""

    reference: str  # split with which FID compares generated images
    num_real: int
    num_fid: int
    num_is: int
    is_splits: int
    num_intra: int = 5_000


STANDALONE = "all"
"""Protocol of `python -m evaluation`, unless another one is named."""

PROTOCOLS: dict[str, Protocol] = {
    # Sanyal et al. 2020, after Miyato et al. 2018
    "srn2020": Protocol(reference="train", num_real=10_000, num_fid=5_000, num_is=50_000, is_splits=10),
    # most papers since 2020: all training images
    "full50k": Protocol(reference="train", num_real=0, num_fid=50_000, num_is=50_000, is_splits=10),
    # images the generator was not trained on
    "test10k": Protocol(reference="test", num_real=10_000, num_fid=10_000, num_is=50_000, is_splits=10),
    # image files as they are
    "all": Protocol(reference="train", num_real=0, num_fid=0, num_is=0, is_splits=0, num_intra=0),
}


@dataclass(frozen=True)
class Preset:
    """Training of Neural Divergence critics; steps are critic updates.

    loss, convolution_init and linear_init are names in `evaluation.metrics.neural_divergence.critic`.
    """

    channels: tuple[int, ...]
    convolution_init: str
    linear_init: str
    loss: str
    gp_lambda: float  # weight of the gradient penalty in the objective; 0: none
    dequantize: bool  # add uniform noise of one grey level to real and generated images
    learning_rate: float
    final_learning_rate: float  # after the last step of the linear decay
    betas: tuple[float, float]
    average_decay: float  # decay of the weights' moving average, which is measured; 0: measures the last weights
    batch_size: int  # number of real images, and of generated ones
    steps: int
    samples: int  # generated images in the reported means
    num_critics: int


PRESETS: dict[str, Preset] = {
    # Sanyal et al. 2020, Appendix E.1
    "srn2020": Preset(
        channels=(16, 32, 64),
        convolution_init="normal_0.02",
        linear_init="normal_0.02",
        loss="logistic",
        gp_lambda=0.0,
        dequantize=False,
        learning_rate=2e-4,
        final_learning_rate=2e-4,
        betas=(0.0, 0.9),
        average_decay=0.0,
        batch_size=128,
        steps=100_000,
        samples=1_000_000,
        num_critics=3,  # not in the paper; a single critic gives no spread
    ),
    # Gulrajani et al. 2019, with the values of their published code
    "gulrajani2019": Preset(
        channels=(64, 128, 256),
        convolution_init="he",
        linear_init="xavier",
        loss="wasserstein",
        gp_lambda=10.0,
        dequantize=True,
        learning_rate=2e-4,
        final_learning_rate=0.0,
        betas=(0.0, 0.9),
        average_decay=0.999,
        batch_size=256,
        steps=100_000,
        samples=2_560_000,
        num_critics=3,  # their code trains one critic
    ),
}


def check_settings(preset: str | Preset, **changes: int | None) -> Preset:
    """Returns a preset, given as an object or by name, with all changes that are not None.

    Raises:
        EvaluationError: an unknown preset, or a change below 1.
    """
    if not isinstance(preset, Preset) and preset not in PRESETS:
        raise EvaluationError(f"nd preset: got {preset!r}, expected one of {', '.join(PRESETS)}")
    given: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    for name, value in given.items():
        if value < 1:
            raise EvaluationError(f"nd {name}: got {value}, expected at least 1")
    return replace(preset if isinstance(preset, Preset) else PRESETS[preset], **given)
