"""Networks that turn images into features, by name."""

from collections.abc import Callable
from pkgutil import resolve_name

from evaluation.errors import EvaluationError
from evaluation.extractors.interface import Extractor, Sources


def _lazy(place: str) -> Callable[[Sources], Extractor]:
    """A function "module:name" of this package that is imported when it is first called."""
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
        EvaluationError: an unknown name, or a missing file or image set.
    """
    if name not in EXTRACTORS:
        raise EvaluationError(f"extractor: got {name!r}, expected one of {', '.join(EXTRACTORS)}")
    return EXTRACTORS[name](sources)


__all__ = ["EXTRACTORS", "Extractor", "Sources", "build_extractor", "build_extractors"]
