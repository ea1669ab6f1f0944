"""Calls of the commands and tools in this process, and checks of their results."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner, Result

from gan.evaluate import main as gan_eval
from gan.evaluate_classifier import main as gan_eval_classifier
from gan.export import main as gan_export
from gan.plot import main as gan_plot
from gan.sample import main as gan_sample
from gan.train import main as gan_train
from gan.train_classifier import main as gan_train_classifier

COMMANDS = {
    "gan-train": gan_train,
    "gan-eval": gan_eval,
    "gan-sample": gan_sample,
    "gan-plot": gan_plot,
    "gan-export": gan_export,
    "gan-train-classifier": gan_train_classifier,
    "gan-eval-classifier": gan_eval_classifier,
}


TOOLS = Path(__file__).resolve().parent.parent / "tools"


def load_tool(name: str) -> ModuleType:
    """Imports a module of tools/, which import each other by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TOOLS))
        return importlib.import_module(name)


def call_tool(name: str, *arguments: object) -> Result:
    """Calls a tool with arguments."""
    return CliRunner().invoke(load_tool(name).main, [str(argument) for argument in arguments], prog_name=name)


def call(command: str, *arguments: object) -> Result:
    """Calls a command with arguments."""
    return CliRunner().invoke(COMMANDS[command], [str(argument) for argument in arguments], prog_name=command)


def done(result: Result) -> Result:
    """Asserts that a command succeeded."""
    assert result.exit_code == 0, result.output
    return result


def refused(result: Result, *parts: str) -> None:
    """Asserts exit status 2 and an error that contains these parts, without a traceback."""
    assert result.exit_code == 2, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    for part in parts:
        assert part in result.output, result.output
