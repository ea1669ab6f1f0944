"""GANs, as `reproducing.kinds.Kind` wants them: gan-train and gan-eval."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

import torch
from benchmarks.sizes import make_trainer

from evaluation.presets import check_settings
from gan.config import Config, available_configs, load_config
from gan.errors import UserError
from gan.evaluate import Evaluation, evaluation_settings, one_sentence
from gan.runtime.memory import keep_freed_memory
from gan.sample import generate
from reproducing.conditions import devices_of, time_of, title_of
from reproducing.content import Model
from reproducing.measured import NOTHING, Measured, Values
from reproducing.paper import COLUMNS
from reproducing.results import Ours, deviation
from reproducing.scales import Scale
from reproducing.work import Costs, Progress, mean_seconds, one_thread

TRAINING, EVALUATION = "gan.train", "gan.evaluate"
UNIT = "step"
REACH = deviation
NOTE = ""
CONDITIONS = ("data", "extractor", "iterations", "networks", "images", "seeds", "time per run", "device", "protocol")

SCORES = ("fid", "is")
UNTRAINED = "train.steps=0"
CLASSES = 10  # of the random images that iterations are tried on
COUNTS = {"num_generated": "generated", "samples": "generated", "num_reference": "real", "num_test": "real"}
COUNTS |= {"num_generated_per_class": "generated", "pairs": "pairs"}
"""Fields of protocols that count images."""


@cache
def names() -> list[str]:
    return [name.removesuffix(".yaml") for name in available_configs()]


def variant_of(config: str, variant: str) -> str:
    """ "cifar10_cond_sn" and "small" -> "cifar10_small_cond_sn"; the configuration itself where it has no such one."""
    data, _, rest = config.partition("_")
    found = f"{data}_{variant}_{rest}"
    return found if found in names() else config


@cache
def load(name: str, overrides: tuple[str, ...]) -> Config:
    return load_config(name, overrides)


def scaled(model: Model, config: Config, scale: Scale) -> tuple[str, ...]:
    return scale.overrides


def changed(model: Model, config: Config) -> tuple[str, ...]:
    return (UNTRAINED,) if model.untrained else ()


def groups_of(metrics: Iterable[str], model: Model) -> tuple[tuple[str, ...], ...]:
    """Scores share their images' features; the others stand alone."""
    scores = (*SCORES, "intra_fid") if "_cond_" in model.config else SCORES
    return tuple(dict.fromkeys(scores if metric in scores else (metric,) for metric in metrics))


def needed(config: Config) -> str:
    return config.model_dump_json(include={"data", "conditional"})


def obstacle(config: Config, metrics: list[str], device: str) -> str:
    """Data, weights, an extractor without probabilities."""
    if not metrics:
        return ""
    try:
        with one_sentence():
            Evaluation(config, device).ready(metrics)
    except (UserError, OSError) as error:
        return str(error)
    return ""


def length(config: Config) -> int:
    return config.train.steps


def progress(config: Config, folder: Path, step: int | None) -> Progress:
    return Progress(step or 0, step is not None and step >= config.train.steps)


def logged(config: Config, folder: Path) -> Values:
    return NOTHING


def work(config: Config) -> str:
    """The normalization's few per cent do not count."""
    train, name = config.train, config.discriminator.normalization
    penalty = name if name in ("wgan_gp", "ortho") else ""
    parts = (config.conditional, config.data.image_size, config.generator, config.discriminator.name)
    return repr((parts, config.discriminator.channels, penalty, train.batch_size, train.d_steps, train.precision))


def tried(config: Config, device: torch.device) -> Costs:
    """Of an iteration, and of a generated image."""
    if device.type == "cpu":
        keep_freed_memory()
    with one_thread():
        trainer = make_trainer(config, str(device), CLASSES if config.conditional else 0)
        latents = torch.randn(config.eval.batch_size, config.generator.z_dim)
        labels = torch.zeros(len(latents), dtype=torch.int64) if config.conditional else None

        def iterate() -> None:
            trainer.train_step()
            trainer.take_scalars()  # waits for a GPU

        def sample() -> None:
            generate(trainer.state.generator, latents, labels, batch_size=len(latents), device=device)

        return Costs(mean_seconds(iterate, device), mean_seconds(sample, device) / len(latents))


def num_images(config: Config, metrics: Iterable[str]) -> int:
    """Generated ones; IS and FID share theirs."""
    settings = evaluation_settings(config)
    critics = check_settings(
        settings.nd_preset, steps=settings.nd_steps, samples=settings.nd_samples, num_critics=settings.nd_critics
    )
    shared = {"is": settings.num_is, "fid": settings.num_fid, "intra_fid": CLASSES * settings.num_intra}
    seen = critics.num_critics * critics.steps * critics.batch_size + critics.samples
    counts = {"nd": seen, "elhist": 2 * settings.lipschitz_pairs}
    metrics = list(metrics)
    return max((shared.get(name, 0) for name in metrics), default=0) + sum(counts.get(name, 0) for name in metrics)


def conditions(config: Config, runs: Sequence[Measured], values: Sequence[Ours]) -> Mapping[str, str]:
    train = config.train
    widths = f"{config.generator.name} {config.generator.channels}/{config.discriminator.channels} channels"
    adam = f"Adam {train.learning_rate:g}, {train.adam_beta1:g}, {train.adam_beta2:g}"
    return {
        "data": title_of(config),
        "extractor": ", ".join(dict.fromkeys(filter(None, map(_extractor, values)))),
        "iterations": f"{train.steps:,}",
        "networks": f"{widths}, batch {train.batch_size}, {adam}, {train.precision}",
        "images": "; ".join(dict.fromkeys(map(_counts, values))),
        "seeds": str(len(runs)),
        "time per run": time_of(runs),
        "device": devices_of(runs),
        "protocol": ", ".join(f"`{value.protocol}`" for value in values),
    }


def _extractor(value: Ours) -> str:
    """What stands between images and numbers; "" where that is the discriminator."""
    if "steps" in value.fields:
        count = value.fields["num_critics"]
        return f"{count} critic{'s' if count > 1 else ''} of {value.fields['steps']:,} updates"
    return value.key.partition("/")[2] or "Inception" if "extractor" in value.fields else ""


def _counts(value: Ours) -> str:
    """Such as "FID of 5,000 generated, 10,000 real"."""
    name = next((name for name, column in COLUMNS.items() if re.fullmatch(column.key, value.key)), "")
    counts = [f"{_total(value.fields[field]):,} {kind}" for field, kind in COUNTS.items() if value.fields.get(field)]
    if value.key.startswith("jacobian/"):  # measured at as many images as there are pairs
        counts = [text.replace("pairs", "images") for text in counts]
    return f"{name} of {', '.join(counts)}" if name else ", ".join(counts)


def _total(count: int | list[int]) -> int:
    """Of images, given as one number or class by class."""
    return sum(count) if isinstance(count, list) else count
