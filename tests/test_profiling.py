"""Tests of --profile: a trace is written, its most expensive parts are printed, and the run is unchanged."""

import json
from pathlib import Path

import torch
from commands import call, done

from gan.runs.checkpoint import read_checkpoint


def train(run: Path, *arguments: str) -> str:
    return done(call("gan-train", "--config=smoke", "--run", run, "--set=train.steps=8", *arguments)).output


def test_a_profile_names_phases_and_operations_and_changes_nothing(tmp_path: Path) -> None:
    told = train(tmp_path / "traced", "--profile")
    train(tmp_path / "plain")
    for part in ("mean of 3", "generator step", "discriminator step", "real images", "convolution_backward", "trace:"):
        assert part in told, told
    events = json.loads((tmp_path / "traced" / "profile" / "trace.json").read_text())["traceEvents"]
    names = [event.get("name") for event in events]
    assert names.count("generator step") == 3
    assert names.count("discriminator step") == 3 * 2
    one, other = (read_checkpoint(tmp_path / run).state for run in ("traced", "plain"))
    assert all(torch.equal(one["generator"][key], other["generator"][key]) for key in one["generator"])


def test_a_run_shorter_than_the_trace_still_ends_well(tmp_path: Path) -> None:
    assert "mean of 1" in train(tmp_path / "four", "--profile", "--set=train.steps=4")
    for steps in (1, 2, 3):
        told = train(tmp_path / str(steps), "--profile", f"--set=train.steps={steps}")
        assert "nothing traced" in told
        assert f"done: {steps} steps" in told


def test_a_profile_alone_ends_after_the_traced_steps(tmp_path: Path) -> None:
    told = train(tmp_path / "run", "--profile", "--stop-after", "6")
    assert "mean of 3" in told
    assert "stopped at step 6" in told


def test_a_trace_that_cannot_be_written_is_said_and_the_run_goes_on(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "profile").touch()
    told = train(tmp_path / "run", "--profile")
    assert "trace.json: cannot be written" in told
    assert "done: 8 steps" in told
