"""Statistics of a context's reference images: their file, and whether a file fits a context."""

from pathlib import Path

from evaluation.context import Context
from evaluation.errors import EvaluationError
from evaluation.extractors import Extractor
from evaluation.runtime.processes import is_first
from evaluation.settings import Settings
from evaluation.statistics.moments_file import Origin, check_target, write_statistics


def check_writing(settings: Settings, path: Path) -> None:
    """Raises EvaluationError if statistics cannot be written: several extractors, or a file that cannot be written."""
    names = settings.extractor.split(",")
    if len(names) != 1:
        raise EvaluationError(
            f"statistics: got extractors {', '.join(map(str.strip, names))}, expected one; write a file for each"
        )
    check_target(path)


def check_count(context: Context) -> None:
    """Raises EvaluationError if there are fewer than `num_real` reference images, or fewer than two."""
    count, available, setting = context.num_real, len(context.image_set("reference")), context.setting("num_real")
    if available < 2 or count == 1:
        advice = f"raise {setting}, which is 1" if context.settings.number("num_real") == 1 else "give more"
        raise EvaluationError(
            f"statistics: got 1 reference image, expected at least 2, as a covariance needs; {advice}"
        )
    if count > available:
        raise EvaluationError(
            f"statistics: got {available} reference images, expected {count}; give more, or lower {setting}"
        )


def write_reference(context: Context, path: Path) -> Origin:
    """Writes the statistics of the `num_real` reference images with which FID compares.

    Raises:
        EvaluationError: see `check_writing` and `check_count`.
    """
    check_count(context)
    count = context.num_real
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
