"""Runs one step of tools/gpu_check.py: python -m checking.step NAME CONDITIONS RECORD, both of JSON."""

import importlib
import json
import sys
from pathlib import Path

from checking.conditions import Conditions, Measured, Record
from checking.plan import STEPS


def main(name: str, conditions: str, file: str) -> None:
    """Runs a step and rewrites its record after every part of it."""
    wanted = json.loads(conditions)
    module, function = STEPS[name].function.split(":")
    measured: Measured = getattr(importlib.import_module(f"checking.steps.{module}"), function)
    record: Record = {}
    for part in measured(Conditions(**wanted | {"out": Path(wanted["out"])})):
        record |= part
        beside = Path(file).with_suffix(".part")
        beside.write_text(json.dumps(record), encoding="utf-8")
        beside.replace(file)


if __name__ == "__main__":
    main(*sys.argv[1:])
