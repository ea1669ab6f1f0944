"""Evaluation settings: their names, defaults and ranges. Imports no torch.

Configurations embed them, command-line options are derived from them, and a Context holds them.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from evaluation.settings.presets import PRESETS, PROTOCOLS, RESIZES
from evaluation.settings.schema import (
    Count,
    Draws,
    Factor,
    Few,
    Images,
    Section,
    Seed,
    Size,
    Text,
    Width,
    key_of,
    optional,
    setting,
    without_effect,
)


class NeuralDivergenceSettings(Section):
    """Training of the critics of Neural Divergence. See docs/metrics.md."""

    preset: Annotated[str, key_of(PRESETS)] = setting(
        "srn2020", "published training of the critics; provides the values of settings that are null"
    )
    steps: Count | None = setting(None, "critic updates")
    num_samples: Annotated[int, Field(ge=1, le=10**9)] | None = setting(None, "generated images in the reported means")
    batch_size: Size | None = setting(None, "number of real and of generated images per critic update")
    num_critics: Few | None = setting(None, "independent critics; their mean and standard deviation are reported")
    split: Literal["test", "train"] | None = optional(
        "real images of the critics; train: those that the measured networks were trained on; null: test"
    )
    holdout: Annotated[float, Field(ge=0, lt=1)] = setting(0.0, "fraction of the real images held out from the critics")
    pool: Draws | None = setting(
        None, "size of a fixed set of generated images to train critics on; null: new images in each batch"
    )


class LipschitzSettings(Section):
    """Empirical Lipschitz constants of the discriminator. See docs/metrics.md."""

    pairs: Draws = setting(2_000, "pairs of images of each kind, and images at which Jacobian norms are computed")
    noise: Factor = setting(
        0.1, "standard deviation of the noise added to images in [-1, 1] for points near them; 0: no such points"
    )


class Settings(Section):
    """Evaluation protocol. Defaults are those of Sanyal et al. 2020, after Miyato et al. 2018.

    For numbers of images, 0 means all and null takes the protocol's number. See docs/metrics.md.

    Attributes:
        place: beginning of the settings' names in error messages, as the user writes them.
    """

    place: ClassVar[str] = ""

    metrics: Text = without_effect("fid,is", "metrics, separated by commas")
    extractor: Text = setting("inception", "feature extractors, keys of evaluation.EXTRACTORS, separated by commas")
    inception_weights: Text = without_effect("", "weights file; empty: $INCEPTION_WEIGHTS, then a download")
    clip_weights: Text = without_effect("", "weights file; empty: $CLIP_WEIGHTS, then torch hub's folder")
    classifier_weights: Text = without_effect(
        "", "weights file of extractor resnet; empty: $CLASSIFIER_WEIGHTS, then the bundled one"
    )
    protocol: Annotated[str, key_of(PROTOCOLS)] = setting("srn2020", "numbers of images, a key of evaluation.PROTOCOLS")
    reference_statistics: Text = setting("", "FID: .npz file with mu and sigma that replaces reference images")
    num_real: Images | None = setting(None, "FID, KID, precision, recall: number of reference images, drawn by seed")
    num_fid: Images | None = setting(None, "FID, KID, precision, recall: number of generated images")
    num_is: Images | None = setting(None, "IS: number of generated images")
    is_splits: Draws | None = Field(
        default=None, description="IS: splits for mean and standard deviation", validate_default=True
    )
    num_intra: Images | None = setting(None, "metrics by class: number of generated images per class")
    kid_subsets: Draws = setting(100, "KID: subsets for mean and standard deviation")
    kid_subset_size: Annotated[int, Field(ge=2, le=10**7)] = setting(
        1_000, "KID: images in each subset; in protocol all, half of the smaller set if that has fewer images"
    )
    pr_neighbours: Draws = setting(3, "precision, recall: nearest neighbours")
    dc_neighbours: Draws = setting(5, "density, coverage: nearest neighbours")
    floor: bool = setting(True, "FID: also measure it between two samples of reference images")
    resize: Annotated[str, key_of(RESIZES)] | None = optional(
        "filter that resizes the largest centred square of image files; null: images of several sizes are refused"
    )
    image_size: Width | None = optional("height and width after the resize in pixels")
    batch_size: Size = without_effect(100, "images per forward pass")
    cache: bool = without_effect(True, "keep features of real images on disk")
    seed: Seed = setting(0, "random seed of latents, labels, subsets, pairs and critics")
    nd: NeuralDivergenceSettings = NeuralDivergenceSettings()
    lipschitz: LipschitzSettings = LipschitzSettings()

    @field_validator("is_splits")
    @classmethod
    def _at_most_one_per_image(cls, splits: int | None, others: ValidationInfo) -> int | None:
        if {"protocol", "num_is"} <= others.data.keys():
            protocol, num_is = PROTOCOLS[others.data["protocol"]], others.data["num_is"]
            most = protocol.num_is if num_is is None else num_is
            found = protocol.is_splits if splits is None else splits
            if most and found > most:
                raise ValueError(f"at most num_is = {most}, not {found}")
        return splits

    @field_validator("image_size")
    @classmethod
    def _with_a_filter(cls, size: int | None, others: ValidationInfo) -> int | None:
        if size is not None and others.data.get("resize", "") is None:
            raise ValueError(f"null without resize; set resize to one of {', '.join(RESIZES)}")
        return size

    @property
    def split(self) -> str:
        """Split of the reference images."""
        return PROTOCOLS[self.protocol].reference

    def number(self, name: str) -> int:
        """Value of a numeric setting, by name; the protocol's number if the setting is null."""
        found = getattr(self, name)
        return int(getattr(PROTOCOLS[self.protocol], name) if found is None else found)

    @property
    def num_lipschitz(self) -> int:
        """Number of images that a set needs for drawing pairs without a common image."""
        return 2 * self.lipschitz.pairs


class MeasureSettings(Section):
    """Generalization measures of a classifier. See docs/generalization.md.

    Numbers of images are upper limits: the seed draws images if there are more, and all are taken if there are fewer.
    """

    num_points: Draws = setting(10_000, "images for accuracy, margins and complexities")
    num_noise: Draws = setting(1_000, "images for noise sensitivity")
    draws: Draws = setting(32, "draws of noise for each of these images")
    num_local: Draws = setting(1_000, "images for local Lipschitz constants")
    num_pairs: Draws = setting(2_000, "pairs of images for global Lipschitz constants")
    batch_size: Size = without_effect(100, "images per forward pass")
    seed: Seed = setting(0, "random seed of images, pairs, noise and bootstrap resamples")
