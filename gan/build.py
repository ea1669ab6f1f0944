"""Names in a configuration -> objects. The only module that knows all families."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from gan.config import Config, NormalizationSettings, load_config, nearest, validate
from gan.config.classifier import ClassifierConfig, validate_classifier
from gan.data import DATASETS, Batches, ImageData
from gan.data import load_images as load_data
from gan.data.random_labels import with_random_labels
from gan.data.subset import balanced_rows, part_of
from gan.errors import CheckpointError, ConfigError, DataError
from gan.losses import LOSSES, DiscriminatorPenalty, Loss
from gan.models import DISCRIMINATORS, GENERATORS
from gan.models.classifiers import CLASSIFIERS
from gan.noise import random_generator
from gan.normalization import NORMALIZATIONS, PENALTIES, normalize, orthogonal_penalty
from gan.runs.checkpoint import Checkpoint, read_checkpoint
from gan.runtime.distributed import ALONE, Processes
from gan.runtime.memory import physical_memory
from gan.training.ema import averaged_copy
from gan.training.state import TOTALS, ClassifierState, TrainState

Entry = TypeVar("Entry")
WIDE, LONG = 256, 4096
"""Networks of more channels or a larger z_dim are measured before they are built: by torch's meta device, which takes
seconds to load."""

REGISTRIES: dict[str, Mapping[str, object]] = {
    "data.name": DATASETS,
    "generator.name": GENERATORS,
    "discriminator.name": DISCRIMINATORS,
    "discriminator.normalization": NORMALIZATIONS,
    "discriminator.penalty": PENALTIES,
    "train.loss": LOSSES,
}
"""What can be written at which place of a configuration."""

CLASSIFIER_REGISTRIES: dict[str, Mapping[str, object]] = {
    "data.name": DATASETS,
    "classifier.name": CLASSIFIERS,
    "classifier.normalization": {  # no penalties that compare real images with generated ones
        name: entry for name, entry in NORMALIZATIONS.items() if entry.penalty in ("none", "orthogonal")
    },
}
"""Likewise, of a classifier."""

SIZES = ("depth", "channels", "width", "growth", "shortcut_bn")
"""Settings of a classifier's architecture; which of them it has, its class says."""


def choose(registry: Mapping[str, Entry], name: str, place: str) -> Entry:
    """An entry of a registry.

    Raises:
        ConfigError: no such entry; with the nearest valid name and all of them.
    """
    if name in registry:
        return registry[name]
    raise ConfigError(f"{place}: got {name!r}, expected one of {', '.join(registry)}{nearest(name, registry)}")


def check_names(config: Config) -> None:
    """Raises ConfigError if a name in the configuration stands for nothing, or one penalty would be added twice."""
    _choose_all(config, REGISTRIES)
    _penalty_names(config)


def _choose_all(config: Config | ClassifierConfig, registries: Mapping[str, Mapping[str, object]]) -> None:
    settings = config.model_dump()
    for place, registry in registries.items():
        section, key = place.split(".")
        choose(registry, settings[section][key], place)


def load_images(config: Config | ClassifierConfig, split: str) -> ImageData:
    """The images of a split as the configuration asks for them.

    Raises:
        ConfigError, DataError: unknown, missing or unsuitable.
    """
    choose(DATASETS, config.data.name, "data.name")
    wanted = config.data
    return load_data(
        wanted.name,
        root=wanted.root,
        split=split,
        image_size=wanted.image_size,
        crop=wanted.crop,
        resize=wanted.resize,
        download=wanted.download,
    )


def count_classes(config: Config, images: ImageData | None = None) -> int:
    """Classes of the networks: 0 if unconditional. Reads the data only where nothing else can tell.

    Args:
        images: the training images, where they are loaded already.

    Raises:
        ConfigError: conditional, but there are no two classes.
    """
    if not config.conditional:
        return 0
    known = choose(DATASETS, config.data.name, "data.name").num_classes if images is None else images.num_classes
    num_classes = known if known is not None else load_images(config, "train").num_classes
    if num_classes < 2:
        raise ConfigError(
            f"conditional: true, but {config.data.name} at {config.data.root} has {num_classes} class: "
            "a conditional model needs at least 2; set conditional: false or sort the images into folders by class"
        )
    return num_classes


def check_memory(config: Config, num_classes: int) -> None:
    """Raises ConfigError if the weights, their gradients and Adam's moments are larger than this machine's memory."""
    channels, z_dim = (config.generator.channels, config.discriminator.channels), config.generator.z_dim
    if max(channels) <= WIDE and z_dim <= LONG:
        return
    size = config.data.image_size
    with torch.device("meta"):
        generator = choose(GENERATORS, config.generator.name, "generator.name")(size, z_dim, channels[0], num_classes)
        critic = choose(DISCRIMINATORS, config.discriminator.name, "discriminator.name")(size, channels[1], num_classes)
    needed = 16 * sum(parameter.numel() for network in (generator, critic) for parameter in network.parameters())
    if needed > physical_memory():
        raise ConfigError(
            f"generator.channels: got {channels[0]}, discriminator.channels: {channels[1]}, generator.z_dim: {z_dim}: "
            f"weights, gradients and Adam's moments take {needed / 1e9:,.0f} GB, and this machine has "
            f"{physical_memory() / 1e9:,.0f} GB; choose narrower networks"
        )


def build_generator(config: Config, num_classes: int) -> nn.Module:
    """A generator with the initial weights of its seed, on the CPU."""
    make = choose(GENERATORS, config.generator.name, "generator.name")
    with _seeded(config, "generator weights"):
        return make(config.data.image_size, config.generator.z_dim, config.generator.channels, num_classes)


def build_discriminator(config: Config, num_classes: int) -> nn.Module:
    """A discriminator, normalized, with the initial weights of its seed, on the CPU.

    Raises:
        ConfigError: an unknown name, or a layer that cannot be normalized as asked.
    """
    wanted = config.discriminator
    make = choose(DISCRIMINATORS, wanted.name, "discriminator.name")
    with _seeded(config, "discriminator weights"):
        network = make(config.data.image_size, wanted.channels, num_classes)
    return _normalized(network, config, wanted, "discriminator")


def _normalized(
    network: nn.Module, config: Config | ClassifierConfig, wanted: NormalizationSettings, section: str
) -> nn.Module:
    """A network with the singular vectors of the run's seed.

    Raises:
        ConfigError: an unknown normalization, or a layer that cannot be normalized as asked.
    """
    normalization = choose(NORMALIZATIONS, wanted.normalization, f"{section}.normalization")
    settings = {name: getattr(wanted, name) for name in normalization.settings}
    try:
        with _seeded(config, "singular vectors"):
            return normalize(network, wanted.normalization, **settings)
    except ValueError as error:
        raise ConfigError(f"{section}.normalization: {wanted.normalization}: {error}") from None


@contextmanager
def _seeded(config: Config | ClassifierConfig, stream: str) -> Iterator[None]:
    """Initialisers draw from the global generator: seed it for them and give it back as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_generator(config.train.seed, stream).initial_seed())
        yield


def build_state(config: Config, device: torch.device | str = "cpu", num_classes: int | None = None) -> TrainState:
    """A run before its first step: the same numbers on every device.

    Args:
        num_classes: where the caller knows it; otherwise see `count_classes`.
    """
    check_names(config)
    num_classes = count_classes(config) if num_classes is None else num_classes
    check_memory(config, num_classes)
    generator = _placed(build_generator(config, num_classes), device)
    discriminator = _placed(build_discriminator(config, num_classes), device)
    return TrainState(
        generator=generator,
        discriminator=discriminator,
        average=averaged_copy(generator) if config.train.ema_decay else None,
        g_optimizer=_optimizer(generator, config),
        d_optimizer=_optimizer(discriminator, config),
        num_classes=num_classes,
        totals=torch.zeros(len(TOTALS) + 1, dtype=torch.float64, device=device),
    )


def _placed(network: nn.Module, device: torch.device | str) -> nn.Module:
    """On the device, with channels last: the layout that convolutions are fastest in, on CPUs and GPUs."""
    return network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _optimizer(network: nn.Module, config: Config) -> torch.optim.Optimizer:
    betas = (config.train.adam_beta1, config.train.adam_beta2)
    return torch.optim.Adam(network.parameters(), lr=config.train.learning_rate, betas=betas, eps=1e-8)


def build_loss(config: Config) -> Loss:
    """What both networks minimise: train.loss, the penalty of the normalization, if it has one, and the added one."""
    loss = choose(LOSSES, config.train.loss, "train.loss")
    parts: list[DiscriminatorPenalty] = []
    for name in _penalty_names(config):
        penalty = choose(PENALTIES, name, "discriminator.penalty")
        if penalty.compute is not None:
            parts.append(partial(penalty.compute, coefficient=getattr(config.discriminator, penalty.coefficient)))
    if not parts:
        return loss
    return loss._replace(penalty=parts[0] if len(parts) == 1 else partial(_sum_of_penalties, parts))


def second_derivatives(config: Config) -> list[str]:
    """The penalties of a configuration, by name, that differentiate a gradient once more."""
    return [name for name in _penalty_names(config) if PENALTIES[name].second_derivatives]


def _penalty_names(config: Config) -> list[str]:
    """Keys of PENALTIES: the normalization's own, then the added one."""
    wanted = config.discriminator
    own = choose(NORMALIZATIONS, wanted.normalization, "discriminator.normalization").penalty
    if own == wanted.penalty != "none":
        raise ConfigError(
            f"discriminator.penalty: got {own!r}, which discriminator.normalization: {wanted.normalization} adds "
            "already: leave it out, and set its coefficient"
        )
    return [own, wanted.penalty]


def _sum_of_penalties(
    parts: Sequence[DiscriminatorPenalty],
    network: nn.Module,
    real: Tensor,
    fake: Tensor,
    labels: Tensor | None,
    *,
    uniforms: Tensor,
) -> Tensor:
    return torch.stack([part(network, real, fake, labels, uniforms=uniforms) for part in parts]).sum()


def build_batches(
    config: Config, images: ImageData, device: torch.device | str, processes: Processes = ALONE
) -> Batches:
    """The images of a training set in batches by number, on the device where they fit."""
    train = config.train
    return Batches(images, train.batch_size, seed=train.seed, device=device, flip=train.flip, processes=processes)


def load_state(checkpoint: Checkpoint, config: Config, device: torch.device | str = "cpu") -> TrainState:
    """The state of a checkpoint, in networks as the configuration says.

    Raises:
        CheckpointError: the checkpoint does not fit the configuration.
    """
    with _fitting(checkpoint):
        state = build_state(config, device, checkpoint.state["num_classes"])
        state.load_state_dict(checkpoint.state)
    return state


@contextmanager
def _fitting(checkpoint: Checkpoint) -> Iterator[None]:
    """Raises CheckpointError for what a state that does not fit raises inside."""
    try:
        yield
    except (AttributeError, KeyError, IndexError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{checkpoint.path}: does not fit its configuration: {reason}") from None


def checkpoint_config(checkpoint: Checkpoint) -> Config:
    """The configuration that a checkpoint was trained with."""
    return validate(checkpoint.config, str(checkpoint.path))


def load_generator(checkpoint: str | Path, ema: bool = True, device: torch.device | str = "cpu") -> nn.Module:
    """The generator of a checkpoint file or a run folder, in eval mode.

    Args:
        ema: the averaged generator where the checkpoint has one; otherwise, and without one, the raw one.

    Raises:
        CheckpointError: see `gan.runs.checkpoint.read_checkpoint`.
    """
    read = read_checkpoint(Path(checkpoint))
    state = load_state(read, checkpoint_config(read), device)
    chosen = state.average if ema and state.average is not None else state.generator
    return chosen.eval().requires_grad_(False)


def load_discriminator(checkpoint: str | Path, device: torch.device | str = "cpu") -> nn.Module:
    """The discriminator of a checkpoint file or a run folder, normalized, in eval mode."""
    read = read_checkpoint(Path(checkpoint))
    return load_state(read, checkpoint_config(read), device).discriminator.eval().requires_grad_(False)


def check_classifier_names(config: ClassifierConfig) -> None:
    """Raises ConfigError if a name stands for nothing."""
    _choose_all(config, CLASSIFIER_REGISTRIES)
    architecture(config)
    build_weight_penalty(config)


def architecture(config: ClassifierConfig) -> Callable[[int], nn.Module]:
    """Number of classes -> network, of the sizes that the configuration gives."""
    wanted = config.classifier
    make = choose(CLASSIFIERS, wanted.name, "classifier.name")
    sizes = [name for name in inspect.signature(make).parameters if name in SIZES]
    return partial(make, **{name: size for name in sizes if (size := getattr(wanted, name)) is not None})


def build_classifier(config: ClassifierConfig, num_classes: int) -> nn.Module:
    """A classifier, normalized, with the initial weights of its seed, on the CPU.

    Raises:
        ConfigError: an unknown name, a size that the architecture does not have or take, or that is too large for this
            machine, or a layer that cannot be normalized as asked.
    """
    make, wanted = architecture(config), config.classifier
    try:
        if max(getattr(wanted, name) or 0 for name in SIZES) > WIDE:
            with torch.device("meta"):
                _check_room(make(num_classes))
        with _seeded(config, "classifier weights"):
            network = make(num_classes)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"classifier: {wanted.name}: {error}") from None
    return _normalized(network, config, wanted, "classifier")


def _check_room(network: nn.Module) -> None:
    """Raises ConfigError if weights, gradients and momentum of a network on the meta device have no room here."""
    needed = 12 * sum(parameter.numel() for parameter in network.parameters())
    if needed > physical_memory():
        raise ConfigError(
            f"classifier: weights, gradients and momentum take {needed / 1e9:,.0f} GB, and this machine has "
            f"{physical_memory() / 1e9:,.0f} GB; choose a smaller network"
        )


def build_weight_penalty(config: ClassifierConfig) -> Callable[[nn.Module], Tensor] | None:
    """What a classifier's normalization adds to its loss.

    Raises:
        ConfigError: an unknown normalization, or one that needs generated images.
    """
    wanted = config.classifier
    allowed = CLASSIFIER_REGISTRIES["classifier.normalization"]
    choose(allowed, wanted.normalization, "classifier.normalization")
    if NORMALIZATIONS[wanted.normalization].penalty == "none":
        return None
    return partial(orthogonal_penalty, coefficient=wanted.ortho_coefficient)


def build_classifier_state(
    config: ClassifierConfig, device: torch.device | str = "cpu", num_classes: int | None = None
) -> ClassifierState:
    """A run before its first step: the same numbers on every device.

    Args:
        num_classes: where the caller knows it; otherwise that of the data set, which is read where nothing else tells.
    """
    check_classifier_names(config)
    known = DATASETS[config.data.name].num_classes if num_classes is None else num_classes
    num_classes = load_images(config, "train").num_classes if known is None else known
    if num_classes < 2:
        raise ConfigError(
            f"data.name: {config.data.name} at {config.data.root} has {num_classes} class; a classifier needs 2"
        )
    return ClassifierState.begin(_placed(build_classifier(config, num_classes), device), config.train, num_classes)


def load_labelled_images(config: ClassifierConfig, split: str) -> ImageData:
    """The images of a split; those of training with the labels and in the number that the configuration says.

    Raises:
        ConfigError, DataError: unknown, missing or unsuitable.
    """
    data, wanted = load_images(config, split), config.data
    if split != "train":
        return data
    labelled = with_random_labels(data, wanted.seed) if wanted.labels == "random" else data
    return part_of(labelled, balanced_rows(data, wanted.num_train, wanted.seed)) if wanted.num_train else labelled


def check_classes(config: ClassifierConfig, state: ClassifierState, images: ImageData) -> None:
    """Raises DataError if images are of other classes than those that a classifier was trained on."""
    if images.classes != state.class_names:
        raise DataError(
            f"{config.data.root}: the {images.split} images have the classes {', '.join(images.classes[:10])}, "
            f"expected those of training: {', '.join(state.class_names[:10])}; name the right data by data.root"
        )


def classifier_config(checkpoint: Checkpoint) -> ClassifierConfig:
    """The configuration that a classifier's checkpoint was trained with."""
    return validate_classifier(checkpoint.config, str(checkpoint.path))


def load_classifier_state(
    checkpoint: Checkpoint, config: ClassifierConfig, device: torch.device | str = "cpu"
) -> ClassifierState:
    """The state of a classifier's checkpoint, in a network as the configuration says.

    Raises:
        CheckpointError: the checkpoint does not fit the configuration.
    """
    with _fitting(checkpoint):
        state = build_classifier_state(config, device, checkpoint.state["num_classes"])
        state.load_state_dict(checkpoint.state)
    return state


def load_classifier(checkpoint: str | Path, device: torch.device | str = "cpu") -> nn.Module:
    """The classifier of a checkpoint file or a run folder, normalized, in eval mode."""
    read = read_checkpoint(Path(checkpoint))
    return load_classifier_state(read, classifier_config(read), device).network.eval().requires_grad_(False)


__all__ = [
    "CLASSIFIER_REGISTRIES",
    "REGISTRIES",
    "build_batches",
    "build_classifier",
    "build_classifier_state",
    "build_discriminator",
    "build_generator",
    "build_loss",
    "build_state",
    "build_weight_penalty",
    "check_classifier_names",
    "check_names",
    "checkpoint_config",
    "choose",
    "classifier_config",
    "count_classes",
    "load_classifier",
    "load_classifier_state",
    "load_config",
    "load_discriminator",
    "load_generator",
    "load_images",
    "load_labelled_images",
    "load_state",
    "second_derivatives",
]
