"""Tests of tools/gpu_check.py: choice and execution of steps, verdicts, and a rehearsal of every step."""

import importlib
import json
import sys
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from commands import TOOLS, call_tool, refused

PAGE = (TOOLS.parent / "docs" / "performance.md").read_text()
LARGEST = 16 * 2**20


@pytest.fixture
def checking(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Modules of tools/checking by name."""
    monkeypatch.syspath_prepend(str(TOOLS))
    names = ("conditions", "plan", "goals", "running", "steps.suite", "steps.iterations")
    return SimpleNamespace(**{name.split(".")[-1]: importlib.import_module(f"checking.{name}") for name in names})


def test_the_steps_of_a_group_fit_into_its_time(checking: SimpleNamespace) -> None:
    for group, seconds in checking.plan.GROUPS.items():
        steps = [step for step in checking.plan.STEPS.values() if step.group == group]
        assert steps
        assert sum(step.seconds for step in steps) <= seconds


def test_every_step_names_a_function(checking: SimpleNamespace) -> None:
    for step in checking.plan.STEPS.values():
        module, function = step.function.split(":")
        assert f"def {function}(conditions: Conditions)" in (TOOLS / f"checking/steps/{module}.py").read_text()


def test_steps_are_chosen_by_name_and_by_group(checking: SimpleNamespace) -> None:
    choose, steps = checking.plan.chosen_steps, checking.plan.STEPS
    assert choose(["measure", "machine"], images=False)[0] == "machine"
    assert {steps[name].group for name in choose([], images=False)} == {"validate", "measure"}
    assert choose([], images=True) == list(steps)
    assert choose(["train"], images=True) == ["training"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="is refused without a GPU only")
def test_without_a_gpu_one_sentence_says_so(tmp_path: Path) -> None:
    result = call_tool("gpu_check", "--out", tmp_path / "out")
    refused(result, "finds no GPU here: run it on a machine with one, or add --cpu-rehearsal")
    assert len(result.output.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_options_are_refused_before_anything_runs(tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out", "--cpu-rehearsal")
    refused(
        call_tool("gpu_check", "--only=iterations", *out), "'iterations', expected names of steps or groups", "tests"
    )
    refused(call_tool("gpu_check", "--only=training", "--out", tmp_path / "out"), "training without --images")
    refused(call_tool("gpu_check", "--images=nowhere", *out), "--images: nowhere does not exist; expected a folder")
    assert not (tmp_path / "out").exists()


STEP = """
import json, subprocess, sys, time
from pathlib import Path
name, wanted, record = sys.argv[1:]
Path(record).write_text(json.dumps({"seconds": json.loads(wanted)["seconds"]}))
if name == "profile":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    Path(json.loads(wanted)["out"], "child").write_text(str(child.pid))
    time.sleep(60)
if name == "variants":
    sys.exit("no memory left")
"""


@pytest.fixture
def run(checking: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs steps whose process is `STEP`; returns the results and those of the file after each step."""
    (tmp_path / "step.py").write_text(STEP)
    monkeypatch.setattr(checking.running, "COMMAND", [sys.executable, str(tmp_path / "step.py")])
    monkeypatch.setattr(checking.running, "SHORTEST", 0.01)
    files: list[Any] = []

    def say(line: str) -> None:
        file = tmp_path / checking.running.RESULTS
        files.append(json.loads(file.read_text()) if file.exists() else None)

    def run(names: list[str], minutes: float, **limits: float) -> tuple[Any, list[Any]]:
        conditions = checking.conditions.Conditions("cuda", False, 0.0, tmp_path)
        return checking.running.run_steps(names, conditions, minutes, say, limits), files

    return run


def test_a_step_that_fails_or_takes_too_long_leaves_the_others(run: Any, tmp_path: Path) -> None:
    results, files = run(["profile", "variants", "machine"], 1, profile=3.0)
    states = {name: step["state"] for name, step in results["steps"].items()}
    assert states == {"profile": "stopped after 3 s", "variants": "failed with status 1", "machine": "done"}
    assert results["steps"]["profile"]["record"] == {"seconds": 3.0}, "what it wrote before it was stopped"
    assert "no memory left" in results["steps"]["variants"]["output"]
    assert "output" not in results["steps"]["machine"]
    written = dict.fromkeys(tuple(file["steps"]) if file else () for file in files)
    assert list(written) == [(), ("profile",), ("profile", "variants"), tuple(states)]
    child = Path("/proc", (tmp_path / "child").read_text(), "status")
    assert not child.exists() or "Z (zombie)" in child.read_text()


def test_the_deadline_bounds_all_steps(run: Any, checking: SimpleNamespace) -> None:
    results, _ = run(["machine", "profile", "variants"], 4 / 60)
    steps = results["steps"]
    assert steps["machine"]["record"]["seconds"] == pytest.approx(4, abs=0.1), "the step's own limit is longer"
    assert steps["profile"]["state"].startswith("stopped after")
    assert steps["variants"]["state"] == "left out: the 0.0666667 minutes are over"
    assert "| variants | left out" in checking.goals.table(results)
    assert not checking.goals.succeeded(results)


ITERATION = {
    "torch-mimicry": {"median_ms": 100.0},
    "srn bf16": {"median_ms": 30.0},
    "srn bf16, fast": {"median_ms": 12.0},
}
CASE = {"captured": True, "difference": 1e-5}
RECORDS: dict[str, tuple[dict[str, Any], list[tuple[str, str]]]] = {
    "tests": ({"counts": {"passed": 40, "failed": 0, "errors": 0, "skipped": 1}}, [("40 passed, 1 skipped", "met")]),
    "capture": (
        {"of": 2, "cases": {"sn": CASE, "none": CASE | {"captured": False}}},
        [("1 of 2, largest difference 1.0e-05; not none", "missed")],
    ),
    "fast-and-plain": ({"difference of the first line": float("nan"), "captured": True}, [("nan", "missed")]),
    "iteration": ({"iteration": ITERATION}, [("8.3x", "met"), ("10.0 min", "missed")]),
    "divergence": ({"presets": {"srn2020": {"minutes": 3.0}}}, [("3.0 min", "met")]),
}


@pytest.mark.parametrize("step", RECORDS)
@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_a_goal_has_a_value_and_a_verdict(checking: SimpleNamespace, step: str, device: str) -> None:
    record, expected = RECORDS[step]
    results: dict[str, Any] = {"device": device, "size": "full", "steps": {step: {"state": "done", "record": record}}}
    rows = [row for row in checking.goals.verdicts(results) if not row["verdict"].startswith("not measured")]
    assert [row["value"] for row in rows] == [value for value, _ in expected]
    assert [row["verdict"] for row in rows] == [verdict if device == "cuda" else "rehearsed" for _, verdict in expected]


def test_an_iteration_may_be_as_fast_as_the_compiled_variant(checking: SimpleNamespace) -> None:
    """Other variants have settings that training does not."""
    times = {"compile": {"median_ms": 9.0}, "compile, cudnn.benchmark": {"median_ms": 1.0}}
    records = {"iteration": {"iteration": ITERATION}, "variants": {"variants": times}}
    steps = {name: {"state": "done", "record": record} for name, record in records.items()}
    rows = checking.goals.verdicts({"device": "cuda", "size": "full", "steps": steps})
    assert [row["value"] for row in rows][3:5] == ["11.1x", "7.5 min"]


def test_a_variant_that_could_not_be_compiled_is_left_out(
    checking: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """choose_step goes on without compilation; its time would be reported as that of compiled networks."""
    iterations = checking.iterations
    names = {"off": "plain step: train.fast is off", "on": "fast step", "compile": "fast step, not compiled (no g++)"}

    def make(config: Any, device: str) -> tuple[SimpleNamespace, SimpleNamespace]:
        totals = torch.full((4,), 1.5 if config.train.fast == "compile" else 1.0, dtype=torch.float64)
        step = SimpleNamespace(train_step=lambda: totals.add_(1), name=names[config.train.fast])
        return SimpleNamespace(state=SimpleNamespace(totals=totals)), step

    monkeypatch.setattr(iterations, "make_trainer_and_step", make)
    monkeypatch.setattr(iterations, "_timed", lambda built, conditions: {name: step() for name, step in built.items()})

    def last() -> Any:
        record: Any = {}
        for part in iterations.variants(checking.conditions.Conditions("cuda", False, 0.0, tmp_path)):
            record |= part
        return record

    record = last()
    assert record["steps"]["compile"] == "left out: fast step, not compiled (no g++)"
    assert "fast" in record["variants"]
    assert "compile" not in record["variants"]
    names["compile"] = "fast step: one CUDA graph per iteration, networks compiled"
    record = last()
    assert {"compile", "compile, cudnn.benchmark"} <= set(record["variants"])
    assert (record["differences"]["fast"], record["differences"]["compile"]) == (0, 0.25)


def test_the_compiled_variant_is_timed_before_another_is_compiled(
    checking: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goals need its time, and compiling once more may take longer than the step has."""
    iterations = checking.iterations
    compiled: list[str] = []

    def make(config: Any, device: str) -> tuple[SimpleNamespace, SimpleNamespace]:
        if config.train.fast == "compile":
            compiled.append("again" if compiled else "first")
        assert "again" not in compiled, "no time left"
        step = SimpleNamespace(train_step=lambda: None, name="fast step, networks compiled")
        return SimpleNamespace(state=SimpleNamespace(totals=torch.ones(4))), step

    monkeypatch.setattr(iterations, "make_trainer_and_step", make)
    monkeypatch.setattr(iterations, "_timed", lambda built, conditions: dict.fromkeys(built))
    record: dict[str, Any] = {}
    parts = iterations.variants(checking.conditions.Conditions("cuda", False, 0.0, tmp_path))
    with pytest.raises(AssertionError, match="no time left"):
        deque(map(record.update, parts), maxlen=0)
    assert list(record["variants"])[-1] == "compile"


def test_what_is_missing_is_named(checking: SimpleNamespace) -> None:
    steps = {"iteration": {"state": "done", "record": {"iteration": {"srn bf16": {"median_ms": 1.0}}}}}
    rows = checking.goals.verdicts({"device": "cuda", "size": "full", "steps": steps})
    found = [row["verdict"] for row in rows]
    assert found[0] == "not measured: tests not asked for"
    assert found[3:5] == ["not measured: iteration has no torch-mimicry", "met"]


def test_outcomes_of_tests_are_read(checking: SimpleNamespace, tmp_path: Path) -> None:
    cases = '<testcase classname="a" name="p"/><testcase classname="a" name="f"><failure message="1 != 2"/></testcase>'
    cases += '<testcase classname="a" name="s"><skipped message="needs two GPUs"/></testcase>'
    (tmp_path / "report.xml").write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    assert checking.suite.outcomes(tmp_path / "report.xml") == {
        "counts": {"passed": 1, "failed": 1, "errors": 0, "skipped": 1},
        "messages": {"a::f": "1 != 2", "a::s": "needs two GPUs"},
    }


def test_the_page_has_the_goals(checking: SimpleNamespace) -> None:
    for goal in checking.goals.GOALS:
        assert goal.text in PAGE


def test_an_updates_time_leaves_out_the_start_of_the_first_training(
    checking: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libraries that start in the first training would make the difference too small, even negative."""
    evaluating = importlib.import_module("checking.steps.evaluating")
    seconds: list[float] = []

    def train(*_: Any, steps: int, **__: Any) -> SimpleNamespace:
        seconds.append(0.5 + 0.001 * steps + (5 if not seconds else 0))
        return SimpleNamespace(updates="one CUDA graph per update")

    monkeypatch.setattr(evaluating, "neural_divergence", train)
    monkeypatch.setattr(evaluating, "time", SimpleNamespace(perf_counter=lambda: sum(seconds)))
    *_, record = evaluating.divergence(checking.conditions.Conditions("cpu", True, 25.0, tmp_path))
    for row in record["presets"].values():
        assert row["ms per update"] == pytest.approx(1.0)
        assert row["minutes"] == pytest.approx(0.001 * row["steps"] * row["critics"] / 60)


def test_a_time_that_cannot_be_measured_meets_no_goal(checking: SimpleNamespace) -> None:
    steps = {"divergence": {"state": "done", "record": {"presets": {"srn2020": {"ms per update": -0.1}}}}}
    rows = checking.goals.verdicts({"device": "cuda", "size": "full", "steps": steps})
    assert rows[-1]["verdict"] == "not measured: divergence has no minutes"


def test_slow_critics_take_fewer_steps(checking: SimpleNamespace) -> None:
    affordable = importlib.import_module("checking.steps.evaluating").affordable_steps
    assert affordable(few=200, first=0.5, most=2200, seconds=6) == 2200
    assert affordable(few=200, first=2.0, most=2200, seconds=6) == 600
    assert affordable(few=200, first=30.0, most=2200, seconds=6) == 400, "a difference is needed"


@pytest.mark.slow
def test_every_step_runs_at_tiny_size_on_a_cpu(checking: SimpleNamespace, tmp_path: Path) -> None:
    result = call_tool("gpu_check", "--cpu-rehearsal", "--out", tmp_path)
    results = json.loads((tmp_path / checking.running.RESULTS).read_text())
    broken = {name: step for name, step in results["steps"].items() if step["state"] != "done"}
    assert not broken
    assert result.exit_code == 0, result.output
    assert list(results["steps"]) == list(checking.plan.STEPS)
    assert {row["verdict"].split(":")[0] for row in results["goals"]} <= {"rehearsed", "not measured"}
    assert all(path.is_file() and path.stat().st_size <= LARGEST for path in tmp_path.iterdir())
