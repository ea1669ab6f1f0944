"""The one rule of what is better, and the words for two protocols."""

import math

import pytest

from evaluation.reporting.ranking import differences, is_better


@pytest.mark.parametrize(
    ("value", "other", "better", "expected"),
    [
        (1.0, 2.0, "lower", True),
        (2.0, 1.0, "lower", False),
        (2.0, 1.0, "higher", True),
        (1.0, 1.0, "higher", False),
        (1.0, 1.0, "lower", False),
        (math.inf, math.nan, "lower", True),
        (math.nan, 1.0, "higher", False),
        (math.nan, math.nan, "lower", False),
    ],
)
def test_better_is_by_direction_and_never_nan(value: float, other: float, better: str, expected: bool):
    assert is_better(value, other, better) is expected


def test_protocols_differ_in_named_fields_whatever_types_a_file_gave_back():
    one = {"hash": "a" * 64, "fields": {"sizes": (1, 2), "generation": {"seed": 0}, "reference": "b" * 64}}
    other = {"hash": "c" * 64, "fields": {"sizes": [1, 2], "generation": {"seed": 1}, "reference": "d" * 64}}
    assert differences(one, other) == "generation.seed (0, 1) and reference (bbbbbbbb, dddddddd)"
    assert differences(one, {**one, "hash": "c" * 64}).startswith("nothing but the hash (aaaaaaaa, cccccccc)")
