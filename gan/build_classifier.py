"""Builds classifiers, their state and their data from a configuration or a checkpoint."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from gan.build import (
    WIDE,
    check_fits,
    check_registered,
    choose,
    fitting,
    images_like,
    images_of,
    load_images,
    normalized,
    placed,
    seeded,
)
from gan.config.classifier import ClassifierConfig, validate_classifier
from gan.data import DATASETS, ImageData
from gan.data.random_labels import with_random_labels
from gan.data.subset import balanced_rows, part_of
from gan.errors import ConfigError, DataError
from gan.models.classifiers import CLASSIFIERS
from gan.normalization import NORMALIZATIONS, orthogonal_penalty
from gan.runs.checkpoint import Checkpoint, read_checkpoint
from gan.training.state import ClassifierState

SIZES = ("depth", "channels", "width", "growth", "shortcut_bn")
"""Settings for the size of a classifier; each architecture accepts some of them."""


def classifier_registries() -> dict[str, Mapping[str, object]]:
    """Returns the registry of each setting of a classifier whose value is a name.

    That of normalizations is a copy without those whose penalty needs generated images.
    """
    suitable = {name: entry for name, entry in NORMALIZATIONS.items() if entry.penalty in ("none", "orthogonal")}
    return {"data.name": DATASETS, "classifier.name": CLASSIFIERS, "classifier.normalization": suitable}


def check_classifier_names(config: ClassifierConfig) -> None:
    """Raises ConfigError for an unknown name in the configuration, or a normalization that classifiers cannot use."""
    check_registered(config, classifier_registries())
    architecture(config)
    build_weight_penalty(config)


def architecture(config: ClassifierConfig) -> Callable[[int], nn.Module]:
    """Returns a function that builds the configured network from the number of classes."""
    wanted = config.classifier
    make = choose(CLASSIFIERS, wanted.name, "classifier.name")
    sizes = [name for name in inspect.signature(make).parameters if name in SIZES]
    further = images_of(make, config, "classifier.name")
    return partial(make, **{name: size for name in sizes if (size := getattr(wanted, name)) is not None}, **further)


def build_classifier(config: ClassifierConfig, num_classes: int) -> nn.Module:
    """Builds a normalized classifier with the initial weights of the run's seed, on the CPU.

    Raises:
        ConfigError: an unknown name, a size that the architecture does not accept, a network too large for this
            machine, or a layer that cannot be normalized with these settings.
    """
    make, wanted = architecture(config), config.classifier
    try:
        if max(getattr(wanted, name) or 0 for name in SIZES) > WIDE:
            with torch.device("meta"):
                needed = 12 * sum(parameter.numel() for parameter in make(num_classes).parameters())
            check_fits(needed, "classifier: weights, gradients and momentum", "a smaller network")
        with seeded(config, "classifier weights"):
            network = make(num_classes)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"classifier: {wanted.name}: {error}") from None
    return normalized(network, config, wanted, "classifier", images_like(config))


def build_weight_penalty(config: ClassifierConfig) -> Callable[[nn.Module], Tensor] | None:
    """Returns the penalty that a classifier's normalization adds to the loss, or None.

    Raises:
        ConfigError: an unknown normalization, or one whose penalty needs generated images.
    """
    wanted = config.classifier
    allowed = classifier_registries()["classifier.normalization"]
    choose(allowed, wanted.normalization, "classifier.normalization")
    if NORMALIZATIONS[wanted.normalization].penalty == "none":
        return None
    return partial(orthogonal_penalty, coefficient=wanted.ortho_coefficient)


def build_classifier_state(
    config: ClassifierConfig, device: torch.device | str = "cpu", num_classes: int | None = None
) -> ClassifierState:
    """Builds the state of a classifier before its first step, with the same initial weights on every device.

    Args:
        num_classes: number of classes; None: that of the data set, which is read only if necessary.
    """
    check_classifier_names(config)
    known = DATASETS[config.data.name].num_classes if num_classes is None else num_classes
    num_classes = load_images(config, "train").num_classes if known is None else known
    if num_classes < 2:
        raise ConfigError(
            f"data.name: {config.data.name} at {config.data.root} has {num_classes} class, expected at least 2; "
            "sort the images into folders by class, or add a labels.csv"
        )
    return ClassifierState.begin(placed(build_classifier(config, num_classes), device), config.train, num_classes)


def load_labelled_images(config: ClassifierConfig, split: str) -> ImageData:
    """Loads the images of a split; the training split has the configured labels and number of images.

    Raises:
        ConfigError, DataError: an unknown data set, or missing or unsuitable files.
    """
    data, wanted = load_images(config, split), config.data
    if split != "train":
        return data
    labelled = with_random_labels(data, wanted.seed) if wanted.labels == "random" else data
    return part_of(labelled, balanced_rows(data, wanted.num_train, wanted.seed)) if wanted.num_train else labelled


def check_classes(config: ClassifierConfig, state: ClassifierState, images: ImageData) -> None:
    """Raises DataError if the classes of the images differ from the classes that the classifier was trained on."""
    if images.classes != state.class_names:
        raise DataError(
            f"{config.data.root}: the {images.split} images have the classes {', '.join(images.classes[:10])}, "
            f"expected those of training: {', '.join(state.class_names[:10])}; set data.root to the right data"
        )


def classifier_config(checkpoint: Checkpoint) -> ClassifierConfig:
    """Returns the configuration that a classifier's checkpoint was trained with."""
    return validate_classifier(checkpoint.config, str(checkpoint.path))


def load_classifier_state(
    checkpoint: Checkpoint, config: ClassifierConfig, device: torch.device | str = "cpu"
) -> ClassifierState:
    """Loads the state of a classifier's checkpoint into the configured network.

    Raises:
        CheckpointError: the checkpoint does not fit the configuration.
    """
    with fitting(checkpoint, classifier_registries()):
        state = build_classifier_state(config, device, checkpoint.state["num_classes"])
        state.load_state_dict(checkpoint.state)
    return state


def load_classifier(checkpoint: str | Path, device: torch.device | str = "cpu") -> nn.Module:
    """Loads the normalized classifier of a checkpoint file or a run folder, in eval mode."""
    read = read_checkpoint(Path(checkpoint))
    return load_classifier_state(read, classifier_config(read), device).network.eval().requires_grad_(False)
