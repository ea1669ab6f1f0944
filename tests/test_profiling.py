"""Tests of --profile: a trace is written, its most expensive parts are printed, and the run is unchanged."""

import json
from pathlib import Path

import torch
from commands import call, done
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEventAvg

from gan.runs.checkpoint import read_checkpoint
from gan.runtime.profiling import summary


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


def row(
    name: str, microseconds: int, count: int = 3, *, on_gpu: bool = False, is_range: bool = False
) -> FunctionEventAvg:
    """A row of torch's averages. The time of an operation's kernels is also in the row of the operation."""
    made = FunctionEventAvg()
    made.key, made.count, made.is_user_annotation = name, count, is_range
    made.device_type = DeviceType.CUDA if on_gpu else DeviceType.CPU
    made.device_time_total = made.self_device_time_total = microseconds
    made.cpu_time_total = made.self_cpu_time_total = 0 if on_gpu else 2 * microseconds
    return made


ON_GPU = [
    *(row("ProfilerStep*", 0, is_range=True), row("ProfilerStep*", 3300, on_gpu=True, is_range=True)),
    *(row("iteration", 1500, is_range=True), row("iteration", 3000, on_gpu=True, is_range=True)),
    *(row("generator step", 300, is_range=True), row("generator step", 1200, on_gpu=True, is_range=True)),
    *(row("inputs", 30, is_range=True), row("Optimizer.step#Adam.step", 90, on_gpu=True, is_range=True)),
    *(row("aten::convolution", 1200, 9), row("cudaLaunchKernel", 0, 18), row("Optimizer.step#Adam.step", 0)),
    *(row("sm90_gemm", 1200, 9, on_gpu=True), row("Memcpy HtoD (Pinned -> Device)", 300, 6, on_gpu=True)),
]
"""Rows of three iterations of 1 ms, 0.5 ms of them in kernels; the range "inputs" launches none."""


def test_on_a_gpu_ranges_have_two_rows_and_kernels_count_once() -> None:
    assert summary(ON_GPU).splitlines() == [
        "per iteration (mean of 3), on the device: time, share, calls",
        "      0.40 ms  40.0%        1 x  generator step",
        "kernels:",
        "      0.40 ms  40.0%        3 x  sm90_gemm",
        "      0.10 ms  10.0%        2 x  Memcpy HtoD (Pinned -> Device)",
    ]


def test_a_graph_has_kernels_and_no_phases() -> None:
    names = ("generator step", "inputs", "aten::convolution")
    told = summary([event for event in ON_GPU if event.key not in names])
    assert "sm90_gemm" in told
    assert "generator step" not in told


def test_without_recorded_kernels_times_are_the_hosts() -> None:
    told = summary([event for event in ON_GPU if event.device_type == DeviceType.CPU])
    assert "on the host" in told
    assert "0.20 ms  20.0%        1 x  generator step" in told
    assert "aten::convolution" in told
