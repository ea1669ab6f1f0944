"""Builds a GAN's networks, losses and data from a configuration; the only module that imports all registries.

Classifiers are built by `gan.build_classifier`.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click
import torch
from torch import Tensor, nn

from gan.config import Config, InitializationSettings, NormalizationSettings, TrainSettings, nearest, validate
from gan.config import load_config as load_config
from gan.config.classifier import ClassifierConfig
from gan.config.imported import check_present, other_code
from gan.config.loading import differences
from gan.data import AUGMENTATIONS, DATASETS, Batches, ImageData
from gan.data import load_images as load_data
from gan.errors import CheckpointError, ConfigError
from gan.losses import LOSSES, DiscriminatorPenalty, Loss
from gan.models import DISCRIMINATORS, GENERATORS, INITIALIZATIONS, inherit_, initialize_
from gan.noise import random_generator
from gan.normalization import NORMALIZATIONS, PENALTIES, bake, normalize
from gan.runs.checkpoint import Checkpoint, read_checkpoint
from gan.runtime.distributed import ALONE, Processes
from gan.runtime.memory import physical_memory
from gan.training.ema import averaged_copy
from gan.training.state import TOTALS, TrainState, new_averages

Entry = TypeVar("Entry")
WIDE, LONG, LARGE = 256, 4096, 64
"""Channels, latent dimensions and image sizes above which the memory of networks is checked before they are built. The
check uses the meta device, which takes seconds to load."""

SHAPING = {
    *("data.image_size", "data.channels"),
    *("generator.name", "generator.channels", "generator.z_dim", "generator.widths"),
    *("discriminator.name", "discriminator.channels"),
}
"""Settings that change the shapes of the networks."""

OWN = "; a name of your own needs --import FILE"
"""Advice for an unknown name."""

REGISTRIES: dict[str, Mapping[str, object]] = {
    "data.name": DATASETS,
    "generator.name": GENERATORS,
    "generator.initialization": INITIALIZATIONS,
    "discriminator.name": DISCRIMINATORS,
    "discriminator.initialization": INITIALIZATIONS,
    "discriminator.normalization": NORMALIZATIONS,
    "discriminator.penalty": PENALTIES,
    "train.loss": LOSSES,
}
"""Maps each setting of a GAN whose value is a name, or null, to the registry of valid names."""


class Parent(NamedTuple):
    """The networks that a new run begins with, and where they are from; networks_hash: see `TrainState`."""

    path: Path
    config: Config
    generator: nn.Module
    discriminator: nn.Module
    average: nn.Module | None
    num_classes: int
    step: int
    networks_hash: str


def choose(registry: Mapping[str, Entry], name: str, place: str) -> Entry:
    """Returns the entry of a registry with this name.

    Args:
        place: setting that holds the name, for the error message.

    Raises:
        ConfigError: an unknown name; the message lists all names and suggests the nearest one.
    """
    if name in registry:
        return registry[name]
    raise ConfigError(f"{place}: got {name!r}, expected one of {', '.join(registry)}{nearest(name, registry)}{OWN}")


def check_names(config: Config) -> None:
    """Raises ConfigError for an unknown name in the configuration, or for a penalty that would be added twice."""
    check_registered(config, REGISTRIES)
    for name in config.train.augmentations:
        choose(AUGMENTATIONS, name, "train.augment")
    _penalty_names(config)


def check_networks(config: Config, imports: object, owner: Path) -> None:
    """Raises ConfigError for an unknown name of a network's; those of the data and the training may be unknown.

    Warns of imported code whose content has changed.

    Args:
        imports: records of imported code, see `gan.config.imported.used_by`.
        owner: file that holds them.
    """
    others = ("data.name", "discriminator.penalty", "train.loss")
    networks = {place: registry for place, registry in REGISTRIES.items() if place not in others}
    check_present(imports, networks, owner)
    for difference in other_code(imports, owner):
        click.echo(f"warning: {difference}", err=True)
    check_registered(config, networks)


def check_registered(config: Config | ClassifierConfig, registries: Mapping[str, Mapping[str, object]]) -> None:
    """Raises ConfigError for a setting whose name is not in its registry."""
    settings = config.model_dump()
    for place, registry in registries.items():
        section, key = place.split(".")
        if settings[section][key] is not None:
            choose(registry, settings[section][key], place)


def load_images(config: Config | ClassifierConfig, split: str) -> ImageData:
    """Loads the images of a split of the configured data set.

    Raises:
        ConfigError, DataError: an unknown data set, or missing or unsuitable files.
    """
    choose(DATASETS, config.data.name, "data.name")
    wanted = config.data
    return load_data(
        wanted.name,
        root=wanted.root,
        split=split,
        image_size=wanted.image_size,
        channels=wanted.image_channels,
        crop=wanted.crop,
        resize=wanted.resize,
        download=wanted.download,
    )


def count_classes(config: Config, images: ImageData | None = None) -> int:
    """Returns the number of classes of the networks, 0 if unconditional; reads the data only if necessary.

    Args:
        images: the training images, if already loaded.

    Raises:
        ConfigError: a conditional model with fewer than two classes.
    """
    if not config.conditional:
        return 0
    known = choose(DATASETS, config.data.name, "data.name").num_classes if images is None else images.num_classes
    num_classes = known if known is not None else load_images(config, "train").num_classes
    if num_classes < 2:
        raise ConfigError(
            f"conditional: true, but {config.data.name} at {config.data.root} has {num_classes} class: "
            "a conditional model needs at least 2; set conditional: false, sort the images into folders by class, or "
            "add a labels.csv"
        )
    return num_classes


def check_memory(config: Config, num_classes: int) -> None:
    """Raises ConfigError if weights, gradients and Adam's moments exceed this machine's memory."""
    channels, z_dim = (config.generator.channels, config.discriminator.channels), config.generator.z_dim
    widest = max(*channels, channels[0] * max(config.generator.widths or [1]))
    if widest <= WIDE and z_dim <= LONG and config.data.image_size <= LARGE:
        return
    with torch.device("meta"):
        generator = _make_generator(config, num_classes)
        critic = _make_discriminator(config, num_classes)
    settings = f"generator.channels: got {channels[0]}, discriminator.channels: {channels[1]}, generator.z_dim: {z_dim}"
    needed = 16 * sum(parameter.numel() for network in (generator, critic) for parameter in network.parameters())
    check_fits(needed, f"{settings}: weights, gradients and Adam's moments", "narrower networks")


def check_fits(needed: int, subject: str, advice: str) -> None:
    """Raises ConfigError if `needed` bytes exceed this machine's memory; the message has the subject and the advice."""
    memory = physical_memory()
    if needed > memory:
        sizes = f"take {needed / 1e9:,.0f} GB, and this machine has {memory / 1e9:,.0f} GB"
        raise ConfigError(f"{subject} {sizes}; choose {advice}")


def build_generator(config: Config, num_classes: int) -> nn.Module:
    """Builds a generator with the initial weights of the run's seed, on the CPU."""
    with seeded(config, "generator weights"):
        return _initialized(_make_generator(config, num_classes), config.generator)


def _make_generator(config: Config, num_classes: int) -> nn.Module:
    wanted = config.generator
    make = choose(GENERATORS, wanted.name, "generator.name")
    further = _accepted(make, widths=wanted.widths) | images_of(make, config, "generator.name")
    try:
        return make(
            image_size=config.data.image_size,
            z_dim=wanted.z_dim,
            channels=wanted.channels,
            num_classes=num_classes,
            **further,
        )
    except ValueError as error:
        raise ConfigError(f"generator: {wanted.name}: {error}") from None


def _accepted(make: Callable[..., nn.Module], **settings: object) -> dict[str, object]:
    """Returns the settings that are not None and that an architecture accepts."""
    known = inspect.signature(make).parameters
    return {name: value for name, value in settings.items() if name in known and value is not None}


def images_of(make: Callable[..., nn.Module], config: Config | ClassifierConfig, place: str) -> dict[str, int]:
    """Returns the argument of an architecture for images that are not RGB.

    Args:
        place: setting that holds the architecture's name, for the error message.

    Raises:
        ConfigError: the architecture has no such argument.
    """
    channels = config.data.image_channels
    if channels == 3:
        return {}
    if "image_channels" not in inspect.signature(make).parameters:
        raise ConfigError(
            f"data.channels: got {channels}, but this architecture of {place} has no argument image_channels; "
            "add it, or set data.channels=3"
        )
    return {"image_channels": channels}


def build_discriminator(config: Config, num_classes: int) -> nn.Module:
    """Builds a normalized discriminator with the initial weights of the run's seed, on the CPU.

    Raises:
        ConfigError: an unknown name, or a layer that cannot be normalized with these settings.
    """
    return _normalized_discriminator(_make_initial_discriminator(config, num_classes), config, num_classes)


def _make_initial_discriminator(config: Config, num_classes: int) -> nn.Module:
    with seeded(config, "discriminator weights"):
        return _initialized(_make_discriminator(config, num_classes), config.discriminator)


def _normalized_discriminator(
    network: nn.Module, config: Config, num_classes: int, parent: Parent | None = None
) -> nn.Module:
    """Normalizes a discriminator; one that is normalized as its parent is begins with the same singular vectors."""
    example = images_like(config)
    labels = (torch.zeros(1, dtype=torch.int64),) if num_classes else ()
    network = normalized(network, config, config.discriminator, "discriminator", (*example, *labels))
    if parent is not None and _normalization(config) == _normalization(parent.config):
        inherit_(network, parent.discriminator)
    return network


def _normalization(config: Config) -> list[object]:
    """Returns the settings that decide how the discriminator is normalized."""
    wanted = config.discriminator
    return [wanted.normalization, *(getattr(wanted, name) for name in NORMALIZATIONS[wanted.normalization].settings)]


def images_like(config: Config | ClassifierConfig) -> tuple[Tensor]:
    """Returns an image of the configured size, (1, C, H, W), as arguments of a forward pass."""
    return (torch.zeros(1, config.data.image_channels, config.data.image_size, config.data.image_size),)


def _initialized(network: nn.Module, wanted: InitializationSettings) -> nn.Module:
    """Replaces the architecture's own initial weights if the settings name others."""
    if wanted.initialization is not None:
        initialize_(network, wanted.initialization, wanted.initialization_std)
    return network


def _make_discriminator(config: Config, num_classes: int) -> nn.Module:
    wanted = config.discriminator
    make = choose(DISCRIMINATORS, wanted.name, "discriminator.name")
    further = _accepted(make, pooling=wanted.pooling) | images_of(make, config, "discriminator.name")
    try:
        return make(image_size=config.data.image_size, channels=wanted.channels, num_classes=num_classes, **further)
    except ValueError as error:
        raise ConfigError(f"discriminator: {wanted.name}: {error}") from None


def normalized(
    network: nn.Module,
    config: Config | ClassifierConfig,
    wanted: NormalizationSettings,
    section: str,
    example: tuple[Tensor, ...],
) -> nn.Module:
    """Normalizes a network, with singular vectors drawn from the run's seed.

    Args:
        example: arguments of a forward pass, for normalizations that depend on the size of images.

    Raises:
        ConfigError: an unknown normalization, or a layer that cannot be normalized with these settings.
    """
    normalization = choose(NORMALIZATIONS, wanted.normalization, f"{section}.normalization")
    settings = {name: value for name in normalization.settings if (value := getattr(wanted, name)) is not None}
    try:
        with seeded(config, "singular vectors"):
            return normalize(network, wanted.normalization, example=example, **settings)
    except ValueError as error:
        raise ConfigError(f"{section}.normalization: {wanted.normalization}: {error}") from None


@contextmanager
def seeded(config: Config | ClassifierConfig, stream: str) -> Iterator[None]:
    """Context manager: seeds torch's global generator, which initialises weights, and restores it at the end."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_generator(config.train.seed, stream).initial_seed())
        yield


def build_state(
    config: Config, device: torch.device | str = "cpu", num_classes: int | None = None, parent: Parent | None = None
) -> TrainState:
    """Builds the state of a GAN before its first step, with the same initial weights on every device.

    Args:
        num_classes: number of classes, if known; see `count_classes`.
        parent: networks to begin with instead of initial weights.

    Raises:
        ConfigError: an unknown name, or settings that do not fit each other.
        CheckpointError: the networks of the parent have other shapes, for another reason than their classes.
    """
    check_names(config)
    num_classes = count_classes(config) if num_classes is None else num_classes
    check_memory(config, num_classes)
    generator, discriminator = build_generator(config, num_classes), _make_initial_discriminator(config, num_classes)
    new = [] if parent is None else _inherited(generator, discriminator, config, parent)
    generator = placed(generator, device)
    if config.train.batch_size == 1 and any(isinstance(module, nn.BatchNorm1d) for module in generator.modules()):
        raise ConfigError(
            f"train.batch_size: got 1, but generator.name={config.generator.name} normalizes single features over the "
            "batch; choose at least 2"
        )
    discriminator = placed(_normalized_discriminator(discriminator, config, num_classes, parent), device)
    average = averaged_copy(generator) if config.train.ema_decay else None
    if parent is not None and average is not None and parent.average is not None:
        inherit_(average, parent.average)
    return TrainState(
        generator=generator,
        discriminator=discriminator,
        average=average,
        g_optimizer=_optimizer(generator, config.train, config.train.g_betas),
        d_optimizer=_optimizer(discriminator, config.train, config.train.d_betas),
        num_classes=num_classes,
        totals=torch.zeros(len(TOTALS) + 1, dtype=torch.float64, device=device),
        logit_averages=new_averages(device) if build_loss(config).logit_penalty is not None else None,
        parent={} if parent is None else _record(parent, new),
    )


def _inherited(generator: nn.Module, discriminator: nn.Module, config: Config, parent: Parent) -> list[str]:
    """Copies the weights of a parent, the discriminator's as they are in use; returns the layers that have new ones.

    Raises:
        CheckpointError: see `check_shapes`.
    """
    kept = {
        "generator": inherit_(generator, parent.generator),
        "discriminator": inherit_(discriminator, bake(parent.discriminator)),
    }
    if any(kept.values()):
        check_shapes(config, parent)
    return [f"{section}.{layer}" for section, layers in kept.items() for layer in layers]


def check_shapes(config: Config, parent: Parent) -> None:
    """Raises CheckpointError if the networks of a parent have other shapes, for another reason than their classes."""
    for section, theirs, make in (
        ("generator", parent.generator, _make_generator),
        ("discriminator", bake(parent.discriminator), _make_discriminator),
    ):
        with seeded(config, "shapes"):
            misfits = inherit_(make(config, parent.num_classes), theirs)
        if misfits:
            changed = [change for change in differences(config, parent.config) if change.partition(":")[0] in SHAPING]
            raise CheckpointError(
                f"{parent.path}: its {section} has other layers or shapes than the configured one: "
                f"{', '.join(misfits[:3])}; set these settings as there, or begin without --from (now, then): "
                f"{'; '.join(changed) or 'none differs, so the code of the network does'}"
            )


def _record(parent: Parent, new: list[str]) -> dict[str, Any]:
    """Returns plain values that describe the parent of a run; new: layers that inherited nothing."""
    origin = {"name": parent.config.name, "identity": parent.config.identity(), "step": parent.step}
    return {**origin, "networks": parent.networks_hash, "num_classes": parent.num_classes, "new": new}


def placed(network: nn.Module, device: torch.device | str) -> nn.Module:
    """Moves a network to the device, in channels-last layout, the fastest for convolutions on the CPUs measured."""
    return network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _optimizer(network: nn.Module, settings: TrainSettings, betas: tuple[float, float]) -> torch.optim.Optimizer:
    """Builds Adam; the learning rates are those of `gan.training.iteration`, set before each iteration."""
    return torch.optim.Adam(network.parameters(), lr=settings.learning_rate, betas=betas, eps=1e-8)


def build_loss(config: Config) -> Loss:
    """Builds the training losses, with the penalty of the normalization and the configured one."""
    loss = choose(LOSSES, config.train.loss, "train.loss")
    parts: list[DiscriminatorPenalty] = []
    for name in _penalty_names(config):
        penalty = choose(PENALTIES, name, "discriminator.penalty")
        coefficient = getattr(config.discriminator, penalty.coefficient, 0.0)
        if penalty.compute is not None:
            parts.append(partial(penalty.compute, coefficient=coefficient))
        if penalty.of_logits is not None:
            loss = loss._replace(logit_penalty=partial(penalty.of_logits, coefficient=coefficient))
    if not parts:
        return loss
    return loss._replace(penalty=parts[0] if len(parts) == 1 else partial(_sum_of_penalties, parts))


def _penalty_names(config: Config) -> list[str]:
    """Returns keys of PENALTIES: the penalty of the normalization, then the configured one."""
    wanted = config.discriminator
    own = choose(NORMALIZATIONS, wanted.normalization, "discriminator.normalization").penalty
    if own == wanted.penalty != "none":
        raise ConfigError(
            f"discriminator.penalty: got {own!r}, which discriminator.normalization={wanted.normalization} already "
            "adds; expected none or another penalty"
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
    """Builds the batches of the training images; the images are kept on the device if they fit."""
    train = config.train
    return Batches(images, train.batch_size, seed=train.seed, device=device, flip=train.flip, processes=processes)


def load_state(checkpoint: Checkpoint, config: Config, device: torch.device | str = "cpu") -> TrainState:
    """Loads the state of a checkpoint into the configured networks.

    Raises:
        CheckpointError: the checkpoint does not fit the configuration.
    """
    with fitting(checkpoint, REGISTRIES):
        state = build_state(config, device, checkpoint.state["num_classes"])
        state.load_state_dict(checkpoint.state)
    return state


def check_parent(config: Config, parent: Parent | None) -> None:
    """Raises ConfigError if a configuration begins with the networks of a parent that is not given."""
    if config.parent and parent is None:
        raise ConfigError(
            f"parent: {config.name} begins with the networks {config.parent} of another run: give its checkpoint by "
            "--from, or --set parent=null to begin with initial weights"
        )


def load_parent(path: Path) -> Parent:
    """Loads the networks of a checkpoint file, or of the newest one of a run folder, to begin a new run with.

    Raises:
        CheckpointError: see `gan.runs.checkpoint.read_checkpoint` and `load_state`.
    """
    read = read_checkpoint(path)
    config = checkpoint_config(read)
    state = load_state(read, config)
    networks = state.generator, state.discriminator, state.average
    return Parent(read.path, config, *networks, state.num_classes, state.step, state.networks_hash())


@contextmanager
def fitting(checkpoint: Checkpoint, registries: Mapping[str, Mapping[str, object]]) -> Iterator[None]:
    """Context manager for loading a state: raises CheckpointError if the state does not fit the networks.

    Warns if it was trained with another content of an imported file.

    Raises:
        ConfigError: a name of imported code is not registered.
    """
    check_present(checkpoint.imports, registries, checkpoint.path)
    for difference in other_code(checkpoint.imports, checkpoint.path):
        click.echo(f"warning: {difference}", err=True)
    try:
        yield
    except (AttributeError, KeyError, IndexError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{checkpoint.path}: does not fit its configuration: {reason}") from None


def checkpoint_config(checkpoint: Checkpoint) -> Config:
    """Returns the configuration that a checkpoint was trained with."""
    return validate(checkpoint.config, str(checkpoint.path))


def load_generator(checkpoint: str | Path, ema: bool = True, device: torch.device | str = "cpu") -> nn.Module:
    """Loads the generator of a checkpoint file or a run folder, in eval mode.

    Args:
        ema: whether to load the averaged generator, if the checkpoint has one.

    Raises:
        CheckpointError: see `gan.runs.checkpoint.read_checkpoint`.
    """
    read = read_checkpoint(Path(checkpoint))
    state = load_state(read, checkpoint_config(read), device)
    chosen = state.average if ema and state.average is not None else state.generator
    return chosen.eval().requires_grad_(False)


def load_discriminator(checkpoint: str | Path, device: torch.device | str = "cpu") -> nn.Module:
    """Loads the normalized discriminator of a checkpoint file or a run folder, in eval mode."""
    read = read_checkpoint(Path(checkpoint))
    return load_state(read, checkpoint_config(read), device).discriminator.eval().requires_grad_(False)
