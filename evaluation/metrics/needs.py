"""Interface of a metric, and the check that a context meets its requirements."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from evaluation.context import Context
from evaluation.errors import EvaluationError
from evaluation.reporting.value import Value
from evaluation.settings import Settings

HALVED = {"num_lipschitz": "lipschitz.pairs"}  # number of images -> the setting it is computed from


class Metric(NamedTuple):
    """A metric and its requirements, which are checked for all metrics before the first one is measured."""

    measure: Callable[[Context], list[Value]]
    # Image set -> setting with the number of images used, "" for all. With "", a sampler can replace generated images.
    images: dict[str, str]
    extractor: str = ""  # "features", "logits" or "" for none; with several extractors, `measure` is called for each
    labels: tuple[str, ...] = ()  # image sets that must have labels
    critic: bool = False  # whether the metric measures the discriminator
    statistics: bool = False  # whether moments from a file can replace the reference images
    # Key prefixes of values to be ranked, or their function of the settings; None: the metric's name.
    directed: tuple[str, ...] | Callable[[Settings], tuple[str, ...]] | None = None
    # Further requirements. Also called without generated images, with the settings alone, and before extractors are
    # built; checks then what is known.
    check: Callable[[Context], None] = lambda _: None
    replaced: Callable[[Settings], Mapping[str, str]] = lambda _: {}  # image set -> the one that settings replace it by

    def images_for(self, settings: Settings) -> dict[str, str]:
        """Image sets that the metric needs with some settings, as in `images`.

        "trained_on" stands for the training images of the measured networks, see `Context.training_role`.
        """
        replaced = self.replaced(settings)
        return {replaced.get(role, role): setting for role, setting in self.images.items()}


def ranked(name: str, metric: Metric, settings: Settings) -> tuple[str, ...]:
    """Returns the keys of a metric's values that can be ranked, without the names of extractors."""
    if metric.directed is None:
        return (name,)
    return metric.directed(settings) if callable(metric.directed) else metric.directed


def check_images(name: str, metric: Metric, context: Context, *, real_only: bool = False) -> None:
    """Raises EvaluationError if a metric needs other images, labels, a critic or other settings.

    Args:
        real_only: skips generated images and the critic, which do not exist yet; `context.generated_labels` may hold
            their labels.
    """
    if metric.critic and context.critic is None and not real_only:
        raise EvaluationError(f"metric {name}: got no critic, expected a discriminator, for example from a checkpoint")
    needed = metric.images_for(context.settings)
    images = {context.training_role if role == "trained_on" else role: setting for role, setting in needed.items()}
    replaced = {"reference"} if metric.statistics and context.statistics is not None else set()
    missing = {"generated"} if real_only else set()
    _check_counts(name, context, {role: setting for role, setting in images.items() if role not in replaced | missing})
    for role in images if metric.critic and context.critic_is_conditional else metric.labels:
        if not (real_only and role == "generated") and not context.image_set(role).has_labels:
            raise EvaluationError(
                f"metric {name}: got {role} images without labels, expected a label for each; sort them into one "
                "sub-folder per class, or leave the metric out"
            )
    metric.check(context)


def check_extractors(name: str, metric: Metric, context: Context) -> None:
    """Raises EvaluationError if a metric needs an extractor that the context does not have or that does not fit."""
    if not metric.extractor:
        return
    if not context.extractors:
        raise EvaluationError(f"metric {name}: got no feature extractor, expected one such as inception")
    for extractor in context.extractors:
        context.widths(extractor)
    if metric.extractor == "logits" and not any(extractor.has_logits for extractor in context.extractors):
        raise EvaluationError(
            f"metric {name}: extractor {context.extractors[0].name} returns no class probabilities; "
            "choose inception, resnet or classifier, or leave the metric out"
        )
    metric.check(context)


def _check_counts(name: str, context: Context, images: dict[str, str]) -> None:
    """Raises EvaluationError if image sets, each with the setting of its number, are missing or too small."""
    shortages, settings = [], []
    for role, setting in images.items():
        if not context.has(role):
            if role == "generated" and not setting and context.sampler is not None:
                continue
            raise EvaluationError(
                f"metric {name}: got no {role} images, expected some; add them with --{role}, or leave the metric out"
            )
        found, wanted = len(context.image_set(role)), context.required(setting, role)
        if found < wanted:
            shortages.append(f"{found} {role} images, expected {wanted}")
            settings.append(context.setting(HALVED.get(setting, setting)))
    if shortages:
        raise EvaluationError(
            f"metric {name}: got {', and '.join(shortages)}; give more, or lower "
            f"{' and '.join(dict.fromkeys(settings))} (a different protocol, with a different hash)"
        )
