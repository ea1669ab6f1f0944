"""Goals of docs/performance.md and whether results reach them. Imports no torch."""

from collections.abc import Callable
from typing import NamedTuple

from checking.conditions import Record

FASTER, MINUTES, ND_MINUTES = 8.0, 8.0, 3.0
CLOSE = 2e-3
"""Largest relative difference of mean losses and logits between the plain step and its graph."""
CLOSE_RUNS = 0.05
"""Same between the first log lines of two runs: rounding grows over the iterations before a line."""
PEER = "torch-mimicry"


class CheckGoal(NamedTuple):
    """A goal. `reached` returns the value as text and whether it suffices; raises LookupError if it is missing.

    It takes the step's record, with the times of step "variants" added under "variants".
    """

    step: str
    text: str
    reached: Callable[[Record], tuple[str, bool]]


def _tests(record: Record) -> tuple[str, bool]:
    counts = record["counts"]
    text = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count) or "no test"
    return text, bool(counts["passed"]) and not counts["failed"] and not counts["errors"]


def _captures(record: Record) -> tuple[str, bool]:
    cases = record["cases"]
    wrong = [name for name, case in cases.items() if not case["captured"] or not case["difference"] <= CLOSE]
    largest = max(case["difference"] for case in cases.values())
    whole = len(cases) == record["of"]
    text = f"{len(cases) - len(wrong)} of {record['of']}, largest difference {largest:.1e}"
    return text + (f"; not {', '.join(wrong)}" if wrong else ""), whole and not wrong


def _runs(record: Record) -> tuple[str, bool]:
    difference = record["difference of the first line"]
    return f"{difference:.1e}", difference <= CLOSE_RUNS and bool(record["captured"])


def _fastest(record: Record) -> float:
    """Milliseconds of the fastest of our iterations with SRN in bf16: plain, fast or compiled."""
    rows = [row for name, row in record["iteration"].items() if name.startswith("srn bf16")]
    rows += [row for name, row in record["variants"].items() if name == "compile"]
    if not rows:
        raise LookupError("srn bf16")
    return float(min(row["median_ms"] for row in rows))


def _faster(record: Record) -> tuple[str, bool]:
    factor = record["iteration"][PEER]["median_ms"] / _fastest(record)
    return f"{factor:.1f}x", factor >= FASTER


def _whole_run(record: Record) -> tuple[str, bool]:
    minutes = _fastest(record) * 50_000 / 60_000
    return f"{minutes:.1f} min", minutes <= MINUTES


def _divergence(record: Record) -> tuple[str, bool]:
    minutes = record["presets"]["srn2020"]["minutes"]
    return f"{minutes:.1f} min", minutes <= ND_MINUTES


GOALS = (
    CheckGoal("tests", "tests marked gpu pass", _tests),
    CheckGoal("capture", "graphs equal the plain step at full size", _captures),
    CheckGoal("fast-and-plain", f"runs of both steps agree within {CLOSE_RUNS:.0%}", _runs),
    CheckGoal("iteration", f"an iteration at least {FASTER:g} times as fast as torch-mimicry's", _faster),
    CheckGoal("iteration", f"50,000 iterations in {MINUTES:g} minutes", _whole_run),
    CheckGoal("divergence", f"Neural Divergence from a pool in {ND_MINUTES:g} minutes", _divergence),
)


def verdicts(results: Record) -> list[Record]:
    """Goal, value and verdict ("met", "missed", "not measured: ...", "rehearsed") of each goal."""
    rehearsed = results["device"] == "cpu" or results["size"] != "full"
    variants = results["steps"].get("variants", {}).get("record", {}).get("variants", {})
    rows = []
    for goal in GOALS:
        step = results["steps"].get(goal.step, {"state": "not asked for", "record": {}})
        try:
            value, met = goal.reached(step["record"] | {"variants": variants})
        except LookupError as error:
            missing = f"has no {error.args[0]}" if step["state"] == "done" else step["state"]
            value, verdict = "", f"not measured: {goal.step} {missing}"
        else:
            verdict = "rehearsed" if rehearsed else "met" if met else "missed"
        rows.append({"goal": goal.text, "value": value, "verdict": verdict})
    return rows


def table(results: Record) -> str:
    """Markdown: one table of the steps, one of the goals."""
    lines = ["| step | state | seconds |", "|---|---|---|"]
    lines += [f"| {name} | {step['state']} | {step['seconds']:.1f} |" for name, step in results["steps"].items()]
    lines += ["", "| goal | measured | verdict |", "|---|---|---|"]
    lines += [f"| {row['goal']} | {row['value']} | {row['verdict']} |" for row in results["goals"]]
    return "\n".join(lines) + "\n"


def succeeded(results: Record) -> bool:
    """Whether every step was done and no goal was missed."""
    done = all(step["state"] == "done" for step in results["steps"].values())
    return done and not any(row["verdict"] == "missed" for row in results["goals"])
