"""Features by class of generated and reference images, for metrics that are means over classes."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from evaluation.context import Context
from evaluation.errors import EvaluationError
from evaluation.images.checks import fingerprint
from evaluation.reporting.value import Value


class ByClass(NamedTuple):
    """Features (N, D) and labels (N,) of generated images, features (M, D) and labels (M,) of reference images."""

    features: Tensor
    labels: Tensor
    reference: Tensor
    reference_labels: Tensor

    @classmethod
    def of(cls, context: Context) -> "ByClass":
        """Takes the first `num_intra` generated images of each class and all reference images.

        Features are on the context's `float64_device`, labels on the CPU.
        """
        device = context.float64_device
        labels = context.labels("generated", len(context.image_set("generated")))
        rows = first_of_each(labels, context.settings.number("num_intra"))
        features = context.features("generated", int(rows.max()) + 1)[rows]
        num_reference = len(context.image_set("reference"))
        reference = context.features("reference", num_reference)
        reference_labels = context.labels("reference", num_reference)
        return cls(features.to(device), labels[rows], reference.to(device), reference_labels)

    def pairs(self, name: str, *, fewest: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields generated and reference features of each class, by ascending class number.

        Raises:
            EvaluationError: labels of a wrong shape, or a class with fewer than `fewest` generated or reference images;
                the message starts with the metric's `name`.
        """
        for rows, labels in ((self.features, self.labels), (self.reference, self.reference_labels)):
            if labels.shape != rows.shape[:1]:
                raise EvaluationError(
                    f"{name}: got labels {tuple(labels.shape)} for features {tuple(rows.shape)}, expected one for each"
                )
        for label in check_classes(name, self.labels, self.reference_labels, fewest=fewest):
            yield self.features[self.labels == label], self.reference[self.reference_labels == label]

    def value(
        self,
        context: Context,
        metric: str,
        mean: float,
        per_class: Tensor,
        *,
        better: str,
        fields: dict[str, Any] | None = None,
        record: dict[str, Any] | None = None,
        interval: tuple[float, float] | None = None,
    ) -> Value:
        """Builds the value of a mean over classes, with a table of the classes' values (K,) and image counts."""
        classes, generated = self.labels.unique(return_counts=True)
        real = self.reference_labels.unique(return_counts=True)[1]
        known = context.class_names
        names = [known[label] if label < len(known) else str(label) for label in classes.tolist()]
        columns = zip(names, generated.tolist(), real.tolist(), per_class.tolist(), strict=True)
        fields = {
            **(fields or {}),
            "num_generated_per_class": generated.tolist(),
            "reference_labels": fingerprint(self.reference_labels),
            **context.image_fields(len(self.reference)),
        }
        record = {
            "reference": context.reference_name,
            "classes": [dict(zip(("class", "generated", "reference", "value"), row, strict=True)) for row in columns],
            "lowest": names[int(per_class.argmin())],
            "highest": names[int(per_class.argmax())],
            **(record or {}),
        }
        arrays = {"per_class": per_class.numpy(), "classes": classes.numpy()}
        return context.value(
            metric, mean, len(self.features), better, fields, record=record, arrays=arrays, interval=interval
        )


def first_of_each(labels: Tensor, count: int) -> Tensor:
    """Returns the rows of the first `count` images of each class, ascending; all rows if `count` is 0."""
    if not count:
        return torch.arange(len(labels), device="cpu")
    return torch.cat([(labels == label).nonzero()[:count, 0] for label in labels.unique()]).sort().values


def check_classes(
    name: str,
    labels: Tensor,
    reference_labels: Tensor,
    *,
    fewest: int,
    generated: int = 0,
    setting: str = "num_intra",
) -> list[int]:
    """Returns the class numbers, ascending, after checking the number of images of each class.

    Raises:
        EvaluationError: a class has fewer than `fewest` generated or reference images, or fewer than `generated`
            generated ones.
    """
    sides = (("generated", labels, max(fewest, generated)), ("reference", reference_labels, fewest))
    counts = {side: Counter(given.tolist()) for side, given, _ in sides}
    classes = sorted({*counts["generated"], *counts["reference"]})
    for label in classes:
        for side, _, needed in sides:
            count = counts[side][label]
            if count < needed:
                lower = f"lower {setting}" if side == "generated" and needed > fewest else "leave the metric out"
                raise EvaluationError(
                    f"{name}: got {count} {side} images of class {label}, expected at least {needed} of each class; "
                    f"give more of them, or {lower}"
                )
    return classes


def check_context(context: Context, name: str, *, fewest: int) -> None:
    """Checks num_intra, and applies `check_classes` to the labels of a context, if both sets have labels.

    Raises:
        EvaluationError: see `check_classes`; or num_intra is below `fewest`.
    """
    wanted, setting = context.settings.number("num_intra"), context.setting("num_intra")
    if 0 < wanted < fewest:
        raise EvaluationError(
            f"metric {name}: got {setting}={wanted} generated images per class, expected at least {fewest}; raise it"
        )
    labels = context.generated_labels, context.reference_labels
    if labels[0] is not None and labels[1] is not None:
        counts = labels[0], labels[1]
        check_classes(f"metric {name}", *counts, fewest=fewest, generated=wanted, setting=setting)
