"""Checks evaluation settings before data or networks are loaded."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from evaluation import EXTRACTORS, METRICS, Context, EvaluationError
from evaluation.generalization.values import MEASURES
from evaluation.metrics.needs import ranked
from evaluation.runner import check_metrics
from evaluation.runtime.files import check_writable
from gan.build import OWN, REGISTRIES, choose
from gan.build_classifier import classifier_registries
from gan.config import Config
from gan.config.imported import check_present
from gan.errors import ConfigError, UserError
from gan.runs.checkpoint import Checkpoint


def registries() -> Mapping[str, Mapping[str, object]]:
    """Returns the names that evaluation settings accept."""
    return {"eval.metrics": METRICS, "eval.extractor": EXTRACTORS}


def check_imports(checkpoint: Checkpoint) -> None:
    """Raises ConfigError if a name of imported code, which measuring a checkpoint needs, is missing."""
    names = {**REGISTRIES, **classifier_registries(), **registries(), "eval.metrics": {**METRICS, **MEASURES}}
    check_present(checkpoint.imports, names, checkpoint.path)


@contextmanager
def user_errors() -> Iterator[None]:
    """Context manager: turns an EvaluationError into a UserError, whose message commands print without a traceback."""
    try:
        yield
    except EvaluationError as error:
        raise UserError(str(error)) from None


def parse_metrics(text: str) -> list[str]:
    """Parses names of metrics separated by commas, such as "fid, is".

    Raises:
        UserError: a name is unknown or empty, or there is none.
    """
    names = [name.strip() for name in text.split(",")] if text.strip() else []
    try:
        check_metrics(names)
    except EvaluationError as error:
        raise UserError(f"{error}{OWN if any(name not in METRICS for name in names) else ''}") from None
    return names


def check_place(folder: Path, subject: str = "a report") -> None:
    """Raises UserError if the subject cannot be written into a folder, which may be missing."""
    try:
        check_writable(folder)
    except OSError as error:
        raise UserError(
            f"{folder}: {subject} cannot be written: {error.filename}: {error.strerror}; choose another --out"
        ) from None


def check_evaluation(config: Config) -> None:
    """Raises UserError for an unknown metric or extractor, or a train.keep_best that evaluations do not measure."""
    names = parse_metrics(config.eval.metrics)
    _check_best(config, names)
    for name in config.eval.extractor.split(","):
        choose(EXTRACTORS, name.strip(), "eval.extractor")


def check_generation(config: Config, names: list[str]) -> None:
    """Checks what the settings alone tell about measuring the images of a generator.

    Raises:
        UserError: a metric needs a positive number of images, but the setting is 0; a metric per class needs a
            conditional generator and eval.labels=balanced; or numbers of images are too small for a metric.
    """
    with user_errors():
        for name in names:
            _check_labels(config, name)
            for setting in {"num_fid", "num_is", "num_intra"} & set(METRICS[name].images.values()):
                if not config.eval.number(setting):
                    by = "" if getattr(config.eval, setting) == 0 else f" (protocol {config.eval.protocol})"
                    raise EvaluationError(
                        f"metric {name}: got eval.{setting}=0{by}, which means all images of a folder, expected a "
                        f"positive number of images to generate: set eval.{setting}"
                    )
            METRICS[name].check(Context(settings=config.eval))


def _check_labels(config: Config, name: str) -> None:
    """Raises EvaluationError for a metric that needs labels, unless the generator is conditional and they suit it.

    Metrics per class need equally many images of each class; GAN-test and GAN-train also take the data's shares.
    """
    if not METRICS[name].labels:
        return
    if not config.conditional:
        raise EvaluationError(
            f"metric {name}: got an unconditional generator, expected images of known classes; "
            "leave the metric out, or train with conditional=true"
        )
    per_class = "num_intra" in METRICS[name].images.values()
    accepted = ("balanced",) if per_class else ("balanced", "data")
    if config.eval.labels not in accepted:
        expected = "equally many images of each class" if per_class else "class counts that are not random"
        raise EvaluationError(
            f"metric {name}: got eval.labels={config.eval.labels}, expected {expected}: set "
            f"eval.labels={' or '.join(accepted)}"
        )


def _check_best(config: Config, names: list[str]) -> None:
    """Raises ConfigError unless train.keep_best names exactly one measured value that has a better direction."""
    best, extractors = config.train.keep_best, config.eval.extractor.split(",")
    if not best:
        return
    if not config.train.eval_every:
        raise ConfigError(f"train.keep_best: got {best!r}, expected evaluations during training: set train.eval_every")
    choices = {key: name for name in names for key in ranked(name, METRICS[name], config.eval)}
    found = [key for key in choices if best == key or (METRICS[choices[key]].extractor and best.startswith(f"{key}/"))]
    if not found:
        raise ConfigError(
            f"train.keep_best: got {best!r}, expected one of {', '.join(choices) or 'a metric that can be ranked'}"
        )
    if len(extractors) > 1 and METRICS[choices[found[0]]].extractor and best == found[0]:
        raise ConfigError(
            f"train.keep_best: got {best!r} with several extractors, expected the name of one, too, such as "
            f"{best}/{extractors[0].strip()}"
        )
