"""The commands, called in this process, and what their results are to be."""

from click.testing import CliRunner, Result

from gan.evaluate import main as gan_eval
from gan.evaluate_classifier import main as gan_eval_classifier
from gan.sample import main as gan_sample
from gan.train import main as gan_train
from gan.train_classifier import main as gan_train_classifier

COMMANDS = {
    "gan-train": gan_train,
    "gan-eval": gan_eval,
    "gan-sample": gan_sample,
    "gan-train-classifier": gan_train_classifier,
    "gan-eval-classifier": gan_eval_classifier,
}


def call(command: str, *arguments: object) -> Result:
    return CliRunner().invoke(COMMANDS[command], [str(argument) for argument in arguments], prog_name=command)


def done(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    return result


def refused(result: Result, *parts: str) -> None:
    """Exit status 2 and an error that holds these parts; no traceback."""
    assert result.exit_code == 2, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    for part in parts:
        assert part in result.output, result.output
