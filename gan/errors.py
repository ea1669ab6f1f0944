"""What a person can cause and mend. Commands print these as one sentence, without a traceback."""


class UserError(ValueError):
    """Says where, what was got, what was expected, and what to do."""


class ConfigError(UserError):
    """A setting or a command-line argument that cannot be used."""


class DataError(UserError):
    """A data set that is missing, damaged or not what the configuration says."""


class DivergenceError(UserError):
    """A run whose numbers are no longer finite, or that has collapsed.

    since: the last step whose state is known to be good.
    """

    def __init__(self, message: str, since: int = 0) -> None:
        super().__init__(message)
        self.since = since


class CheckpointError(UserError):
    """A checkpoint or run folder that is missing, damaged, foreign or does not fit the configuration."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint that is not what was written: truncated, changed or another program's."""
