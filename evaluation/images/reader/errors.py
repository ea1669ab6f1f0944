"""Error of the reader, by which training and evaluation tell its messages from other errors."""

from evaluation.errors import EvaluationError


class ReadError(EvaluationError):
    """Images that are missing or damaged, or a layout of files that is not understood."""
