"""Runs steps, each in a process of its own with a time limit, and writes the results after each."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from checking.conditions import ROOT, Conditions, Record
from checking.goals import verdicts
from checking.plan import STEPS

RESULTS = "gpu_check.json"
COMMAND = [sys.executable, "-m", "checking.step"]
TAIL = 6000  # characters of a step's output that are kept if it fails
SHORTEST = 5.0  # seconds for which a step is started
GRACE = 3.0  # seconds between asking a step to end and ending it


def run_steps(
    names: Sequence[str],
    conditions: Conditions,
    minutes: float,
    say: Callable[[str], None],
    limits: Mapping[str, float],
) -> Record:
    """Runs the steps in turn until the deadline; returns the results, which are rewritten to RESULTS after each.

    Args:
        minutes: deadline for all steps.
        limits: seconds of steps that have others than in the plan.
    """
    deadline = time.monotonic() + 60 * minutes
    results: Record = {"device": conditions.device, "size": conditions.size, "minutes": minutes, "steps": {}}
    for number, name in enumerate(names, 1):
        wanted = limits.get(name, STEPS[name].seconds)
        seconds = min(wanted, deadline - time.monotonic())
        say(f"[{number}/{len(names)}] {name}: {STEPS[name].shows} ({max(0.0, seconds):.0f} s at most)")
        if seconds < SHORTEST:
            found: Record = {"state": f"left out: the {minutes:g} minutes are over", "seconds": 0.0, "record": {}}
        else:
            found = _run(name, replace(conditions, seconds=seconds))
        results["steps"][name] = found
        results["goals"] = verdicts(results)
        _write(conditions.out / RESULTS, results)
        say(f"    {found['state']} in {found['seconds']:.1f} s")
        if found.get("output"):
            say("    " + "\n    ".join(found["output"].strip().splitlines()[-3:]))
    return results


def _run(name: str, conditions: Conditions) -> Record:
    """Runs a step in a process group of its own; ends the whole group after the step's time."""
    with tempfile.TemporaryDirectory(prefix="gpu_check-") as folder:
        record, log = Path(folder) / "record.json", Path(folder) / "log"
        wanted = json.dumps(asdict(conditions) | {"out": str(conditions.out)})
        path = os.pathsep.join([str(ROOT), str(ROOT / "tools"), *filter(None, [os.environ.get("PYTHONPATH")])])
        variables = os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "TMPDIR": folder}
        command = [*COMMAND, name, wanted, str(record)]
        begin = time.monotonic()
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env=variables, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                status = process.wait(conditions.seconds)
                state = "done" if status == 0 else f"failed with status {status}"
            except subprocess.TimeoutExpired:
                state = f"stopped after {conditions.seconds:.0f} s"
            finally:
                _end(process)
        found = {"state": state, "seconds": round(time.monotonic() - begin, 1), "record": _read(record)}
        if state != "done":
            found["output"] = log.read_text(encoding="utf-8", errors="replace")[-TAIL:]
        return found


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ends a step's process and those it started."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, sent)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)


def _read(record: Path) -> Record:
    """Record of a step as far as it came; {} if it wrote none."""
    return dict(json.loads(record.read_text(encoding="utf-8"))) if record.exists() else {}


def _write(file: Path, content: Any) -> None:
    """Replaces a JSON file, so that it is whole at any time."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    part.replace(file)
