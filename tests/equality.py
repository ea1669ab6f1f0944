"""Comparison of states and logs of two runs."""

import json
from pathlib import Path
from typing import Any

import torch


def same(one: Any, other: Any, place: str = "state") -> None:
    """Asserts that nested containers are equal, tensors bit for bit."""
    assert type(one) is type(other), place
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            same(one[key], other[key], f"{place}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for index, pair in enumerate(zip(one, other, strict=True)):
            same(*pair, f"{place}[{index}]")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), place
    else:
        assert one == other, place


def lines(run: Path) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl without the values that depend on the clock."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    clock = {"images_per_second", "data_share"}
    return [{key: value for key, value in record.items() if key not in clock} for record in records]
