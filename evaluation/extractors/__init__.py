"""Networks that turn images into features, by name."""

from collections.abc import Callable

from evaluation.errors import EvaluationError
from evaluation.extractors.interface import Extractor, Sources


def _inception(sources: Sources) -> Extractor:
    from evaluation.extractors.inception import Inception

    return Inception.load(sources.weights, device=sources.device)


def _classifier(sources: Sources) -> Extractor:
    from evaluation.extractors.classifier import trained_classifier

    return trained_classifier(sources)


def _resnet(sources: Sources) -> Extractor:
    from evaluation.extractors.resnet import load_resnet

    return load_resnet(sources.classifier_weights, device=sources.device)


def _pixels(sources: Sources) -> Extractor:
    from evaluation.extractors.pixels import Pixels

    return Pixels()


def _clip(sources: Sources) -> Extractor:
    from evaluation.extractors.fidelity import load_clip

    return load_clip(sources.clip_weights, device=sources.device)


def _dinov2(sources: Sources) -> Extractor:
    from evaluation.extractors.fidelity import load_dinov2

    return load_dinov2(device=sources.device)


EXTRACTORS: dict[str, Callable[[Sources], Extractor]] = {
    "inception": _inception,
    "classifier": _classifier,
    "resnet": _resnet,
    "pixels": _pixels,
    "dinov2": _dinov2,
    "clip": _clip,
}


def build_extractors(names: str, sources: Sources) -> tuple[Extractor, ...]:
    """The extractors of names separated by commas.

    Raises:
        EvaluationError: see `build_extractor`; or no name.
    """
    wanted = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    if not wanted:
        raise EvaluationError(f"extractor: got {names!r}, expected one or several of {', '.join(EXTRACTORS)}")
    return tuple(build_extractor(name, sources) for name in wanted)


def build_extractor(name: str, sources: Sources) -> Extractor:
    """The extractor of that name.

    Raises:
        EvaluationError: an unknown name, or what it needs is missing.
    """
    if name not in EXTRACTORS:
        raise EvaluationError(f"extractor: got {name!r}, expected one of {', '.join(EXTRACTORS)}")
    return EXTRACTORS[name](sources)


__all__ = ["EXTRACTORS", "Extractor", "Sources", "build_extractor", "build_extractors"]
