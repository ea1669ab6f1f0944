"""Errors that a user can cause and correct. Commands print the message only, without a traceback."""


class UserError(ValueError):
    """An error whose message says what is wrong and where, what was expected, and what to do."""


class ConfigError(UserError):
    """A setting or a command-line argument that cannot be used."""


class DataError(UserError):
    """A data set that is missing, damaged or does not match the configuration."""


class DivergenceError(UserError):
    """A run with NaN or infinite values, or one that has collapsed.

    Attributes:
        since: last step with a good state.
    """

    def __init__(self, message: str, since: int = 0) -> None:
        super().__init__(message)
        self.since = since


class CheckpointError(UserError):
    """A checkpoint or run folder that is missing, damaged, unreadable or does not fit the configuration."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint file that is truncated, modified or not from this program."""
