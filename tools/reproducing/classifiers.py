"""Classifiers of the paper, trained by gan-train-classifier and evaluated by gan-eval-classifier."""

import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from evaluation.generalization import check_measures
from evaluation.reporting.plots import read_curves
from evaluation.reporting.value import protocol_hash
from gan import build_classifier
from gan.config.classifier import ClassifierConfig, load_classifier_config
from gan.config.files import find_configs, find_variants
from gan.measuring.checks import user_errors
from gan.models.classifiers import CLASSIFIERS
from gan.runs.finding import JSONL
from reproducing.described import describe_devices, joined
from reproducing.measured import NOTHING, MeasuredRun, Values
from reproducing.results import Ours, Spread, half_interval
from reproducing.scales import Scale

RANDOM = "data.labels=random"
TAIL = 1 << 20  # bytes at the end of a log, enough to hold its last epoch
NO_CURVE = np.empty(0), np.empty(0)

load = cache(load_classifier_config)


@dataclass(frozen=True)
class ClassifierModel:
    """A classifier of the paper.

    config, variants: configuration of the paper's setting.
    changes: overrides of the configuration.
    epochs: factor on its number of epochs.
    """

    label: str
    config: str
    variants: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    epochs: float = 1

    training_module: ClassVar[str] = "gan.train_classifier"
    evaluation_module: ClassVar[str] = "gan.evaluate_classifier"
    note: ClassVar[str] = (
        "In our columns ± is the 75 % confidence interval of the mean over seeds by Student's t; one seed has none."
    )

    def reach(self, spread: Spread) -> float:
        """Number shown after ±: half of the mean's confidence interval."""
        return half_interval(spread)

    def composed(self, scale: Scale) -> tuple[str, tuple[str, ...]]:
        """Configuration and variants with those of a scale added.

        Small ones are of CIFAR-10 (JPEG); most architectures have a separate configuration for it.
        """
        more = (scale.variant,) if scale.variant in find_variants("classifier") else ()
        if not scale.small:
            return self.config, tuple(dict.fromkeys((*self.variants, *more)))
        variants = (*(name for name in self.variants if name != "cifar10"), *more)
        small = self.config.replace("_cifar100_", "_cifar10_small_")
        return (small, variants) if f"{small}.yaml" in find_configs() else (self.config, ("small", *variants))

    def load(self, name: str, variants: tuple[str, ...], overrides: tuple[str, ...]) -> ClassifierConfig:
        """Loads configuration `name` with variants and overrides."""
        return load(name, overrides, variants)

    def overrides(self, name: str, variants: tuple[str, ...], scale: Scale, shared: tuple[str, ...]) -> tuple[str, ...]:
        """Overrides of a configuration: the scale's, those of all runs, then the model's.

        The model's factor on the epochs is applied last.
        """
        train = load(name, (), variants).train
        milestones = [_scaled(epoch, scale.share) for epoch in train.milestones]
        scaled = (f"train.epochs={_scaled(train.epochs, scale.share)}", f"train.milestones={milestones}")
        memorizing = scale.memorizing if RANDOM in self.changes else ()
        given = (*(scaled if scale.share != 1 else ()), *scale.classifiers, *memorizing, *shared)
        epochs = load(name, given, variants).train.epochs
        return (*given, *self.changes, *((f"train.epochs={_scaled(epochs, self.epochs)}",) if self.epochs != 1 else ()))

    def groups(self, metrics: Iterable[str]) -> tuple[tuple[str, ...], ...]:
        """Groups of metrics, one per evaluation: each metric alone. Values without a metric are in the training log."""
        return tuple(dict.fromkeys((metric,) for metric in metrics if metric))

    def check(self, config: ClassifierConfig, metrics: list[str], device: str) -> None:
        """Raises UserError or OSError for unknown names or missing training or test images."""
        build_classifier.check_classifier_names(config)
        with user_errors():
            if metrics:
                check_measures(metrics)
        for split in ("train", "test"):
            build_classifier.load_labelled_images(config, split)

    def is_trained(self, config: ClassifierConfig, folder: Path, step: int) -> bool:
        """Whether all epochs are completed or the training accuracy to stop at is reached.

        Args:
            step: step of the newest checkpoint. If the log is ahead of it, the process was killed and training is not
                complete.
        """
        if not config.train.epochs:
            return True
        last = last_epoch(folder)
        if last is None or step != last.step:
            return False
        return last.epoch >= config.train.epochs or has_stopped(config, last)

    def logged(self, config: ClassifierConfig, folder: Path) -> Values:
        """Accuracies, errors and generalization error in per cent after the last epoch, from the training log.

        Empty if the run did not reach the training accuracy to stop at.
        """
        last = last_epoch(folder)
        if last is None or (config.train.stop_accuracy and not has_stopped(config, last)):
            return NOTHING
        curves = read_curves(folder / JSONL)
        (steps, training), (test_steps, test) = (curves.get(name, NO_CURVE) for name in ("accuracy", "test_accuracy"))
        values = {"training/accuracy": 100 * training[-1]}
        if len(test_steps) and test_steps[-1] == steps[-1]:
            values["test/accuracy"] = 100 * test[-1]
            values["generalization/error"] = values["training/accuracy"] - values["test/accuracy"]
        values |= {key.replace("accuracy", "error"): 100 - value for key, value in values.items() if "accuracy" in key}
        fields = _logged_protocol(config)
        return {
            key: (float(value), {"fields": fields, "hash": protocol_hash(key, fields)}) for key, value in values.items()
        }

    def conditions(
        self, config: ClassifierConfig, runs: Sequence[MeasuredRun], values: Sequence[Ours]
    ) -> Mapping[str, str]:
        """Conditions of some values: data, settings, seeds and machine."""
        count = f", {config.data.num_train:,} training images" if config.data.num_train else ""
        return {
            "data": f"{config.data.shown}{count}",
            "labels": _labels(config),
            "network": _network(config),
            "recipe": _recipe(config),
            "epochs": _epochs(config, runs),
            "measured": joined(map(_measured, values), "; "),
            "seeds": _seeds(runs, values),
            "device": describe_devices(runs),
        }


def _scaled(epochs: int, share: float) -> int:
    """Scaled number of epochs, at least 1 unless 0."""
    return max(1, round(epochs * share)) if epochs else 0


class LastEpoch(NamedTuple):
    """Last complete epoch of a training log.

    step: completed updates.
    accuracy: training accuracy in [0, 1].
    """

    step: int
    epoch: int
    accuracy: float


def last_epoch(folder: Path) -> LastEpoch | None:
    """Last complete epoch in a run's log, None without one; the last line of a killed run may be incomplete."""
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


def has_stopped(config: ClassifierConfig, last: LastEpoch) -> bool:
    """Whether the last epoch reached the training accuracy to stop at."""
    return 0 < config.train.stop_accuracy <= last.accuracy


def _logged_protocol(config: ClassifierConfig) -> dict[str, Any]:
    """Protocol fields of logged values, other than the network and its training."""
    augmented = "cropped and flipped" if config.train.augment else "as they are"
    return {
        "data": config.data.shown,
        "num_train": config.data.num_train or "all",
        "labels": _labels(config),
        "unit": "per cent",
        "test": "all images of the test split, after the last update, in eval mode",
        "training": f"mean over the last epoch's batches, each before its update, in training mode, images {augmented}",
    }


def _labels(config: ClassifierConfig) -> str:
    return f"random, seed {config.data.seed}" if config.data.labels == "random" else "given"


def _network(config: ClassifierConfig) -> str:
    """Network and sizes such as "resnet, depth 20, channels 16"."""
    wanted = config.classifier
    sizes = {
        name: parameter.default if getattr(wanted, name) is None else getattr(wanted, name)
        for name, parameter in inspect.signature(CLASSIFIERS[wanted.name]).parameters.items()
        if name in build_classifier.SIZES
    }
    return ", ".join([wanted.name, *(f"{name} {size}" for name, size in sizes.items() if size is not False)])


def _recipe(config: ClassifierConfig) -> str:
    train = config.train
    falls = f" × {train.factor:g} after {', '.join(map(str, train.milestones))}" if train.milestones else ""
    rate = f"SGD {train.learning_rate:g}{falls if train.schedule == 'milestones' else ', cosine'}"
    augmented = "crops and flips" if train.augment else "no crops or flips"
    decay = f"momentum {train.momentum:g}, weight decay {train.weight_decay:g}"
    return f"{rate}, {decay}, batch {train.batch_size}, {augmented}, {train.precision}"


def _epochs(config: ClassifierConfig, runs: Sequence[MeasuredRun]) -> str:
    """Configured number of epochs, or the numbers of all seeds if training stops at a training accuracy."""
    stop = config.train.stop_accuracy
    if not stop:
        return str(config.train.epochs)
    ends = [last for run in runs if (last := last_epoch(run.folder)) is not None]
    missed = sum(not has_stopped(config, last) for last in ends)
    failures = f", not reached by {missed} of {len(ends)}" if missed else ""
    return f"{', '.join(str(last.epoch) for last in ends)} until accuracy {stop:g}{failures}"


def _seeds(runs: Sequence[MeasuredRun], values: Sequence[Ours]) -> str:
    """Number of seeds and of those with values."""
    count = min((value.spread.num_seeds for value in values), default=0)
    shown = str(len(runs)) if count == len(runs) else f"{count} of {len(runs)}"
    return f"{shown}, no interval" if count == 1 else shown


def _measured(value: Ours) -> str:
    """Images and mode of the network behind a value."""
    fields = value.fields
    if value.key.startswith("training/"):
        return str(fields["training"])
    if value.key.startswith("test/"):
        return str(fields["test"])
    if value.key.startswith("generalization/"):
        return f"training: {fields['training']}; test: {fields['test']}"
    draws = f", {fields['draws']} draws each" if "draws" in fields else ""
    return f"{fields['num_images']:,} {fields['split']} images{draws}"
