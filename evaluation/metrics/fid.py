"""Fréchet Inception distance, and how large it is between two samples of the real images. Heusel et al. 2017."""

from typing import TYPE_CHECKING, Any

from evaluation.frechet import Moments, frechet, frechet_of_features
from evaluation.report import Value

if TYPE_CHECKING:
    from evaluation.context import Context


def measure(context: "Context") -> list[Value]:
    """FID of the first `num_fid` generated images against `num_real` reference images, and its floor."""
    count = context.required("num_fid")
    generated = context.features("generated", count)
    fields = {"num_generated": count, **context.reference_fields()}
    record: dict[str, Any] = {"reference": context.reference_name}
    if context.statistics is not None:
        result = frechet(context.statistics.moments, Moments.of(generated))
    else:
        result = frechet_of_features(context.features("reference", context.num_real), generated)
    value = Value(
        key=context.key("fid"),
        value=result.distance,
        std=None,
        count=count,
        better="lower",
        fields={**fields, **context.extractor_fields(), **context.generation_fields()},
        record={**record, "method": result.method},
    )
    return [value]
