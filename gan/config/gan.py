"""What can be set of a GAN, its training and its evaluation.

The defaults are CIFAR-10 with the SN-GAN ResNet: Miyato et al. 2018 as coded by its authors. A configuration file says
what differs. This module imports no torch.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from gan.config.files import CLASSIFIERS, find_configs
from gan.config.loading import (
    Count,
    Draws,
    Experiment,
    Factor,
    Few,
    Images,
    Interval,
    Name,
    Probability,
    Seed,
    Settings,
    Size,
    Text,
    Width,
    later_setting,
    load,
    setting,
    validated,
    without_effect,
)


class DataSettings(Settings):
    """Which images, and how they become square and small. See docs/data.md."""

    name: Name = setting("cifar10", "a key of gan.data.DATASETS")
    root: Text = without_effect("data", "folder or archive that holds the data set")
    title: Text = without_effect("", "name printed in reports; empty: the name")
    image_size: Literal[32, 64] = setting(32, "pixels per side in the networks")
    crop: Interval = setting(0, "pixels per side of the centre crop; 0: the largest centred square")
    resize: Literal["none", "box", "bilinear", "bicubic", "lanczos"] = setting(
        "none", "filter; none: refuse other sizes"
    )
    download: bool = without_effect(True, "fetch the data set where the source can")

    @property
    def shown(self) -> str:
        """What the data are called."""
        return self.title or self.name


class GeneratorSettings(Settings):
    """The generator's architecture."""

    name: Name = setting("resnet", "a key of gan.models.GENERATORS")
    channels: Width = setting(256, "width at full resolution")
    z_dim: Size = setting(128, "size of the latent vector")


class NormalizationSettings(Settings):
    """How a network's weights are normalized. See docs/normalizations.md."""

    normalization: Name = setting("none", "a key of gan.normalization.NORMALIZATIONS")
    c: Annotated[float, Field(gt=0, le=1)] = setting(0.7, "srn: stable rank at most c * min(rows, columns)")
    n_power_iterations: Few = setting(1, "per update of the network")
    infeasible: Literal["skip", "error", "floor"] = later_setting(
        "skip", "srn where c * min(rows, columns) <= 1: sn only, refuse, or never less than 1.5"
    )
    scale: Annotated[float, Field(gt=0, le=1e6)] = later_setting(1.0, "ssn, bssn: factor of every normalized weight")
    ortho_coefficient: Factor = later_setting(
        1e-3, "ortho, orthogonal: of the orthonormal regularization; the paper's is not stated: sweep it"
    )


class DiscriminatorSettings(NormalizationSettings):
    """The discriminator's architecture, and how its weights are normalized."""

    name: Name = setting("resnet", "a key of gan.models.DISCRIMINATORS")
    channels: Width = setting(128, "width at full resolution")
    normalization: Name = setting("sn", "a key of gan.normalization.NORMALIZATIONS")
    penalty: Name = later_setting("none", "a key of gan.normalization.PENALTIES, besides the normalization's own")
    gp_coefficient: Factor = later_setting(10.0, "wgan_gp, gradient: of the gradient penalty")
    r1_coefficient: Factor = later_setting(10.0, "r1: twice the squared gradient's factor")


class TrainSettings(Settings):
    """The recipe, and how often a run reports and saves. Steps are generator updates."""

    steps: Interval = setting(50_000, "generator updates; 0: the networks as they are initialized")
    batch_size: Size = setting(64, "real images per discriminator step, in all processes together; as many fakes")
    generator_batch_factor: Few = setting(2, "fakes per generator step, in units of batch_size")
    d_steps: Few = setting(5, "discriminator steps per generator step")
    loss: Name = setting("hinge", "a key of gan.losses.LOSSES")
    learning_rate: Annotated[float, Field(gt=0, le=1000)] = setting(2e-4, "of both networks")
    lr_decay_start: Interval = setting(0, "step at which the linear decay to 0 begins")
    lr_decay: Literal["linear", "none"] = setting("linear", "to 0 at the last step, or constant")
    adam_beta1: Probability = setting(0.0, "of both networks")
    adam_beta2: Probability = setting(0.9, "of both networks")
    dequantize: bool = setting(True, "add U[0, 1/128) to real images")
    flip: bool = setting(False, "flip half of the real images")
    ema_decay: Probability = setting(0.0, "of the averaged generator; 0: none is kept")
    precision: Literal["fp32", "tf32", "bf16"] = setting(
        "fp32", "tf32: convolutions on a GPU; bf16: autocast of the networks' forward passes"
    )
    seed: Seed = setting(0, "of everything random")
    fast: Literal["auto", "on", "off"] = without_effect(  # as a device's, its rounding is no part of the experiment
        "off", "whole iterations as CUDA graphs; auto: where that works; on: refuse to go on where a capture fails"
    )
    log_every: Count = without_effect(100, "steps between lines in metrics.jsonl and TensorBoard")
    sample_every: Interval = without_effect(1000, "steps between sample grids; 0: at the start and the end")
    checkpoint_every: Interval = without_effect(1000, "steps between checkpoints; 0: at the end")
    keep_last: Count = without_effect(2, "newest checkpoints that stay on disk")
    keep_every: Interval = without_effect(0, "checkpoints whose step is a multiple of it stay for good; 0: none")
    eval_every: Interval = without_effect(0, "steps between evaluations with eval.metrics; 0: none")
    keep_best: Text = without_effect(
        "", "a metric, such as fid: its best checkpoint stays as checkpoints/best-<step>.pt"
    )
    on_alarm: Literal["log", "stop"] = without_effect(
        "log", "what follows signs of a collapse; see gan.training.health"
    )
    retries: Interval = without_effect(
        0, "after a divergence, go back to the last good checkpoint and on with other random numbers, so often at most"
    )


class NeuralDivergenceSettings(Settings):
    """The critics of Neural Divergence. See docs/metrics.md."""

    preset: Name = setting("srn2020", "protocol of the critics; unless given, it sets the numbers below")
    steps: Count | None = setting(None, "critic updates")
    num_samples: Annotated[int, Field(ge=1, le=10**9)] | None = setting(
        None, "generated images that the final value averages over"
    )
    num_critics: Few | None = setting(None, "independent critics; mean and standard deviation are reported")
    holdout: Annotated[float, Field(ge=0, lt=1)] = setting(0.0, "share of the test images that critics do not see")
    pool: Draws | None = setting(None, "train critics on so many generated images, made once; null: on fresh ones")


class LipschitzSettings(Settings):
    """Empirical Lipschitz constants of the discriminator. See docs/metrics.md."""

    pairs: Draws = setting(2_000, "pairs of each kind, and images at which Jacobian norms are taken")
    noise: Factor = setting(0.1, "standard deviation around the images; 0: at them only")


class EvalSettings(Settings):
    """The protocol of evaluation. See docs/metrics.md."""

    metrics: Text = without_effect("fid,is", "evaluated every train.eval_every, separated by commas")
    extractor: Text = setting("inception", "keys of evaluation.EXTRACTORS, separated by commas")
    inception_weights: Text = without_effect("", "file; empty: $INCEPTION_WEIGHTS, then torch-fidelity's download")
    clip_weights: Text = without_effect("", "file; empty: $CLIP_WEIGHTS, then torch hub's folder")
    classifier_weights: Text = without_effect(
        "",
        "extractor resnet: file of tools/make_extractor.py; empty: $CLASSIFIER_WEIGHTS, then the one that is included",
    )
    protocol: Name = setting("srn2020", "a key of evaluation.PROTOCOLS; unless given, it sets the five below")
    reference: Literal["train", "test"] | None = setting(None, "the split that generated images are compared with")
    reference_statistics: Text = setting("", "FID: an .npz file of mu and sigma, in place of reference images")
    num_real: Images | None = setting(None, "FID, KID, precision, recall: reference images; 0: all")
    num_fid: Images | None = setting(None, "FID, KID, precision, recall: generated images")
    num_is: Images | None = setting(None, "IS: generated images")
    is_splits: Draws | None = setting(None, "IS: mean and deviation over so many parts")
    num_intra: Images = setting(5_000, "metrics by class: generated images of each class")
    kid_subsets: Draws = setting(100, "KID: mean and deviation over so many draws")
    kid_subset_size: Draws = setting(1_000, "KID: images of each draw")
    floor: bool = setting(True, "FID: measure it between two draws of the reference, too")
    ema: bool = setting(True, "use the averaged generator where one is kept")
    quantizer: Literal["round", "truncate"] = setting("round", "of generated images, to 8 bits")
    labels: Literal["balanced", "uniform"] = setting("balanced", "of conditional samples: equal counts, or drawn")
    bn_mode: Literal["eval", "standing"] = setting(
        "eval", "batch norm of the generator: running or standing statistics"
    )
    truncation: Factor = setting(
        0.0, "latents are normal within so many standard deviations, component by component; 0: without bounds"
    )
    batch_size: Size = without_effect(100, "images per forward pass")
    cache: bool = without_effect(True, "keep features of real images on disk for the next time")
    seed: Seed = setting(0, "of latents, labels, subsets and critics")
    nd: NeuralDivergenceSettings = NeuralDivergenceSettings()
    lipschitz: LipschitzSettings = LipschitzSettings()


class Config(Experiment):
    """Everything a run depends on."""

    kind: ClassVar[str] = "gan"
    renamed: ClassVar[Mapping[tuple[str, str], str]] = {("train", "keep_checkpoints"): "keep_last"}
    elsewhere: ClassVar[Mapping[str, str]] = {"classifier": "gan-train-classifier and gan-eval-classifier"}

    conditional: bool = setting(False, "class-conditional batch normalization and projection discriminator")
    data: DataSettings = DataSettings()
    generator: GeneratorSettings = GeneratorSettings()
    discriminator: DiscriminatorSettings = DiscriminatorSettings()
    train: TrainSettings = TrainSettings()
    eval: EvalSettings = EvalSettings()


def load_config(path_or_name: str | Path, overrides: Sequence[str] = (), variants: Sequence[str | Path] = ()) -> Config:
    """See `gan.config.loading.load`."""
    return load(Config, path_or_name, overrides, variants)


def validate(content: dict[str, Any], place: str) -> Config:
    """See `gan.config.loading.validated`."""
    return validated(Config, content, place)


def available_configs() -> list[str]:
    """Names of the GANs' configurations in ./configs and in the package."""
    return [name for name in find_configs() if not name.startswith(CLASSIFIERS)]
