"""Settings of a classifier, its training and its evaluation. Imports no torch.

The defaults are ResNet-110 on CIFAR-100 as trained by Sanyal et al. 2020, section 5.1 and appendix D. A configuration
file contains only settings that differ.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from evaluation.settings import MeasureSettings
from evaluation.settings.schema import (
    MOST_IMAGES,
    Count,
    Images,
    Interval,
    Name,
    Probability,
    Section,
    Seed,
    Size,
    Text,
    Width,
    setting,
    without_effect,
)
from gan.config import DataSettings, NormalizationSettings
from gan.config.files import CLASSIFIERS, find_configs
from gan.config.loading import Experiment, load, validated


def _as_tuple(given: Any) -> Any:
    """Converts a list from YAML to a tuple."""
    if not isinstance(given, list | tuple):
        raise ValueError("a list such as [150, 250]")
    return tuple(given)


def _rising(milestones: tuple[int, ...]) -> tuple[int, ...]:
    if list(milestones) != sorted(set(milestones)):
        raise ValueError("milestones in rising order")
    return milestones


Milestones = Annotated[
    tuple[Annotated[int, Field(ge=1, le=10**6)], ...],
    BeforeValidator(_as_tuple),
    Field(max_length=100),
    AfterValidator(_rising),
]
Depth = Annotated[int, Field(ge=1, le=1202)]  # the deepest ResNet of He et al. 2016
Epochs = Annotated[int, Field(ge=0, le=10**6)]


class LabelledDataSettings(DataSettings):
    """The data set and its labels."""

    name: Name = setting("cifar100", "data set, a key of gan.data.DATASETS")
    labels: Literal["given", "random"] = setting(
        "given", "training labels; random: each drawn once, uniformly over the classes"
    )
    num_train: Images = setting(0, "training images, equally many of each class; 0: all")
    seed: Seed = setting(
        0,
        "random seed of random labels and of the num_train images; use the same one for classifiers that you compare",
        only_if={"labels": ["random"], "num_train": range(1, MOST_IMAGES + 1)},
    )


class ClassifierSettings(NormalizationSettings):
    """Architecture of the classifier and its weight normalization. See docs/classifiers.md.

    null means the size in the architecture's paper.
    """

    name: Name = setting("resnet", "architecture, a key of gan.models.classifiers.CLASSIFIERS")
    depth: Depth | None = setting(None, "layers", only_if={"name": ["resnet", "wide_resnet", "densenet", "vgg"]})
    channels: Width | None = setting(
        None, "channels of the first layer", only_if={"name": ["resnet", "vgg", "alexnet"]}
    )
    width: Width | None = setting(None, "factor of the channels", only_if={"name": ["wide_resnet"]})
    growth: Width | None = setting(None, "channels that each layer adds", only_if={"name": ["densenet"]})
    shortcut_bn: bool | None = setting(None, "batch normalization in shortcuts", only_if={"name": ["wide_resnet"]})
    c: Annotated[float, Field(gt=0, le=1)] = setting(
        0.5,
        "srn, srn_conv: bound of the stable rank, as a share of min(rows, columns)",
        only_if={"normalization": ["srn", "srn_conv"]},
    )


class ClassifierTrainSettings(Section):
    """Training of a classifier by SGD with momentum on cross-entropy, and intervals of logging and saving."""

    epochs: Epochs = setting(300, "passes over the training images; 0: save the initial network")
    stop_accuracy: Annotated[float, Field(ge=0, le=1)] = setting(
        0.0, "stop after the first epoch with at least this training accuracy; 0: never"
    )
    batch_size: Size = setting(128, "images per update")
    learning_rate: Annotated[float, Field(gt=0, le=1000)] = setting(0.1, "learning rate after warmup")
    schedule: Literal["milestones", "cosine"] = setting(
        "milestones", "learning rate: multiplied by factor at milestones, or half a cosine to 0 at the last update"
    )
    milestones: Milestones = setting(
        (150, 250), "epochs after which the learning rate is multiplied", only_if={"schedule": ["milestones"]}
    )
    factor: Annotated[float, Field(gt=0, le=1)] = setting(
        0.1, "factor of the learning rate at each milestone", only_if={"schedule": ["milestones"]}
    )
    warmup: Epochs = setting(0, "epochs of linear increase of the learning rate from 0")
    momentum: Probability = setting(0.9, "momentum of SGD")
    nesterov: bool = setting(False, "Nesterov momentum")
    weight_decay: Annotated[float, Field(ge=0, le=1)] = setting(5e-4, "weight decay of all parameters")
    augment: bool = setting(True, "random crops after padding by 4 pixels, and random horizontal flips")
    precision: Literal["fp32", "tf32", "bf16"] = setting(
        "fp32", "tf32: convolutions on a GPU; bf16: autocast of the forward pass"
    )
    seed: Seed = setting(0, "random seed of the run")
    test_every: Interval = without_effect(1, "epochs between test accuracies; 0: after the last epoch")
    checkpoint_every: Interval = without_effect(1, "epochs between checkpoints; 0: at the end")
    keep_last: Count = without_effect(2, "newest checkpoints to keep")
    keep_every: Interval = without_effect(0, "also keep checkpoints whose step is a multiple of this; 0: none")
    retries: Interval = without_effect(
        0, "maximum restarts from the last good checkpoint after a divergence, each with a new seed"
    )

    @model_validator(mode="after")
    def _check(self) -> "ClassifierTrainSettings":
        if self.nesterov and not self.momentum:
            raise ValueError("momentum above 0 with nesterov=true")
        return self


class ClassifierEvaluationSettings(MeasureSettings):
    """Measures of a trained classifier, and the images on which they are computed. See docs/generalization.md."""

    metrics: Text = without_effect("accuracy,margin,complexity,spectra", "measures, separated by commas")
    split: Literal["train", "test"] = setting("train", "split to measure; train with the labels used for training")
    other_images: bool = setting(
        False, "measure other images than those of the run's training instead of refusing; part of the protocol"
    )


class ClassifierConfig(Experiment):
    """Configuration of a classifier run."""

    kind: ClassVar[str] = "classifier"
    elsewhere: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("generator", "discriminator"), "gan-train, gan-eval and gan-sample"
    )

    data: LabelledDataSettings = LabelledDataSettings()
    classifier: ClassifierSettings = ClassifierSettings()
    train: ClassifierTrainSettings = ClassifierTrainSettings()
    eval: ClassifierEvaluationSettings = ClassifierEvaluationSettings()


def load_classifier_config(
    path_or_name: str | Path, overrides: Sequence[str] = (), variants: Sequence[str | Path] = ()
) -> ClassifierConfig:
    """Loads a classifier configuration; see `gan.config.loading.load`."""
    return load(ClassifierConfig, path_or_name, overrides, variants)


def validate_classifier(content: dict[str, Any], place: str) -> ClassifierConfig:
    """Validates the settings of a classifier run; see `gan.config.loading.validated`."""
    return validated(ClassifierConfig, content, place)


def available_classifier_configs() -> list[str]:
    """Returns the names of classifier configurations in ./configs and in the package."""
    return [name for name in find_configs() if name.startswith(CLASSIFIERS)]
