"""What a person can cause and mend."""


class EvaluationError(ValueError):
    """Says where, what was got, what was expected, and what to do. Commands print it as one sentence."""
