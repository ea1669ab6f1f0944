"""GANs of the paper, trained by gan-train and evaluated by gan-eval."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

from gan.config import Config, load_config
from gan.config.files import find_variants
from gan.measuring.checks import user_errors
from gan.measuring.gans import Evaluation
from reproducing.described import describe_devices, joined
from reproducing.measured import NOTHING, MeasuredRun, Values
from reproducing.paper.columns import COLUMNS
from reproducing.results import Ours, Spread
from reproducing.scales import Scale

SCORES = ("fid", "is")
COUNTS = {"num_generated": "generated", "samples": "generated", "num_reference": "real", "num_test": "real"}
COUNTS |= {"num_train": "real, training", "num_generated_per_class": "generated", "pairs": "pairs"}
"""Protocol fields that count images, each with a noun for its images."""

load = cache(load_config)

SMALL = {
    "cifar10_sndcgan": ("jpeg", "narrow"),
    "cifar10": ("jpeg", "compact"),
    "cifar100": ("compact",),
    "celeba": ("small64",),
}
"""Variants that make a configuration small, by the first words of its name."""


@dataclass(frozen=True)
class GanModel:
    """A GAN of the paper.

    config, variants: configuration of the paper's setting.
    changes: overrides of the configuration, applied last.
    """

    label: str
    config: str
    variants: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()

    training_module: ClassVar[str] = "gan.train"
    evaluation_module: ClassVar[str] = "gan.evaluate"
    note: ClassVar[str] = "In our columns ± is the standard deviation over seeds."

    def reach(self, spread: Spread) -> float:
        """Number shown after ±: the standard deviation over seeds."""
        return spread.std

    def composed(self, scale: Scale) -> tuple[str, tuple[str, ...]]:
        """Configuration and variants with those of a scale added."""
        data = self.config.partition("_")[0]
        fits = scale.variant in find_variants("gan") and (scale.variant != "jpeg" or data == "cifar10")
        small = next(variants for words, variants in SMALL.items() if f"{self.config}_".startswith(f"{words}_"))
        more = (*((scale.variant,) if fits else ()), *(small if scale.small else ()), *scale.gans)
        return self.config, tuple(dict.fromkeys((*more, *self.variants)))

    def load(self, name: str, variants: tuple[str, ...], overrides: tuple[str, ...]) -> Config:
        """Loads configuration `name` with variants and overrides."""
        return load(name, overrides, variants)

    def overrides(self, name: str, variants: tuple[str, ...], scale: Scale, shared: tuple[str, ...]) -> tuple[str, ...]:
        """Overrides of a configuration: those of all runs, then the model's.

        Everything else that decides a result is in the configuration and its variants.
        """
        return (*shared, *self.changes)

    def groups(self, metrics: Iterable[str]) -> tuple[tuple[str, ...], ...]:
        """Groups of metrics, one per evaluation: IS, FID and Intra-FID share images, other metrics are alone."""
        scores = (*SCORES, "intra_fid") if "_cond_" in self.config else SCORES
        return tuple(dict.fromkeys(scores if metric in scores else (metric,) for metric in metrics if metric))

    def check(self, config: Config, metrics: list[str], device: str) -> None:
        """Raises UserError or OSError if an evaluation's data, weights or extractor are missing or do not fit."""
        if metrics:
            with user_errors():
                Evaluation(config, device).ready(metrics)

    def is_trained(self, config: Config, folder: Path, step: int) -> bool:
        """Whether training is complete, given the step of the newest checkpoint."""
        return step >= config.train.steps

    def logged(self, config: Config, folder: Path) -> Values:
        """Values from the training log: none."""
        return NOTHING

    def conditions(self, config: Config, runs: Sequence[MeasuredRun], values: Sequence[Ours]) -> Mapping[str, str]:
        """Conditions of some values: data, settings, image counts, seeds and machine."""
        train = config.train
        generator, discriminator = config.generator, config.discriminator
        widths = "-".join(str(generator.channels * factor) for factor in generator.widths or [1])
        networks = f"{generator.name} {widths}, {discriminator.name} {discriminator.channels} channels"
        if discriminator.pooling:
            networks += f", {discriminator.pooling} over positions"
        if discriminator.relative_to == "initial" and discriminator.bound:
            networks += f", {discriminator.bound}"
        if discriminator.bound and discriminator.infeasible != "skip":
            networks += f", infeasible: {discriminator.infeasible}"
        networks += _initial(config)
        rates = [train.learning_rate, *([train.d_learning_rate] if train.d_learning_rate else [])]
        betas = dict.fromkeys(f"{beta1:g}, {beta2:g}" for beta1, beta2 in (train.g_betas, train.d_betas))
        adam = f"Adam {' and '.join(f'{rate:g}' for rate in rates)}, {' and '.join(betas)}"
        return {
            "data": config.data.shown,
            "extractor": joined(map(_extractor, values), ", "),
            "iterations": f"{train.steps:,}",
            "networks": f"{networks}, batch {train.batch_size}, {adam}, {train.precision}",
            "images": joined(map(_counts, values), "; "),
            "seeds": str(len(runs)),
            "device": describe_devices(runs),
        }


def _initial(config: Config) -> str:
    """Initializations in place of the architectures' own, such as ", initial weights of the generator: lecun"."""
    parts = {"generator": config.generator, "discriminator": config.discriminator}
    chosen = [f"{name}: {part.initialization}" for name, part in parts.items() if part.initialization]
    return "".join(f", initial weights of the {one}" for one in chosen)


def _extractor(value: Ours) -> str:
    """Feature extractor or critics that a value depends on; "" if it depends on the discriminator."""
    if "steps" in value.fields:
        count = value.fields["num_critics"]
        return f"{count} critic{'s' if count > 1 else ''} of {value.fields['steps']:,} updates"
    name = value.key.partition("/")[2].partition("-")[0]  # of an extractor without its weights' hash
    return name or "Inception" if "extractor" in value.fields else ""


def _counts(value: Ours) -> str:
    """Image counts such as "FID of 5,000 generated, 10,000 real"."""
    name = next((name for name, column in COLUMNS.items() if re.fullmatch(column.key, value.key)), "")
    counts = [f"{_total(value.fields[field]):,} {kind}" for field, kind in COUNTS.items() if value.fields.get(field)]
    if value.key.startswith("jacobian/"):  # measured at as many images as there are pairs
        noise = f", noise {value.fields['noise']:g}" if value.fields["noise"] else ""
        counts = [f"{text.replace('pairs', 'images')}{noise}" for text in counts]
    return f"{name} of {', '.join(counts)}" if name and counts else ", ".join(counts)


def _total(count: int | list[int]) -> int:
    """Total number of images, given as one number or by class."""
    return sum(count) if isinstance(count, list) else count
