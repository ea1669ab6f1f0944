"""Checks evaluation settings before data or networks are loaded."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from evaluation import EXTRACTORS, METRICS, EvaluationError
from evaluation.runner import check_metrics
from gan.build import choose
from gan.config import Config
from gan.errors import ConfigError, UserError


def registries() -> Mapping[str, Iterable[str]]:
    """Returns the names that evaluation settings accept."""
    return {"eval.metrics": METRICS, "eval.extractor": EXTRACTORS}


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
    with user_errors():
        check_metrics(names)
    return names


def check_evaluation(config: Config) -> None:
    """Raises UserError for an unknown metric or extractor, or a train.keep_best that evaluations do not measure."""
    names = parse_metrics(config.eval.metrics)
    _check_best(config, names)
    for name in config.eval.extractor.split(","):
        choose(EXTRACTORS, name.strip(), "eval.extractor")


def _check_best(config: Config, names: list[str]) -> None:
    """Raises ConfigError unless train.keep_best names exactly one measured value that has a better direction."""
    best, several = config.train.keep_best, "," in config.eval.extractor
    if not best:
        return
    if not config.train.eval_every:
        raise ConfigError(f"train.keep_best: got {best!r}, expected evaluations during training: set train.eval_every")
    directed = {name: METRICS[name].directed for name in names}
    choices = {key: name for name, keys in directed.items() for key in (keys if keys is not None else (name,))}
    found = [key for key in choices if best == key or best.startswith(f"{key}/")]
    if not found:
        raise ConfigError(
            f"train.keep_best: got {best!r}, expected one of {', '.join(choices) or 'a metric that can be ranked'}"
        )
    if several and METRICS[choices[found[0]]].extractor and best == found[0]:
        raise ConfigError(
            f"train.keep_best: got {best!r} with several extractors, expected the full name, such as {best}/inception"
        )
