"""Features of generated and reference images by class, for metrics that are means over classes."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from evaluation.context import Context
from evaluation.errors import EvaluationError
from evaluation.images.reader import fingerprint
from evaluation.reporting.value import Value


class ByClass(NamedTuple):
    """Features (N, D) and labels (N,) of generated images, and those of reference images, (M, D) and (M,)."""

    features: Tensor
    labels: Tensor
    reference: Tensor
    reference_labels: Tensor

    @classmethod
    def of(cls, context: Context) -> "ByClass":
        """Takes the first `num_intra` generated images of each class, and all reference images."""
        labels = context.labels("generated", len(context.image_set("generated")))
        rows = first_of_each(labels, context.settings.num_intra)
        features = context.features("generated", int(rows.max()) + 1)[rows]
        num_reference = len(context.image_set("reference"))
        reference = context.features("reference", num_reference)
        return cls(features, labels[rows], reference, context.labels("reference", num_reference))

    def pairs(self, name: str, *, fewest: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Generated and reference features of each class, by ascending class number.

        Args:
            name: of the metric, for errors.
            fewest: images that each side must have of each class.

        Raises:
            EvaluationError: labels of another shape, or a class that one side has fewer than `fewest` images of.
        """
        for rows, labels in ((self.features, self.labels), (self.reference, self.reference_labels)):
            if labels.shape != rows.shape[:1]:
                raise EvaluationError(
                    f"{name}: got labels {tuple(labels.shape)} for features {tuple(rows.shape)}, expected one for each"
                )
        classes = check_classes(name, self.labels, self.reference_labels, fewest=fewest)
        for label in classes:
            yield self.features[self.labels == label], self.reference[self.reference_labels == label]

    def fields(self, context: Context) -> dict[str, Any]:
        """Protocol fields: images of each class, reference, extractor and generation."""
        num_reference = len(self.reference)
        return {
            "num_generated_per_class": self.labels.unique(return_counts=True)[1].tolist(),
            "num_reference": num_reference,
            "reference_labels": fingerprint(self.reference_labels),
            **context.set_fields("reference", num_reference),
            **context.extractor_fields(),
            **context.generation_fields(),
        }

    def value(self, context: Context, metric: str, mean: float, per_class: Tensor, *, better: str) -> Value:
        """A `Value` of the mean, with values (K,) and counts of the classes."""
        classes, generated = self.labels.unique(return_counts=True)
        real = self.reference_labels.unique(return_counts=True)[1]
        names = [_name(context, int(label)) for label in classes]
        columns = zip(names, generated.tolist(), real.tolist(), per_class.tolist(), strict=True)
        table = [dict(zip(("class", "generated", "reference", "value"), row, strict=True)) for row in columns]
        key = context.key(metric)
        return Value(
            key=key,
            value=mean,
            std=None,
            count=len(self.features),
            better=better,
            fields=self.fields(context),
            record={
                "reference": context.reference_name,
                "classes": table,
                "lowest": names[int(per_class.argmin())],
                "highest": names[int(per_class.argmax())],
            },
            arrays={f"{key}/per_class": per_class.numpy(), f"{key}/classes": classes.numpy()},
        )


def _name(context: Context, label: int) -> str:
    return context.class_names[label] if label < len(context.class_names) else str(label)


def first_of_each(labels: Tensor, count: int) -> Tensor:
    """Rows of the first `count` images of each class, ascending; all rows where `count` is 0."""
    if not count:
        return torch.arange(len(labels), device="cpu")
    return torch.cat([(labels == label).nonzero()[:count, 0] for label in labels.unique()]).sort().values


def check_classes(name: str, labels: Tensor, reference_labels: Tensor, *, fewest: int, generated: int = 0) -> list[int]:
    """Class numbers, ascending, after checking that both sides have at least `fewest` images of each.

    Args:
        generated: number of generated images that each class needs besides.

    Raises:
        EvaluationError: naming the first class that one side has too few images of.
    """
    sides = (("generated", labels, max(fewest, generated)), ("reference", reference_labels, fewest))
    counts = {side: dict(zip(*_counted(given), strict=True)) for side, given, _ in sides}
    classes = sorted({*counts["generated"], *counts["reference"]})
    for label in classes:
        for side, _, needed in sides:
            count = counts[side].get(label, 0)
            if count < needed:
                raise EvaluationError(
                    f"{name}: got {count} {side} images of class {label}, expected at least {needed} of each class"
                )
    return classes


def _counted(labels: Tensor) -> tuple[list[int], list[int]]:
    classes, counts = labels.unique(return_counts=True)
    return classes.tolist(), counts.tolist()


def check_context(context: Context, name: str, *, fewest: int) -> None:
    """`check_classes` for the images of a context, if it has both sides.

    Raises:
        EvaluationError: a class that one side has too few images of.
    """
    if context.generated_labels is not None and context.reference_labels is not None:
        labels = context.generated_labels, context.reference_labels
        check_classes(f"metric {name}", *labels, fewest=fewest, generated=context.settings.num_intra)
