"""Fréchet Inception distance (Heusel et al. 2017), and its floor, the FID between two samples of real images."""

from typing import Any

from evaluation.context import Context
from evaluation.errors import EvaluationError
from evaluation.reporting.value import Value
from evaluation.statistics.frechet import Gaussian, frechet
from evaluation.statistics.reference import check_reference


def check(context: Context) -> None:
    """Raises EvaluationError for a single image, or for statistics that do not fit the extractor, sizes and counts."""
    roles = {"generated": ("num_fid", context.required("num_fid")), "reference": ("num_real", context.num_real)}
    for role, (setting, count) in roles.items():
        if count == 1 and not (role == "reference" and context.statistics is not None):
            only = f"raise {context.setting(setting)}, which is 1"
            advice = only if context.settings.number(setting) == 1 else "give more"
            raise EvaluationError(
                f"metric fid: got 1 {role} image, expected at least 2, as a covariance needs; {advice}"
            )
    check_reference(context)
    if context.statistics is not None:
        for extractor in context.extractors:
            reference_moments(context.seen_by(extractor), context.widths(extractor)[0])


def measure(context: Context) -> list[Value]:
    """Measures FID of the first `num_fid` generated images against `num_real` reference images, and its floor."""
    floor = _floor(context) if context.settings.floor and context.statistics is None else []
    count = context.required("num_fid")
    generated = context.moments("generated", count)
    distance, method = frechet(reference_moments(context, len(generated.mean)), generated)
    fields = {"num_generated": count, **context.reference_fields()}
    record = {"method": method, **reference_record(context, count)}
    few = min(count, count if context.statistics is not None else context.num_real)
    if few <= len(generated.mean):
        note = (
            f"{context.key('fid')}: {few:,} images for {len(generated.mean):,} features bias it upwards; compare "
            "it only with values of equal numbers of images"
        )
        record["note"] = "; ".join(filter(None, (record.get("note"), note)))
    return [context.value("fid", distance, count, "lower", fields, record=record), *floor]


def reference_moments(context: Context, dimension: int) -> Gaussian:
    """Returns the moments of `num_real` reference images, or those of a statistics file after checking `dimension`."""
    if context.statistics is None:
        return context.moments("reference", context.num_real)
    moments, name = context.statistics.moments, context.statistics.name
    if len(moments.mean) != dimension:
        raise EvaluationError(
            f"{name}: got statistics of {len(moments.mean)} features, but extractor {context.current.name} has "
            f"{dimension}; give statistics that were computed with it"
        )
    return moments.to(context.float64_device)


def reference_record(context: Context, count: int) -> dict[str, Any]:
    """Returns the record of the reference, with a note if it is a statistics file, or has not `count` images.

    Args:
        count: number of generated images.
    """
    notes, name = [context.count_note(count)], context.reference_name
    if context.statistics is not None:
        origin, name = context.statistics.origin, context.statistics.name
        if origin is None:
            notes.append(
                f"the reference is statistics from {name}, which do not record how their features were computed"
            )
        else:
            name = f"{origin.reference}, by statistics from {name}"
    return {"reference": name, **({"note": "; ".join(filter(None, notes))} if any(notes) else {})}


def disjoint_counts(available: int, num_real: int, num_fid: int) -> tuple[int, int]:
    """Returns the sizes of two disjoint samples: the requested sizes, else the largest possible in the same ratio."""
    if num_real + num_fid <= available:
        return num_real, num_fid
    first = round(available * num_real / (num_real + num_fid))
    return first, available - first


def _floor(context: Context) -> list[Value]:
    """Measures FID between two disjoint samples of the reference, of the sizes that FID uses.

    If the reference is too small, smaller samples are compared, and the distance is scaled by its dependence on the
    sizes, c (1 / num_real + 1 / num_fid). Samples of fewer than two images give no value.
    """
    num_real, num_fid = context.num_real, context.required("num_fid")
    first, second = disjoint_counts(len(context.image_set("reference")), num_real, num_fid)
    if min(first, second) < 2:
        return []
    # The longer prefix comes first, so that one pass extracts all features.
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
    return [Value(context.key("fid_floor"), distance * scale, None, second, "", fields, record)]
