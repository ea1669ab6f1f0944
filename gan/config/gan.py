"""Settings of a GAN, its training and its evaluation. Imports no torch.

The defaults are the SN-GAN ResNet on CIFAR-10, as in the code of Miyato et al. 2018. A configuration file contains only
settings that differ.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field, field_validator

from evaluation.settings import Settings
from evaluation.settings.mistakes import short
from evaluation.settings.presets import STANDALONE
from evaluation.settings.schema import (
    WHOLE,
    Count,
    Factor,
    Few,
    Interval,
    Name,
    Probability,
    Section,
    Seed,
    Size,
    Text,
    Width,
    has_effect,
    optional,
    setting,
    without_effect,
)
from gan.config.files import CLASSIFIERS, find_configs
from gan.config.loading import Experiment, load, override_config, validated

Rate = Annotated[float, Field(gt=0, le=1000)]
_Size = Literal[32, 48, 64, 128, 256]
ImageSize = Annotated[_Size, WHOLE]
IMAGE_SIZES: tuple[int, ...] = get_args(_Size)
"""Values of data.image_size: the sizes that have a ResNet, see `gan.models.resnet.WIDTHS`."""


class DataSettings(Section):
    """The data set, and how its images are cropped and resized. See docs/data.md."""

    name: Name = setting("cifar10", "data set, a key of gan.data.DATASETS")
    root: Text = without_effect("data", "folder or archive that holds the data set")
    title: Text = without_effect("", "name in reports; empty: that of the folder or archive, else of the data set")
    image_size: ImageSize = setting(32, "height and width in pixels")
    channels: Annotated[Literal[1, 3] | None, WHOLE] = optional(
        "1: grey images, 3: RGB; images are converted; null: 3", same_as=3
    )
    crop: Interval = setting(0, "height and width of the centre crop in pixels; 0: the largest centred square")
    resize: Literal["none", "box", "bilinear", "bicubic", "lanczos", "pad"] = setting(
        "none", "interpolation filter; pad: black border; none: refuse images of another size"
    )
    download: bool = without_effect(True, "download the data set if it is missing and can be downloaded")

    @field_validator("image_size", mode="before")
    @classmethod
    def _advised(cls, size: Any) -> Any:
        """Says how images of other sizes are used."""
        if type(size) is int and size not in IMAGE_SIZES:
            *smaller, largest = map(str, IMAGE_SIZES)
            sizes = f"{', '.join(smaller)} or {largest}"
            raise ValueError(f"{sizes}; images of another size are scaled to it, or padded, by data.resize")
        return size

    @property
    def image_channels(self) -> int:
        """Channels of the images and of the networks' first and last layers: 1 or 3."""
        return self.channels or 3

    @property
    def shown(self) -> str:
        """Name of the data in reports: the title, else the name of the folder or archive, else that of the data set."""
        if self.title or self.name != "folder":
            return self.title or self.name
        place = Path(self.root)
        return short(place.name if place.name not in ("", "..") else place.resolve().name) or self.name

    @property
    def described(self) -> str:
        """Name and size of the images, such as "mnist.zip 32x32, grey"."""
        return f"{self.shown} {self.image_size}x{self.image_size}{', grey' if self.image_channels == 1 else ''}"


class InitializationSettings(Section):
    """Initial weights of a network. See docs/configuration.md."""

    initialization: Name | None = optional(
        "distribution of the initial weights, a key of gan.models.INITIALIZATIONS; null: the architecture's own"
    )
    initialization_std: Annotated[float, Field(gt=0, le=1e3)] = setting(
        0.02,
        "normal, truncated_normal: standard deviation of the normal distribution",
        only_if={"initialization": ["normal", "truncated_normal"]},
    )


class GeneratorSettings(InitializationSettings):
    """Architecture of the generator and its initial weights."""

    name: Name = setting("resnet", "architecture, a key of gan.models.GENERATORS")
    channels: Width = setting(256, "channels at full resolution")
    z_dim: Size = setting(128, "dimension of the latent vector")
    widths: list[Few] | None = optional(
        "resnet: channels of the first feature map and of each block, in units of `channels`; null: the paper's",
        only_if={"name": ["resnet"]},
    )


class NormalizationSettings(Section):
    """Weight normalization of a network. See docs/normalizations.md."""

    normalization: Name = setting("none", "weight normalization, a key of gan.normalization.NORMALIZATIONS")
    c: Annotated[float, Field(gt=0, le=1)] = setting(
        0.7,
        "srn, srn_conv: bound of the stable rank, as a share of what relative_to names",
        only_if={"normalization": ["srn", "srn_conv"]},
    )
    relative_to: Literal["size", "initial"] | None = optional(
        "srn, srn_conv: c is a share of min(rows, columns) or of the stable rank of the initial weight; null: size",
        only_if={"normalization": ["srn", "srn_conv"]},
        same_as="size",
    )
    n_power_iterations: Few = setting(
        1,
        "power iterations per update",
        only_if={
            "normalization": ["sn", "srn", "ssn", "bsn", "bssn", "sn_same_gamma", "sn_gamma", "sn_conv", "srn_conv"]
        },
    )
    infeasible: Literal["skip", "error", "floor"] = setting(
        "skip",
        "srn, srn_conv, layers whose bound would be at most 1: no bound, an error, or a bound of 1.5",
        only_if={"normalization": ["srn", "srn_conv"]},
    )
    scale: Annotated[float, Field(gt=0, le=1e6)] = setting(
        1.0,
        "ssn, bssn, sn_conv: factor of every normalized weight",
        only_if={"normalization": ["ssn", "bssn", "sn_conv"]},
    )
    ortho_coefficient: Factor = setting(
        1e-3,
        "ortho, orthogonal: coefficient of the orthonormal regularization; the paper does not state its own",
        only_if={"normalization": ["ortho"], "penalty": ["orthogonal"]},
    )

    @property
    def bound(self) -> str:
        """Bound of the stable rank in reports, such as "c = 0.7"; "" without one."""
        of = " of the initial stable rank" if self.relative_to == "initial" else ""
        return f"c = {self.c:g}{of}" if has_effect(self, "c") else ""


class DiscriminatorSettings(InitializationSettings, NormalizationSettings):
    """Architecture of the discriminator, its initial weights, its weight normalization and its penalty."""

    name: Name = setting("resnet", "architecture, a key of gan.models.DISCRIMINATORS")
    channels: Width = setting(128, "channels at full resolution")
    normalization: Name = setting("sn", "weight normalization, a key of gan.normalization.NORMALIZATIONS")
    penalty: Name = setting("none", "penalty added to that of the normalization, a key of gan.normalization.PENALTIES")
    gp_coefficient: Factor = setting(
        10.0,
        "wgan_gp, sn_same_gamma, sn_gamma, gradient: coefficient of the gradient penalty",
        only_if={"normalization": ["wgan_gp", "sn_same_gamma", "sn_gamma"], "penalty": ["gradient"]},
    )
    r1_coefficient: Factor = setting(
        10.0, "r1: twice the factor of the squared gradient norm", only_if={"penalty": ["r1"]}
    )
    lecam_coefficient: Factor = setting(
        0.3, "lecam: coefficient of the distances to moving averages of the logits", only_if={"penalty": ["lecam"]}
    )
    pooling: Literal["sum", "mean"] | None = optional(
        "resnet: sum or mean of the last feature map's positions; null: sum, as Miyato et al.",
        only_if={"name": ["resnet"]},
        same_as="sum",
    )


class TrainSettings(Section):
    """Training of a GAN, and intervals of logging, saving and evaluation. Steps are generator updates."""

    steps: Interval = setting(50_000, "generator updates; 0: save the initial networks")
    batch_size: Size = setting(64, "number of real and of fake images per discriminator step, over all processes")
    generator_batch_factor: Few = setting(2, "fake images per generator step, in units of batch_size")
    d_steps: Few = setting(5, "discriminator steps per generator step")
    loss: Name = setting("hinge", "adversarial loss, a key of gan.losses.LOSSES")
    learning_rate: Rate = setting(2e-4, "learning rate of both networks")
    d_learning_rate: Rate | None = optional("learning rate of the discriminator; null: train.learning_rate")
    lr_decay_start: Interval = setting(
        0, "step at which the linear decay to 0 begins", only_if={"lr_decay": ["linear"]}
    )
    lr_decay: Literal["linear", "none"] = setting(
        "linear", "learning rate: linear decay to 0 at the last step, or constant"
    )
    adam_beta1: Probability = setting(0.0, "Adam's beta1")
    adam_beta2: Probability = setting(0.9, "Adam's beta2")
    d_adam_beta1: Probability | None = optional("Adam's beta1 for the discriminator; null: train.adam_beta1")
    d_adam_beta2: Probability | None = optional("Adam's beta2 for the discriminator; null: train.adam_beta2")
    labels: Literal["uniform", "data"] = setting(
        "uniform",
        "classes of conditional fake images: uniform draws, or draws by the shares of the training images",
        only_if={"labels": ["data"]},  # identities of earlier runs, which had no such setting, stay the same
    )
    first: Literal["generator", "discriminator"] = setting(
        "generator",
        "network that an iteration updates first",
        only_if={"first": ["discriminator"]},  # identities of earlier runs, which had no such setting, stay the same
    )
    dequantize: bool = setting(True, "add noise from U[0, 1/128) to real images")
    flip: bool = setting(False, "flip each real image with probability 1/2")
    augment: Text | None = optional(
        "augmentations of real and generated images alike, keys of gan.data.AUGMENTATIONS separated by commas, in order"
    )
    ema_decay: Probability = setting(0.0, "decay of the averaged generator; 0: no averaged generator")
    precision: Literal["fp32", "tf32", "bf16"] = setting(
        "fp32", "tf32: convolutions on a GPU; bf16: autocast of the forward passes"
    )
    seed: Seed = setting(0, "random seed of the run")
    # Not part of the identity: a CUDA graph changes only the rounding, as another device does.
    fast: Literal["auto", "on", "off", "compile"] = without_effect(
        "off",
        "capture iterations as CUDA graphs; auto: if possible; on: stop if a capture fails; compile: as auto, with "
        "compiled networks",
    )
    gradients_every: Interval = without_effect(
        0, "steps between records of the discriminator's gradients, from step 0 on; 0: none"
    )
    log_every: Count = without_effect(100, "steps between entries in metrics.jsonl and TensorBoard")
    sample_every: Interval = without_effect(1000, "steps between sample grids; 0: at the start and the end")
    checkpoint_every: Interval = without_effect(1000, "steps between checkpoints; 0: at the end")
    keep_last: Count = without_effect(2, "newest checkpoints to keep")
    keep_every: Interval = without_effect(0, "also keep checkpoints whose step is a multiple of this; 0: none")
    eval_every: Interval = without_effect(0, "steps between evaluations of eval.metrics; 0: none")
    keep_best: Text = without_effect(
        "", "metric, such as fid, whose best checkpoint is kept as checkpoints/best-<step>.pt"
    )
    on_alarm: Literal["log", "stop"] = without_effect("log", "reaction to signs of a collapse, see gan.training.health")
    retries: Interval = without_effect(
        0, "maximum restarts from the last good checkpoint after a divergence, each with a new seed"
    )

    @property
    def augmentations(self) -> tuple[str, ...]:
        """Names of the augmentations in train.augment, in order."""
        return () if self.augment is None else tuple(name.strip() for name in self.augment.split(","))

    @property
    def g_betas(self) -> tuple[float, float]:
        """Adam's beta1 and beta2 for the generator."""
        return self.adam_beta1, self.adam_beta2

    @property
    def d_betas(self) -> tuple[float, float]:
        """Adam's beta1 and beta2 for the discriminator."""
        own = self.d_adam_beta1, self.d_adam_beta2
        beta1, beta2 = (shared if beta is None else beta for beta, shared in zip(own, self.g_betas, strict=True))
        return beta1, beta2


class EvaluationSettings(Settings):
    """Evaluation of a GAN: the protocol, and the generation of images. See docs/metrics.md."""

    place: ClassVar[str] = "eval."

    reference: Literal["train", "test"] | None = setting(
        None, "split that generated images are compared with; null: the protocol's"
    )
    other_images: bool = setting(
        False, "measure with other images than those of the run's training instead of refusing; part of the protocol"
    )
    ema: bool = setting(True, "use the averaged generator if there is one")
    quantizer: Literal["round", "truncate"] = setting("round", "rounding of generated images to 8 bits")
    labels: Literal["balanced", "uniform", "data"] = setting(
        "balanced", "classes of conditional samples: equal counts, uniform draws, or the shares of the training images"
    )
    bn_mode: Literal["eval", "standing"] = setting(
        "eval", "batch-norm statistics of the generator: running, or recomputed from samples"
    )
    truncation: Factor = setting(
        0.0, "bound of the latents' components, in standard deviations of their normal distribution; 0: no bound"
    )

    @property
    def split(self) -> str:
        """Split of the reference images."""
        return self.reference or super().split


class Config(Experiment):
    """Configuration of a GAN run."""

    kind: ClassVar[str] = "gan"
    renamed: ClassVar[Mapping[tuple[str, str], str]] = {("train", "keep_checkpoints"): "keep_last"}
    elsewhere: ClassVar[Mapping[str, str]] = {"classifier": "gan-train-classifier and gan-eval-classifier"}

    parent: Text | None = optional("hash of the networks that training begins with, set by --from; null: none")
    conditional: bool = setting(False, "class-conditional batch normalization and projection discriminator")
    data: DataSettings = DataSettings()
    generator: GeneratorSettings = GeneratorSettings()
    discriminator: DiscriminatorSettings = DiscriminatorSettings()
    train: TrainSettings = TrainSettings()
    eval: EvaluationSettings = EvaluationSettings()


def load_config(path_or_name: str | Path, overrides: Sequence[str] = (), variants: Sequence[str | Path] = ()) -> Config:
    """Loads a GAN configuration; see `gan.config.loading.load`."""
    return load(Config, path_or_name, overrides, variants)


def standalone_config(overrides: Sequence[str]) -> Config:
    """Returns the configuration of image files that have none, with the protocol of `python -m evaluation`."""
    return override_config(Config(), [f"eval.protocol={STANDALONE}", *overrides], "gan-eval")


def validate(content: dict[str, Any], place: str) -> Config:
    """Validates the settings of a GAN run; see `gan.config.loading.validated`."""
    return validated(Config, content, place)


def available_configs() -> list[str]:
    """Returns the names of GAN configurations in ./configs and in the package."""
    return [name for name in find_configs() if not name.startswith(CLASSIFIERS)]
