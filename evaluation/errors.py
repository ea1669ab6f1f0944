"""User errors, and the check of names."""

import difflib
from collections.abc import Collection, Sequence


class EvaluationError(ValueError):
    """A user error: the message says what is wrong, what was expected and what to do. Commands print it alone."""


def check_names(kind: str, names: Sequence[str], known: Collection[str]) -> None:
    """Raises EvaluationError for an empty list or an unknown name; the message gives the nearest valid name."""
    listed = ", ".join(known)
    if isinstance(names, str) or not names:
        raise EvaluationError(f"{kind}: got {names!r}, expected a list of names from {listed}")
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise EvaluationError(f"{kind}: got {name!r}, expected one of {listed}{hint}")
