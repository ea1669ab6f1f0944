"""Evaluates a folder of generated images against folders of real ones."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from evaluation.context import Context
from evaluation.errors import EvaluationError
from evaluation.extractors import EXTRACTORS, Sources, build_extractors
from evaluation.images.cache import default_cache
from evaluation.images.checks import without_colours
from evaluation.images.generated import chosen_resize, colour_notes, match_classes, name_classes, read_generated
from evaluation.images.reader import Images, read_images
from evaluation.metrics import METRICS
from evaluation.metrics.needs import check_images
from evaluation.reporting.report import Report
from evaluation.runner import check_metrics, evaluate
from evaluation.runtime.files import array_names
from evaluation.settings import Settings
from evaluation.statistics.moments_file import Origin, read_statistics
from evaluation.statistics.reference import check_count, check_writing, write_reference

Read = Callable[..., Images]
"""Function with the arguments of `read_images`."""


class _Images(NamedTuple):
    """A set as `Images` has it, or none."""

    images: Tensor | None = None
    labels: Tensor | None = None
    class_names: tuple[str, ...] = ()
    split: str = ""

    @classmethod
    def of(cls, read: Images) -> "_Images":
        """Returns a set that was read, with one channel if it has no colours."""
        return cls(*read._replace(images=without_colours(read.images)))

    def named(self, path: Path | None) -> str:
        """Returns the name of a set in reports, with the split that was read, such as "photos, train"."""
        split = f", {self.split}" if self.split and not str(path).endswith(f":{self.split}") else ""
        return f"{path or ''}{split}"

    def counted(self, path: Path | None) -> str:
        """Returns the name with the number of images, such as "photos, train, 1,200 images"."""
        return self.named(path) + ("" if self.images is None else f", {len(self.images):,} images")


def registries() -> Mapping[str, Iterable[str]]:
    """Returns the names that options accept, by option; metrics that need a discriminator are left out."""
    return {"--metrics": [name for name, metric in METRICS.items() if not metric.critic], "--extractor": EXTRACTORS}


def measure_folders(
    generated: Path,
    reference: Path | None,
    test: Path | None,
    device: str,
    settings: Settings,
    read: Read = read_images,
) -> Report:
    """Measures the metrics of generated images against real ones.

    Of a reference that is divided into splits, the split of the protocol is read, of test images the test split; see
    `read_images`.

    Args:
        reference, test: real images; None if no metric needs them.
        read: reads the real images.

    Raises:
        EvaluationError: invalid metrics, images, settings or device.
    """
    names = [name.strip() for name in settings.metrics.split(",") if name.strip()]
    check_metrics(names)
    _check_no_critic(names)
    context = _context(generated, reference, test, _device(device), settings, read)
    for name in names:
        check_images(name, METRICS[name], context)
    if any(METRICS[name].extractor for name in names):
        context = _with_extractors(context)
    return evaluate(names, context)


def write_folder_statistics(
    reference: Path, device: str, settings: Settings, file: Path, read: Read = read_images
) -> Origin:
    """Writes the statistics of real images, with which FID can be measured in place of the images.

    Raises:
        EvaluationError: invalid images, settings or device, or the file cannot be written.
    """
    if settings.reference_statistics or _holds_statistics_only(reference):
        raise EvaluationError("--write-statistics: got statistics as the reference, expected images")
    check_writing(settings, file)
    context = _context(None, reference, None, _device(device), settings, read)
    check_count(context)
    return write_reference(_with_extractors(context), file)


def _with_extractors(context: Context) -> Context:
    extractors = build_extractors(context.settings.extractor, _sources(context))
    return context.of(context.generated, context.generated_labels, extractor=extractors)


def _check_no_critic(names: list[str]) -> None:
    for name in names:
        if METRICS[name].critic:
            raise EvaluationError(
                f"metric {name}: needs a discriminator, but only images are given; leave the metric out, "
                "or measure it in Python with Context(critic=...)"
            )


def _context(
    generated: Path | None,
    reference: Path | None,
    test: Path | None,
    device: torch.device,
    settings: Settings,
    read: Read,
) -> Context:
    resize, split = chosen_resize(settings), settings.split
    made, protocol = _Images(), dict[str, Any]()
    if generated is not None:
        found = read_generated(generated, seed=settings.seed, split=split, resize=resize)
        made, protocol = _Images(found.images, found.labels, found.class_names, found.split), found.protocol
    moments = Path(settings.reference_statistics) if settings.reference_statistics else None
    if reference is not None and moments is None and _holds_statistics_only(reference):
        reference, moments = None, reference
    real = _Images() if reference is None else _Images.of(read(reference, split, resize, strict=split == "test"))
    held_out = _Images() if test is None else _Images.of(read(test, "test", resize, strict=True))
    classes = name_classes(real.labels, real.class_names)
    needed = any(METRICS[name.strip()].labels for name in settings.metrics.split(",") if name.strip())
    names = [one.named(path) for one, path in ((made, generated), (real, reference), (held_out, test))]
    subject: dict[str, Any] = dict(zip(("generated", "reference", "test"), names, strict=True))
    compared = held_out.images if real.images is None else real.images
    return Context(
        generated=made.images,
        generated_labels=match_classes(made.labels, made.class_names, classes, str(generated), needed=needed),
        reference=real.images,
        reference_labels=real.labels,
        test=held_out.images,
        test_labels=match_classes(held_out.labels, held_out.class_names, classes, str(test), needed=needed),
        statistics=None if moments is None else read_statistics(moments),
        settings=settings,
        cache=default_cache() if settings.cache else None,
        class_names=classes or name_classes(made.labels, made.class_names),
        device=device,
        protocol=protocol,
        subject={**subject, "reference_statistics": str(moments), "notes": colour_notes(made.images, compared)},
        title=f"{names[0]} against {names[1] or moments or names[2]}",
        reference_name=real.counted(reference) or str(moments or ""),
        test_name=held_out.counted(test),
    )


def _holds_statistics_only(reference: Path) -> bool:
    arrays = array_names(reference)
    return {"mu", "sigma"} <= arrays and not {"images", "arr_0"} & arrays


def _sources(context: Context) -> Sources:
    settings = context.settings
    weights = settings.inception_weights, settings.clip_weights, settings.classifier_weights
    inception, clip, classifier = (Path(file) if file else None for file in weights)
    return Sources(
        device=context.device,
        weights=inception,
        clip_weights=clip,
        classifier_weights=classifier,
        images=context.reference,
        labels=context.reference_labels,
        test_images=context.test,
        test_labels=context.test_labels,
    )


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise EvaluationError(f"--device: got {name!r}, expected a device such as cpu, cuda or cuda:1") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise EvaluationError(
            f"--device: got {name}, but PyTorch sees {torch.cuda.device_count()} CUDA devices; use cpu"
        )
    return device


__all__ = ["measure_folders", "registries", "write_folder_statistics"]
