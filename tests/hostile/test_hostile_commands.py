"""Tests of hostile command lines: exit status 0, 1 or 2, and never a traceback."""

import importlib
import json
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from evaluation.__main__ import main as evaluation
from gan.evaluate import main as gan_eval
from gan.plot import main as gan_plot
from gan.sample import main as gan_sample
from gan.train import main as gan_train

COMMANDS: dict[str, click.Command] = {
    "gan-train": gan_train,
    "gan-eval": gan_eval,
    "gan-sample": gan_sample,
    "gan-plot": gan_plot,
    "python -m evaluation": evaluation,
}
WRONG = [
    *("", "-1", "0", "x", "1e3", "0x10", "9" * 400, "nan", "inf", ".", "..", "/", "nowhere", "/dev/null", "日本"),
    *("\udcff", "x" * 5000, "folder", "file", "--help=x", "a,b,,", ",", "fid,fid", "train.steps=3", "seed=x"),
    *("cpu:9", "cuda:99"),
]
TYPED = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=10
)  # no system passes a zero byte


PASSED_OVER = ("--help", "--list", "--seeds", "--at-once")


def options_of(command: click.Command) -> list[tuple[str, bool]]:
    """Options of a command as (name, whether it takes a value), without those that only print or start processes."""
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    return [(option.opts[0], not option.is_flag) for option in options if option.opts[0] not in PASSED_OVER]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working folder with entries "folder" and "file" and no runs, so that relative names stay inside."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    return tmp_path


def ends_well(command: click.Command, arguments: list[str]) -> None:
    result = CliRunner().invoke(command, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), (arguments, result.exception)
    assert result.exit_code in (0, 2), (arguments, result.output)
    assert "Traceback" not in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_no_option_takes_nonsense(name: str) -> None:
    """Each option gets each wrong value, instead of and beside a valid one."""
    command = COMMANDS[name]
    for option, valued in options_of(command):
        for value in WRONG if valued else [""]:
            given_value = [option, value] if valued else [option]
            ends_well(command, [*BESIDE[name], *given_value])


BESIDE = {
    "gan-train": ["--config", "smoke", "--set", "data.name=folder", "--set", "data.root=folder", "--print-config"],
    "gan-eval": [],
    "gan-sample": [],
    "gan-plot": ["gradients", "folder"],
    "python -m evaluation": ["--generated", "folder"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_words_break_a_command(name: str) -> None:
    command = COMMANDS[name]
    names = [option for option, _ in options_of(command)]

    @given(st.lists(st.one_of(st.sampled_from(names), st.sampled_from(WRONG), TYPED), max_size=5))
    def check(arguments: list[str]) -> None:
        ends_well(command, [*BESIDE[name], *arguments])

    check()


@pytest.mark.parametrize("tool", ["prepare_dataset", "compare_runs"])
def test_no_option_of_a_tool_takes_nonsense(tool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "tools"))
    command: click.Command = importlib.import_module(tool).main
    for option, valued in options_of(command):
        for value in WRONG if valued else [""]:
            ends_well(command, [option, value] if valued else [option])
    ends_well(command, ["folder", "folder"])


def test_logs_that_are_none_are_one_sentence(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "tools"))
    command: click.Command = importlib.import_module("compare_runs").main
    for run, text in (("one", json.dumps({"step": "x"})), ("two", "[" * 100_000)):
        (here / run / "checkpoints").mkdir(parents=True)
        torch.save({"format": 1, "config": {}, "state": {"step": 1}}, here / run / "checkpoints" / "step-00000001.pt")
        (here / run / "metrics.jsonl").write_text(text)
    result = CliRunner().invoke(command, ["one", "two"])
    assert result.exit_code == 2, result.output
    assert "not readable as the log of a run" in result.output
