"""Loading of Matplotlib when something is drawn: without a folder for its cache, it cannot be imported.

Imports no torch.
"""

import logging
from functools import cache

from evaluation.errors import EvaluationError
from evaluation.runtime.files import first_line
from evaluation.runtime.terminal import say


def load_matplotlib() -> None:
    """Imports Matplotlib without its own lines about cache folders.

    Raises:
        EvaluationError: it cannot be imported, as on a read-only file system.
    """
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        import matplotlib.backends.backend_agg
        import matplotlib.figure  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        raise EvaluationError(f"no plots: {first_line(error)}") from error
    finally:
        logger.setLevel(level)


@cache
def can_draw() -> bool:
    """Whether figures can be drawn; if not, prints the reason once on stderr."""
    try:
        load_matplotlib()
    except EvaluationError as error:
        say(str(error))
        return False
    return True
