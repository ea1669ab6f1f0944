"""The best checkpoint of a run, by one value of its evaluations."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gan.checkpoint import best_checkpoints
from gan.errors import UserError
from gan.files import write_atomically

RECORD = "best.json"


class Best:
    """Remembers which evaluation of a run was the best, across interruptions, in `run`/best.json.

    The checkpoint is written first, then the record that names it, then the one before is removed: whenever the
    process ends, the record and the file it names belong together.

    Args:
        run: the folder.
        metric: the name of a metric, such as "fid"; its value's key may go on with the extractor ("fid/pixels").
        step: completed steps at the start: what an interrupted run found later will be found again.
        is_better: of a value, another and "higher" or "lower"; any number must be better than NaN.
        differences: of two entries, in words.
    """

    def __init__(
        self,
        run: Path,
        metric: str,
        step: int,
        *,
        is_better: Callable[[float, float, str], bool],
        differences: Callable[[dict[str, Any], dict[str, Any]], str],
    ) -> None:
        self.run, self.metric = run, metric
        self.is_better, self.differences = is_better, differences
        self.found = self._read(step)
        if self.found is not None:
            self._remove_others(self.found["checkpoint"])  # a process may have ended before it did

    def __str__(self) -> str:
        """Such as "fid 12.34 at step 4000 (best-00004000.pt)"."""
        found = self.found
        return (
            f"{found['key']} {found['value']:.4g} at step {found['step']} ({found['checkpoint']})" if found else "none"
        )

    def consider(
        self, values: dict[str, float], entries: dict[str, dict[str, Any]], step: int, save: Callable[[], Path]
    ) -> bool:
        """Keeps the state as checkpoint if its value is better than all before, never with NaN; returns whether it is.

        Args:
            values, entries: of one evaluation, by key: a number, and its std, better, hash and fields.
            save: writes the checkpoint and returns its file.

        Raises:
            UserError: no such value, one without a direction, or one of another protocol than before.
        """
        key = self.key(entries)
        entry, value = entries[key], values[key]
        if not self._better(key, value, entry):
            return False
        file = save()
        self.found = {
            "checkpoint": file.name,
            "step": step,
            "key": key,
            "value": value,
            **{name: entry[name] for name in ("std", "better", "hash", "fields")},
        }
        write_atomically(self.run / RECORD, json.dumps(self.found, indent=1).encode())
        self._remove_others(file.name)
        return True

    def _remove_others(self, name: str) -> None:
        for old in best_checkpoints(self.run):
            if old.name != name:
                old.unlink(missing_ok=True)

    def _better(self, key: str, value: float, entry: dict[str, Any]) -> bool:
        before = self.found
        if before is not None and before["hash"] != entry["hash"]:
            raise UserError(
                f"train.keep_best: {key} was measured by another protocol at step {before['step']}: they differ "
                f"in {self.differences(before, entry)}; values of two protocols have no best"
            )
        return self.is_better(value, math.nan if before is None else before["value"], entry["better"])

    def key(self, entries: dict[str, dict[str, Any]]) -> str:
        """Of the metric's value among those of one evaluation.

        Raises:
            UserError: none, or more than one with a direction.
        """
        directed = [key for key, entry in entries.items() if entry["better"]]
        keys = [key for key in directed if key == self.metric or key.startswith(f"{self.metric}/")]
        if len(keys) != 1:
            raise UserError(
                f"train.keep_best: got {self.metric!r}, "
                f"expected one of the values with a direction: {', '.join(directed)}"
            )
        return keys[0]

    def _read(self, step: int) -> dict[str, Any] | None:
        found = read_best(self.run)
        return found if found is not None and found["step"] <= step else None


def read_best(run: Path) -> dict[str, Any] | None:
    """checkpoint (a file's name), step, key, value, std, better, hash, fields; None where a run has kept none."""
    try:
        found = json.loads((run / RECORD).read_text(encoding="utf-8"))
        kinds = {"checkpoint": str, "step": int, "key": str, "value": float, "better": str, "hash": str, "fields": dict}
        whole = all(type(found[name]) is kind for name, kind in kinds.items())
        there = whole and found["checkpoint"] in {path.name for path in best_checkpoints(run)}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if there else None
