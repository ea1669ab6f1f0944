"""Compares two runs: every tensor of their newest common checkpoint and every line of their logs.

After a refactoring, a run must be bit for bit equal to the same run before it.
"""

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from evaluation.runtime.command import CheckedCommand
from gan.errors import CheckpointError, UserError
from gan.runs.checkpoint import read_checkpoint
from gan.runs.finding import list_checkpoints

CLOCK = {"images_per_second", "data_share"}  # values in the log that depend on the clock
EXAMPLES = """
Examples:

  python tools/compare_runs.py runs/before runs/after
  python tools/compare_runs.py runs/before runs/after --assert-equal
"""


def newest_common(one: Path, other: Path) -> tuple[Path, Path]:
    """Checkpoints of both runs at their last common step.

    Raises:
        CheckpointError: there is no common step.
    """
    by_name = [{path.name: path for path in list_checkpoints(run)} for run in (one, other)]
    common = sorted(by_name[0].keys() & by_name[1].keys())
    if not common:
        raise CheckpointError(f"{one} and {other}: the runs have no checkpoint at a common step")
    return by_name[0][common[-1]], by_name[1][common[-1]]


def leaves(content: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every tensor, array and plain value in nested containers, and each container's type, as (place, value).

    Empty containers are skipped, so that an empty list equals a missing entry of an earlier version.
    """
    if not isinstance(content, dict | list | tuple):
        yield place, content
        return
    if content:
        yield f"{place}()", type(content)
    if isinstance(content, dict):
        parts = ((f"{place}.{key}" if place else str(key), value) for key, value in content.items())
    else:
        parts = ((f"{place}[{index}]", value) for index, value in enumerate(content))
    for inner, value in parts:
        yield from leaves(value, inner)


def difference(one: Any, other: Any) -> float:
    """Largest absolute difference of two values; infinite if types or shapes differ. NaN equals NaN."""
    if type(one) is not type(other):
        return math.inf
    if isinstance(one, np.ndarray):
        return difference(torch.from_numpy(one), torch.from_numpy(other))
    if isinstance(one, torch.Tensor):
        if (one.dtype, one.shape) != (other.dtype, other.shape):
            return math.inf
        changed = ~torch.isclose(one, other, rtol=0, atol=0, equal_nan=True)
        return float((one[changed].double() - other[changed].double()).abs().max()) if changed.any() else 0.0
    if one == other:
        return 0.0
    return abs(one - other) if isinstance(one, float) else math.inf


def compare(one: Any, other: Any) -> dict[str, float]:
    """Places that differ, each with its largest absolute difference."""
    ours, theirs = dict(leaves(one)), dict(leaves(other))
    missing = object()
    differences = {
        place: difference(ours.get(place, missing), theirs.get(place, missing)) for place in ours.keys() | theirs.keys()
    }
    return {place: size for place, size in sorted(differences.items()) if size != 0}


def log_of(run: Path, last_step: float = math.inf) -> list[dict[str, Any]]:
    """Records of metrics.jsonl up to a step, without values that depend on the clock.

    Raises:
        CheckpointError: the file is missing or not the log of a run.
    """
    log = run / "metrics.jsonl"
    try:
        records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        return [
            {k: v for k, v in record.items() if k not in CLOCK} for record in records if record["step"] <= last_step
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{log}: not readable as the log of a run ({error!r})") from None


@click.command(cls=CheckedCommand, epilog=EXAMPLES.replace("\n\n", "\n\n\b\n", 1))
@click.argument("one", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("other", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--assert-equal", is_flag=True, help="Exit with status 1 unless both are equal bit for bit.")
def main(one: Path, other: Path, assert_equal: bool) -> None:
    """Compare the newest common checkpoint and the logs of two runs."""
    try:
        first, second = (read_checkpoint(path) for path in newest_common(one, other))
        step = first.state["step"]
        found = {
            "state": compare(first.state, second.state),
            "log": compare(log_of(one, step), log_of(other, step)),
        }
    except UserError as error:
        click.echo(f"compare_runs: error: {error}", err=True)
        sys.exit(2)
    for name, places in found.items():
        click.echo(
            f"{name} up to step {step}: {len(places)} differences" if places else f"{name} up to step {step}: equal"
        )
        for place, size in sorted(places.items(), key=lambda item: -item[1])[:10]:
            click.echo(f"  {place}: {size:.3g}")
    if assert_equal and any(found.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
