"""Feature extractors by name."""

from collections.abc import Callable
from pkgutil import resolve_name

from evaluation.errors import EvaluationError
from evaluation.extractors.interface import Extractor, Sources


def _lazy(place: str) -> Callable[[Sources], Extractor]:
    """Returns a function that imports and calls "module:name" of this package."""
    return lambda sources: resolve_name(f"{__name__}.{place}")(sources)


EXTRACTORS: dict[str, Callable[[Sources], Extractor]] = {
    "inception": _lazy("inception:load_inception"),
    "classifier": _lazy("classifier:trained_classifier"),
    "resnet": _lazy("resnet:load_resnet"),
    "pixels": _lazy("pixels:Pixels"),
    "dinov2": _lazy("fidelity:load_dinov2"),
    "clip": _lazy("fidelity:load_clip"),
}


def build_extractors(names: str, sources: Sources) -> tuple[Extractor, ...]:
    """Builds the extractors of a comma-separated list of names.

    Raises:
        EvaluationError: see `build_extractor`; or the list is empty.
    """
    wanted = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    if not wanted:
        raise EvaluationError(f"extractor: got {names!r}, expected one or several of {', '.join(EXTRACTORS)}")
    return tuple(build_extractor(name, sources) for name in wanted)


def build_extractor(name: str, sources: Sources) -> Extractor:
    """Builds the extractor of that name.

    Raises:
        EvaluationError: an unknown name, or a missing file or image set.
    """
    if name not in EXTRACTORS:
        raise EvaluationError(f"extractor: got {name!r}, expected one of {', '.join(EXTRACTORS)}")
    return EXTRACTORS[name](sources)


__all__ = ["EXTRACTORS", "Extractor", "Sources", "build_extractor", "build_extractors"]
