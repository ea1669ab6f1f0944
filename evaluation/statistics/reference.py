"""Statistics of a context's reference images: their file, and whether a file fits a context."""

from pathlib import Path

from evaluation.context import Context
from evaluation.errors import EvaluationError
from evaluation.extractors import Extractor
from evaluation.runtime.processes import is_first
from evaluation.statistics.moments_file import Origin, write_statistics


def write_reference(context: Context, path: Path) -> Origin:
    """Writes the statistics of the `num_real` reference images with which FID compares.

    Raises:
        EvaluationError: several extractors, too few images, or the file cannot be written.
    """
    if len(context.extractors) != 1:
        names = ", ".join(extractor.name for extractor in context.extractors)
        raise EvaluationError(f"statistics: got extractors {names}, expected one; write a file for each")
    count, available = context.num_real, len(context.image_set("reference"))
    if not 2 <= count <= available:
        raise EvaluationError(
            f"statistics: got {available} reference images, expected {max(count, 2)}; give more, or lower "
            f"{context.setting('num_real')}"
        )
    moments = context.moments("reference", count)
    origin = Origin(
        reference=context.reference_name,
        num_images=count,
        image_size=context.generation_fields()["image_size"],
        extractor=context.current.name,
        images=context.image_fields(count),
        features=context.extractor_fields(),
    )
    if is_first():
        write_statistics(path, moments, origin)
    return origin


def check_reference(context: Context) -> None:
    """Raises EvaluationError if a file's origin is recorded and differs from what the context measures with."""
    if context.statistics is None or context.statistics.origin is None:
        return
    origin, name = context.statistics.origin, context.statistics.name
    for extractor in context.extractors:
        _check_extractor(origin, name, extractor, context.seen_by(extractor))
    wanted, setting = context.settings.number("num_real"), context.setting("num_real")
    if wanted not in (0, origin.num_images):
        raise EvaluationError(
            f"{name}: got statistics of {origin.num_images:,} images, expected {wanted:,}; set {setting} to "
            f"{origin.num_images} or 0, or write statistics with this {setting}"
        )
    made = context.image_set("generated").images.shape[2:] if context.has("generated") else context.image_size
    if made is not None and "{}x{}".format(*made) != origin.image_size:
        raise EvaluationError(
            f"{name}: got statistics of images of {origin.image_size}, expected {'{}x{}'.format(*made)} as the "
            "generated images; resize one set beforehand"
        )


def _check_extractor(origin: Origin, name: str, extractor: Extractor, context: Context) -> None:
    ours = context.extractor_fields()
    if ours == origin.features:
        return
    names = [field for field in {**ours, **origin.features} if ours.get(field) != origin.features.get(field)]
    raise EvaluationError(
        f"{name}: got statistics of extractor {origin.extractor}, expected those of {extractor.name} "
        f"({', '.join(names)} differ); choose the file's extractor, or write statistics with this one"
    )
