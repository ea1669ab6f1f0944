"""Best checkpoint of a run, by one metric of its evaluations."""

import json
import math
import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from gan.errors import UserError
from gan.runs.finding import best_checkpoints, step_of
from gan.runtime.files import write_atomically

RECORD, EARLIER = "best.json", "earlier"


class Best:
    """Keeps the best checkpoint of a run, with a record of its evaluation in `run`/best.json.

    The checkpoint is written first, then the record that names it, and then checkpoints without a record are deleted,
    so the record and its checkpoint agree even if the process is killed. While a retry may roll back to earlier steps,
    the best checkpoints as of these steps are kept too, with records under "earlier".

    Args:
        run: the folder.
        metric: name of a metric, such as "fid", or the full key of its value, such as "fid/pixels".
        step: completed steps at the start; records of later steps are dropped, because a resumed run repeats them.
        back_to: returns the steps that a retry may roll back to.
        is_better: compares two values, given "higher" or "lower" as the better direction; numbers are better than NaN.
        differences: describes how the protocols of two entries differ.
    """

    def __init__(
        self,
        run: Path,
        metric: str,
        step: int,
        *,
        back_to: Callable[[], list[int]],
        is_better: Callable[[float, float, str], bool],
        differences: Callable[[dict[str, Any], dict[str, Any]], str],
    ) -> None:
        self.run, self.metric, self.back_to = run, metric, back_to
        self.is_better, self.differences = is_better, differences
        self.records = read_records(run)
        self._keep([record for record in self.records if record["step"] <= step])

    @property
    def found(self) -> dict[str, Any] | None:
        """Record of the best evaluation; None before the first one."""
        return self.records[0] if self.records else None

    def __str__(self) -> str:
        """Returns a text such as "fid 12.34 at step 4000 (best-00004000.pt)"."""
        found = self.found
        return (
            f"{found['key']} {found['value']:.4g} at step {found['step']} ({found['checkpoint']})" if found else "none"
        )

    def consider(
        self, values: dict[str, float], entries: dict[str, dict[str, Any]], step: int, save: Callable[[], Path]
    ) -> bool:
        """Saves a checkpoint if the value is better than all earlier ones; returns whether it is. NaN is never better.

        Args:
            values, entries: numbers of one evaluation and their std, better, hash and fields, by key.
            save: writes the checkpoint and returns its file.

        Raises:
            UserError: the value is missing, cannot be ranked, or was measured with another protocol before.
        """
        key = self.key(entries)
        entry, value = entries[key], values[key]
        if not self._better(key, value, entry):
            self._keep(self.records)
            return False
        record = {name: entry[name] for name in ("std", "better", "hash", "fields")}
        file = save()
        self._keep([{"checkpoint": file.name, "step": step, "key": key, "value": value, **record}, *self.records])
        return True

    def _keep(self, records: list[dict[str, Any]]) -> None:
        """Keeps the first record, and those that were the best at a step that a retry may roll back to."""
        steps = self.back_to()
        earlier = [
            record
            for later, record in pairwise(records)
            if any(record["step"] <= step < later["step"] for step in steps)
        ]
        kept = [*records[:1], *earlier]
        if kept and kept != self.records:
            write_records(self.run, kept)
        self.records = kept
        files = {record["checkpoint"] for record in kept}
        for old in best_checkpoints(self.run) if kept else ():
            if old.name not in files:
                old.unlink(missing_ok=True)

    def _better(self, key: str, value: float, entry: dict[str, Any]) -> bool:
        before = self.found
        if before is not None and before["hash"] != entry["hash"]:
            raise self._other_protocol(key, before, entry)
        return self.is_better(value, math.nan if before is None else before["value"], entry["better"])

    def check(self, known: Mapping[str, Mapping[str, Any]]) -> None:
        """Checks before training what later evaluations would refuse.

        Args:
            known: keys of the values that evaluations will measure and rank, each with the protocol fields that are
                known before.

        Raises:
            UserError: the metric names none of them or several, or the best value was measured with another protocol.
        """
        key, before = self.key({key: {"better": "known"} for key in known}), self.found
        if before is None:
            return
        fields = json.loads(json.dumps(known[key]))
        changed = {name: fields[name] for name in before["fields"].keys() & fields.keys()}
        if before["key"] != key or before["fields"] | changed != before["fields"]:
            raise self._other_protocol(key, before, {"fields": before["fields"] | changed})

    def _other_protocol(self, key: str, before: dict[str, Any], entry: dict[str, Any]) -> UserError:
        return UserError(
            f"train.keep_best: {key} was measured with another protocol at step {before['step']}: they differ "
            f"in {self.differences(before, entry)}; values of different protocols cannot be compared: restore the "
            "settings of the evaluation, or train on with an empty train.keep_best"
        )

    def key(self, entries: dict[str, dict[str, Any]]) -> str:
        """Returns the key of the metric's value in one evaluation.

        Raises:
            UserError: the metric has no value that can be ranked, or several.
        """
        directed = [key for key, entry in entries.items() if entry["better"]]
        keys = [key for key in directed if key == self.metric] or [key for key in directed if self._names(key)]
        if len(keys) != 1:
            raise UserError(
                f"train.keep_best: got {self.metric!r}, "
                f"expected one of the values that can be ranked: {', '.join(directed)}"
            )
        return keys[0]

    def _names(self, key: str) -> bool:
        """Whether the metric is the beginning of a key, up to a slash or to the hash of an extractor's weights.

        A key without an extractor is that of Inception with the official weights.
        """
        whole = key if "/" in key else f"{key}/inception"
        return re.fullmatch(rf"{re.escape(self.metric)}(/.*|\d*-[0-9a-f]{{8}})?", whole) is not None


def read_best(run: Path) -> dict[str, Any] | None:
    """Returns the record of a run's best checkpoint, None without one.

    Its fields are checkpoint (a file name), step, key, value, std, better, hash and fields.
    """
    return next(iter(read_records(run)), None)


def read_records(run: Path) -> list[dict[str, Any]]:
    """Returns the records of the best checkpoint and of earlier ones, newest first, if their files exist."""
    try:
        found = json.loads((run / RECORD).read_text(encoding="utf-8"))
        records = [{name: value for name, value in found.items() if name != EARLIER}, *found.get(EARLIER, [])]
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return []
    files = {path.name for path in best_checkpoints(run)}
    return [record for record in records if _is_record(record) and record["checkpoint"] in files]


def _is_record(found: Any) -> bool:
    """Returns whether a record has the fields of `read_best`; the file may have been edited."""
    kinds = {"checkpoint": str, "step": int, "key": str, "value": float, "better": str, "hash": str, "fields": dict}
    return isinstance(found, dict) and all(type(found.get(name)) is kind for name, kind in kinds.items())


def write_records(run: Path, records: list[dict[str, Any]]) -> None:
    """Writes records in the order of `read_records`."""
    best, *earlier = records
    record = best | ({EARLIER: earlier} if earlier else {})
    write_atomically(run / RECORD, json.dumps(record, indent=1).encode())


def forget_best_after(run: Path, step: int) -> None:
    """Restores the best checkpoint as of this step, if it is kept, and deletes later ones."""
    records = read_records(run)
    kept = [record for record in records if record["step"] <= step]
    if kept and kept != records:
        write_records(run, kept)
    for later in best_checkpoints(run):
        if step_of(later) > step:
            later.unlink()
    if not kept:
        (run / RECORD).unlink(missing_ok=True)
