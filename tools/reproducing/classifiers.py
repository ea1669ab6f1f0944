"""Classifiers, as `reproducing.kinds.Kind` wants them: gan-train-classifier and gan-eval-classifier."""

import inspect
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from evaluation.generalization import check_measures
from evaluation.reporting.plots import read_curves
from evaluation.reporting.value import protocol_hash
from gan import build
from gan.config.classifier import ClassifierConfig, available_classifier_configs, load_classifier_config
from gan.data import DATASETS, ImageData
from gan.errors import UserError
from gan.evaluate import one_sentence
from gan.models.classifiers import CLASSIFIERS
from gan.pixels import to_float
from gan.runs.logger import JSONL
from gan.runtime.memory import keep_freed_memory
from gan.training.classifier import ClassifierTrainer
from gan.training.state import ClassifierState
from reproducing.conditions import devices_of, time_of, title_of
from reproducing.content import Classifier
from reproducing.measured import NOTHING, Measured, Values
from reproducing.results import Ours, half_interval
from reproducing.scales import Scale
from reproducing.work import Costs, Progress, mean_seconds, one_thread

TRAINING, EVALUATION = "gan.train_classifier", "gan.evaluate_classifier"
UNIT = "epoch"
REACH = half_interval
NOTE = (
    "Behind ±, in ours: the 75 % confidence interval of the mean over seeds, by Student's t; one seed has none. Two "
    "means are within the spread where their intervals overlap."
)
CONDITIONS = (
    *("data", "labels", "network", "recipe", "epochs", "measured"),
    *("seeds", "time per run", "device", "protocol"),
)

RANDOM = "data.labels=random"
CIFAR = 50_000  # training images, where no configuration says how many
CLASSES = 10  # of the random images that updates are tried on, where the data set alone knows
PARTS = (2, 16)  # images of a batch that updates are tried on first, on a CPU
LONG = 1.0  # seconds of an update; of a whole batch it takes as many times longer as there are more images
BACKWARD = 3  # times a forward pass: one with its gradients
TAIL = 1 << 20  # bytes at the end of a log in which its last epoch is


@cache
def names() -> list[str]:
    return [name.removesuffix(".yaml") for name in available_classifier_configs()]


def variant_of(config: str, variant: str) -> str:
    """ "classifier_cifar100_resnet_sn" and "small" -> "classifier_cifar10_small_resnet_sn": there is none of CIFAR-100.

    The configuration itself where it has no such variant.
    """
    kind, data, rest = config.split("_", 2)
    return next(
        (name for place in (data, "cifar10") if (name := f"{kind}_{place}_{variant}_{rest}") in names()), config
    )


@cache
def load(name: str, overrides: tuple[str, ...]) -> ClassifierConfig:
    return load_classifier_config(name, overrides)


def scaled(model: Classifier, config: ClassifierConfig, scale: Scale) -> tuple[str, ...]:
    train = config.train
    shortened = (f"train.epochs={_share(train.epochs, scale.share)}",)
    shortened += (f"train.milestones={[_share(epoch, scale.share) for epoch in train.milestones]}",)
    memorizing = scale.memorizing if RANDOM in model.changes else ()
    return (*(shortened if scale.share != 1 else ()), *scale.classifiers, *memorizing)


def changed(model: Classifier, config: ClassifierConfig) -> tuple[str, ...]:
    epochs = (f"train.epochs={_share(config.train.epochs, model.epochs)}",) if model.epochs != 1 else ()
    return (*model.changes, *epochs)


def _share(epochs: int, share: float) -> int:
    """Of epochs, at least one; none of none."""
    return max(1, round(epochs * share)) if epochs else 0


def groups_of(metrics: Iterable[str], model: Classifier) -> tuple[tuple[str, ...], ...]:
    """Each alone; those without a name are in the log."""
    return tuple(dict.fromkeys((metric,) for metric in metrics if metric))


def needed(config: ClassifierConfig) -> str:
    return config.model_dump_json(include={"data"})


def obstacle(config: ClassifierConfig, metrics: list[str], device: str) -> str:
    """Names, or the images of training and those of the test that follows it."""
    try:
        build.check_classifier_names(config)
        with one_sentence():
            if metrics:
                check_measures(metrics)
        for split in ("train", "test"):
            build.load_labelled_images(config, split)
    except (UserError, OSError) as error:
        return str(error)
    return ""


def length(config: ClassifierConfig) -> int:
    return config.train.epochs


class LastEpoch(NamedTuple):
    """The last that a log knows. step: completed updates. accuracy: in [0, 1]."""

    step: int
    epoch: int
    accuracy: float


def last_epoch(folder: Path) -> LastEpoch | None:
    """Of a run, None before its first one has ended; the last line of a killed run may be half written."""
    file = folder / JSONL
    if not file.exists():
        return None
    with file.open("rb") as log:
        log.seek(max(0, file.stat().st_size - TAIL))
        lines = log.read().splitlines()
    for line in reversed(lines):
        with suppress(ValueError, KeyError, TypeError):
            record = json.loads(line)
            return LastEpoch(int(record["step"]), int(record["epoch"]), float(record["accuracy"]))
    return None


def progress(config: ClassifierConfig, folder: Path, step: int | None) -> Progress:
    """By the log: how many updates an epoch has, and where train.stop_accuracy was reached."""
    if step is None or not config.train.epochs:
        return Progress(0, step is not None)
    last = last_epoch(folder)
    if last is None:
        return Progress(0, False)
    ended = last.epoch >= config.train.epochs or is_reached(config, last)
    return Progress(step * last.epoch / last.step, ended and step == last.step)


def is_reached(config: ClassifierConfig, last: LastEpoch) -> bool:
    """Whether an epoch had the training accuracy to stop at."""
    return 0 < config.train.stop_accuracy <= last.accuracy


def logged(config: ClassifierConfig, folder: Path) -> Values:
    """Accuracies and errors in per cent, and their difference, of training's last epoch and of the test after it.

    Nothing of a run that was to stop at a training accuracy and did not get there.
    """
    last = last_epoch(folder)
    if last is None or (config.train.stop_accuracy and not is_reached(config, last)):
        return NOTHING
    curves = read_curves(folder / JSONL)
    (steps, training), (test_steps, test) = (curves.get(name, ((), ())) for name in ("accuracy", "test_accuracy"))
    values, fields = {"training/accuracy": 100 * training[-1]}, {**_origin(config), "training": _training(config)}
    if len(test_steps) and test_steps[-1] == steps[-1]:
        values["test/accuracy"] = 100 * test[-1]
        values["generalization/error"] = values["training/accuracy"] - values["test/accuracy"]
    values |= {key.replace("accuracy", "error"): 100 - value for key, value in values.items() if "accuracy" in key}
    return {
        key: (float(value), {"fields": fields, "hash": protocol_hash(key, fields)}) for key, value in values.items()
    }


def _origin(config: ClassifierConfig) -> dict[str, Any]:
    """What decides a logged value besides the network and its training."""
    data = config.data
    return {
        "data": title_of(config),
        "num_train": data.num_train or "all",
        "labels": _labels(config),
        "unit": "per cent",
        "test": "all images of the test split, after the last update, in eval mode",
    }


def _training(config: ClassifierConfig) -> str:
    augmented = "cropped and flipped" if config.train.augment else "as they are"
    return f"mean over the last epoch's batches, each before its update, in training mode, images {augmented}"


def _labels(config: ClassifierConfig) -> str:
    return f"random, seed {config.data.seed}" if config.data.labels == "random" else "given"


def work(config: ClassifierConfig) -> str:
    """The normalization's few per cent do not count."""
    sizes = {name: getattr(config.classifier, name) for name in ("name", *build.SIZES)}
    train, data = config.train, config.data
    return repr((sizes, data.name, data.image_size, data.num_train, train.batch_size, train.augment, train.precision))


def tried(config: ClassifierConfig, device: torch.device) -> Costs:
    """Of an epoch, and of an image's forward pass; of whole batches, or of as large a part as does not take long."""
    if device.type == "cpu":
        keep_freed_memory()
    whole = config.train.batch_size
    counts = (whole,) if device.type == "cuda" else (*(count for count in PARTS if count < whole), whole)
    num_classes = DATASETS[config.data.name].num_classes or CLASSES
    with one_thread():
        state = build.build_classifier_state(config, device, num_classes)
        for count in counts:
            update, forward = _calls(config, state, count)
            seconds = mean_seconds(update, device)
            if seconds > LONG:
                break
        return Costs(seconds / count * _images_per_epoch(config), mean_seconds(forward, device) / count)


def _calls(config: ClassifierConfig, state: ClassifierState, count: int) -> tuple[Callable[[], None], ...]:
    """An update by random images, and their forward pass."""
    device, size, classes = state.totals.device, config.data.image_size, state.num_classes
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    images = ImageData(pixels, torch.arange(count) % classes, tuple(map(str, range(classes))), "random", "train")
    trainer = ClassifierTrainer(
        state,
        images,
        config.train.model_copy(update={"batch_size": count}),
        penalty=build.build_weight_penalty(config),
        batched=device.type == "cuda",
    )

    def update() -> None:
        trainer.train_step()
        state.totals.tolist()  # waits for a GPU

    def forward() -> None:
        with torch.no_grad():
            state.network.eval()(to_float(pixels.to(device))).sum().item()

    return update, forward


def _images_per_epoch(config: ClassifierConfig) -> int:
    """Whole batches of them."""
    size = config.train.batch_size
    return math.ceil((config.data.num_train or CIFAR) / size) * size


def num_images(config: ClassifierConfig, metrics: Iterable[str]) -> int:
    """Forward passes of them."""
    wanted = config.eval
    counts = {
        "accuracy": wanted.num_points,
        "margin": wanted.num_points,
        "complexity": (1 + BACKWARD) * wanted.num_points,
        "noise": (1 + wanted.draws) * wanted.num_noise,
        "global": 2 * wanted.num_pairs,
    }
    return sum(counts.get(name, 0) for name in metrics)


def conditions(config: ClassifierConfig, runs: Sequence[Measured], values: Sequence[Ours]) -> Mapping[str, str]:
    found = {
        "data": title_of(config),
        "labels": _labels(config),
        "network": _network(config),
        "recipe": _recipe(config),
        "epochs": _epochs(config, runs),
        "measured": "; ".join(dict.fromkeys(map(_measured, values))),
        "seeds": _seeds(runs, values),
        "time per run": time_of(runs),
        "device": devices_of(runs),
        "protocol": ", ".join(f"`{value.protocol}`" for value in values),
    }
    if config.data.num_train:
        found["data"] += f", {config.data.num_train:,} training images"
    return found


def _network(config: ClassifierConfig) -> str:
    """Such as "resnet, depth 20, channels 16"."""
    wanted = config.classifier
    sizes = {
        name: parameter.default if getattr(wanted, name) is None else getattr(wanted, name)
        for name, parameter in inspect.signature(CLASSIFIERS[wanted.name]).parameters.items()
        if name in build.SIZES
    }
    return ", ".join([wanted.name, *(f"{name} {size}" for name, size in sizes.items() if size is not False)])


def _recipe(config: ClassifierConfig) -> str:
    train = config.train
    falls = f" × {train.factor:g} after {', '.join(map(str, train.milestones))}" if train.milestones else ""
    rate = f"SGD {train.learning_rate:g}{falls if train.schedule == 'milestones' else ', cosine'}"
    augmented = "crops and flips" if train.augment else "no crops or flips"
    decay = f"momentum {train.momentum:g}, weight decay {train.weight_decay:g}"
    return f"{rate}, {decay}, batch {train.batch_size}, {augmented}, {train.precision}"


def _epochs(config: ClassifierConfig, runs: Sequence[Measured]) -> str:
    """As many as configured; where a training accuracy ends them, of each seed."""
    stop = config.train.stop_accuracy
    if not stop:
        return str(config.train.epochs)
    ends = [last for run in runs if (last := last_epoch(run.folder)) is not None]
    missed = sum(not is_reached(config, last) for last in ends)
    failures = f", not reached by {missed} of {len(ends)}" if missed else ""
    return f"{', '.join(str(last.epoch) for last in ends)} until accuracy {stop:g}{failures}"


def _seeds(runs: Sequence[Measured], values: Sequence[Ours]) -> str:
    """How many, and of how many of them there are values."""
    count = min((value.spread.num_seeds for value in values), default=0)
    shown = str(len(runs)) if count == len(runs) else f"{count} of {len(runs)}"
    return f"{shown}, no interval" if count == 1 else shown


def _measured(value: Ours) -> str:
    """On what, and how."""
    fields = value.fields
    if value.key.startswith("training/"):
        return str(fields["training"])
    if value.key.startswith("test/"):
        return str(fields["test"])
    if value.key.startswith("generalization/"):
        return f"training: {fields['training']}; test: {fields['test']}"
    draws = f", {fields['draws']} draws each" if "draws" in fields else ""
    return f"{fields['num_images']:,} {fields['split']} images{draws}"
