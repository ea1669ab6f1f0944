"""Evaluates a folder of generated images against folders of real ones."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from evaluation.context import Context
from evaluation.errors import EvaluationError
from evaluation.extractors import EXTRACTORS, Sources, build_extractors
from evaluation.images.cache import Cache, default_folder
from evaluation.images.generated import match_classes, name_classes, read_generated
from evaluation.images.reader import read_images
from evaluation.metrics import METRICS
from evaluation.reporting.report import Report
from evaluation.runner import check_metrics, evaluate
from evaluation.runtime.files import array_names
from evaluation.settings import Settings
from evaluation.statistics.moments_file import read_statistics


def registries() -> Mapping[str, Iterable[str]]:
    """Returns the names that options accept, by option; metrics that need a discriminator are left out."""
    return {"--metrics": [name for name, metric in METRICS.items() if not metric.critic], "--extractor": EXTRACTORS}


def measure_folders(
    generated: Path, reference: Path | None, test: Path | None, device: str, settings: Settings
) -> Report:
    """Measures the metrics of generated images against real ones.

    Args:
        reference, test: real images; None if no metric needs them.

    Raises:
        EvaluationError: invalid metrics, images, settings or device.
    """
    names = [name.strip() for name in settings.metrics.split(",") if name.strip()]
    check_metrics(names)
    _check_no_critic(names)
    context = _context(generated, reference, test, _device(device), settings)
    if any(METRICS[name].extractor for name in names):
        extractors = build_extractors(settings.extractor, _sources(context))
        context = context.of(context.generated, context.generated_labels, extractor=extractors)
    return evaluate(names, context)


def _check_no_critic(names: list[str]) -> None:
    for name in names:
        if METRICS[name].critic:
            raise EvaluationError(
                f"metric {name}: needs a discriminator, but only images are given; leave the metric out, "
                "or measure it in Python with Context(critic=...)"
            )


def _context(
    generated: Path, reference: Path | None, test: Path | None, device: torch.device, settings: Settings
) -> Context:
    images, labels, class_names, protocol = read_generated(generated, seed=settings.seed)
    moments = Path(settings.reference_statistics) if settings.reference_statistics else None
    if reference is not None and moments is None and _holds_statistics_only(reference):
        reference, moments = None, reference
    real, real_labels, real_names = (None, None, ()) if reference is None else read_images(reference)
    held_out, held_out_labels, held_out_names = (None, None, ()) if test is None else read_images(test)
    classes = name_classes(real_labels, real_names)
    needed = any(METRICS[name.strip()].labels for name in settings.metrics.split(",") if name.strip())
    return Context(
        generated=images,
        generated_labels=match_classes(labels, class_names, classes, generated, needed=needed),
        reference=real,
        reference_labels=real_labels,
        test=held_out,
        test_labels=match_classes(held_out_labels, held_out_names, classes, str(test), needed=needed),
        statistics=None if moments is None else read_statistics(moments),
        settings=settings,
        cache=Cache(default_folder()) if settings.cache else None,
        class_names=classes or name_classes(labels, class_names),
        device=device,
        protocol=protocol,
        subject={
            "generated": str(generated),
            "reference": str(reference),
            "reference_statistics": str(moments),
            "test": str(test),
        },
        title=f"{generated} against {reference or moments or test}",
        reference_name=str(reference or moments or ""),
        test_name=str(test or ""),
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


__all__ = ["measure_folders", "registries"]
