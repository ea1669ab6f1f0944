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
    directed: tuple[str, ...] | None = None  # key prefixes of values to be ranked; None: the metric's name
    check: Callable[[Context], None] = lambda _: None  # further requirements; also checked without generated images
    replaced: Callable[[Settings], Mapping[str, str]] = lambda _: {}  # image set -> the one that settings replace it by

    def images_for(self, settings: Settings) -> dict[str, str]:
        """Image sets that the metric needs with some settings, as in `images`.

        "trained_on" stands for the training images of the measured networks, see `Context.training_role`.
        """
        replaced = self.replaced(settings)
        return {replaced.get(role, role): setting for role, setting in self.images.items()}


def check_needs(name: str, metric: Metric, context: Context, *, real_only: bool = False) -> None:
    """Raises EvaluationError for an unmet requirement of a metric; `real_only` skips generated images and critics."""
    if metric.critic and context.critic is None and not real_only:
        raise EvaluationError(f"metric {name}: got no critic, expected a discriminator, for example from a checkpoint")
    needed = metric.images_for(context.settings)
    images = {context.training_role if role == "trained_on" else role: setting for role, setting in needed.items()}
    for role, setting in images.items():
        replaced = role == "reference" and metric.statistics and context.statistics is not None
        if not replaced and not (real_only and role == "generated"):
            _check_count(name, context, role, setting)
    for role in images if metric.critic and context.critic_is_conditional else metric.labels:
        if not (real_only and role == "generated") and not context.image_set(role).has_labels:
            raise EvaluationError(f"metric {name}: got {role} images without labels, expected a label for each")
    if metric.extractor and not context.extractors:
        raise EvaluationError(f"metric {name}: got no feature extractor, expected one such as inception")
    if metric.extractor == "logits" and not any(extractor.has_logits for extractor in context.extractors):
        raise EvaluationError(
            f"metric {name}: extractor {context.extractors[0].name} returns no class probabilities; "
            "choose inception or classifier, or leave the metric out"
        )
    metric.check(context)


def _check_count(name: str, context: Context, role: str, setting: str) -> None:
    if not context.has(role):
        if role == "generated" and not setting and context.sampler is not None:
            return
        raise EvaluationError(f"metric {name}: got no {role} images, expected some; add them or leave the metric out")
    found, wanted = len(context.image_set(role)), context.required(setting, role)
    if found < wanted:
        raise EvaluationError(
            f"metric {name}: got {found} {role} images, expected {wanted}; "
            f"give more, or lower {HALVED.get(setting, setting)} (a different protocol, with a different hash)"
        )
