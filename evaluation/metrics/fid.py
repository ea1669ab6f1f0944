"""Fréchet Inception distance, and how large it is between two samples of the real images. Heusel et al. 2017."""

from typing import Any

from evaluation.context import Context
from evaluation.errors import EvaluationError
from evaluation.reporting.value import Value
from evaluation.statistics.frechet import Gaussian, frechet


def measure(context: Context) -> list[Value]:
    """FID of the first `num_fid` generated images against `num_real` reference images, and its floor."""
    floor = _floor(context) if context.settings.floor and context.statistics is None else []
    count = context.required("num_fid")
    generated = context.moments("generated", count)
    distance, method = frechet(reference_moments(context, len(generated.mean)), generated)
    fields = {"num_generated": count, **context.reference_fields()}
    value = Value(
        key=context.key("fid"),
        value=distance,
        std=None,
        count=count,
        better="lower",
        fields={**fields, **context.extractor_fields(), **context.generation_fields()},
        record={"method": method, **reference_record(context)},
    )
    return [value, *floor]


def reference_moments(context: Context, dimension: int) -> Gaussian:
    """Of `num_real` reference images, or of the file that stands for them.

    Raises:
        EvaluationError: a file of another dimension than that of the generated features.
    """
    if context.statistics is None:
        return context.moments("reference", context.num_real)
    moments, name = context.statistics.moments, context.statistics.name
    if len(moments.mean) != dimension:
        raise EvaluationError(
            f"{name}: got statistics of {len(moments.mean)} features, but extractor {context.current.name} has "
            f"{dimension}; give statistics that were made with it"
        )
    return moments


def reference_record(context: Context) -> dict[str, Any]:
    """What generated images were compared with, and a note where nobody can tell how it was made."""
    if context.statistics is None:
        return {"reference": context.reference_name}
    name = context.statistics.name
    note = f"the reference is statistics from {name}, which do not say how their features were made"
    return {"reference": name, "note": note}


def disjoint_counts(available: int, num_real: int, num_fid: int) -> tuple[int, int]:
    """How many images two draws without a common image can have: what is asked for, or the most in the same ratio."""
    if num_real + num_fid <= available:
        return num_real, num_fid
    first = round(available * num_real / (num_real + num_fid))
    return first, available - first


def _floor(context: Context) -> list[Value]:
    """FID between two disjoint draws of the reference, at the counts of FID; none where there are hardly any images.

    Where the reference is too small, smaller draws are compared, and the distance is brought to the counts asked for
    by its law c (1 / num_real + 1 / num_fid).
    """
    num_real, num_fid = context.num_real, context.required("num_fid")
    first, second = disjoint_counts(len(context.image_set("reference")), num_real, num_fid)
    if min(first, second) < 2:
        return []
    # The longer prefix first: its features then come from one pass.
    other = context.moments("reference", first + second, start=first)
    distance, method = frechet(context.moments("reference", first), other)
    scale = (1 / num_real + 1 / num_fid) / (1 / first + 1 / second)
    record: dict[str, Any] = {"reference": context.reference_name, "method": method, "scale": scale}
    if scale != 1:
        record["note"] = (
            f"{context.key('fid_floor')}: measured between {first:,} and {second:,} real images and multiplied by "
            f"{scale:.3g}, because there are too few for {num_real:,} and {num_fid:,}"
        )
    fields = {
        "protocol_version": context.generation_fields()["protocol_version"],
        "num_real": [num_real, num_fid],
        "drawn": [first, second],
        "seed": context.settings.seed,
        **context.set_fields("reference", first + second),
        **context.extractor_fields(),
    }
    value = Value(context.key("fid_floor"), distance * scale, None, second, "", fields, record)
    return [value]
