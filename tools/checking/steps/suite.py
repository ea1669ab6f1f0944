"""Step "tests": the tests marked `gpu`."""

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from checking.conditions import ROOT, Conditions, Record

WORKERS = 6  # each needs its own CUDA context and imports torch
MESSAGE = 300  # characters


def suite(conditions: Conditions) -> Iterator[Record]:
    """Yields counts of outcomes, and the messages of tests that fail or are skipped.

    Plugins that the project does not use are not loaded, and warnings fail no test: both differ between machines.
    """
    files = [str(path) for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text()]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        options = ["-m", "gpu", "-W", "default", "-p", "no:cacheprovider", f"--junitxml={report}", *files]
        if importlib.util.find_spec("xdist") is not None:
            options += ["-p", "xdist.plugin", "-n", str(min(WORKERS, os.cpu_count() or 1)), "--dist", "worksteal"]
        environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-m", "pytest", *options], cwd=ROOT, env=environment, check=False)
        if not report.exists():
            raise RuntimeError("pytest ended without a report")
        yield outcomes(report)


def outcomes(report: Path) -> Record:
    """Reads a report of pytest in JUnit's format."""
    counts = Counter({"passed": 0, "failed": 0, "errors": 0, "skipped": 0})
    names = {"failure": "failed", "error": "errors", "skipped": "skipped"}
    messages = {}
    for case in ElementTree.parse(report).iter("testcase"):
        found = next(((names[part.tag], part) for part in case if part.tag in names), None)
        counts[found[0] if found else "passed"] += 1
        if found:
            messages[f"{case.get('classname')}::{case.get('name')}"] = (found[1].get("message") or "")[:MESSAGE]
    return {"counts": dict(counts), "messages": messages}
