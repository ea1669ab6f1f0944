"""Tests of the Inception Score: closed forms, and torch-fidelity as oracle."""

import pytest
import torch
from torch_fidelity.metric_isc import isc_features_to_metric

from evaluation import EvaluationError, inception_score


def test_equal_rows_score_one():
    mean, std = inception_score(torch.randn(1, 9).expand(50, 9))
    assert mean == pytest.approx(1, abs=1e-12)
    assert std == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("scale", [80.0, 3e4])  # at 3e4 every other probability underflows to 0
def test_sure_and_even_predictions_score_the_number_of_classes(scale: float):
    logits = torch.eye(8).repeat(40, 1) * scale
    assert inception_score(logits, splits=1)[0] == pytest.approx(8, rel=1e-9)


@pytest.mark.parametrize("splits", [1, 3, 10])
def test_score_equals_torch_fidelity(splits: int):
    logits = torch.randn(101, 12, generator=torch.Generator().manual_seed(0)) * 3
    expected = isc_features_to_metric(logits, splits=splits)
    mean, std = inception_score(logits, splits)
    assert mean == pytest.approx(expected["inception_score_mean"], rel=1e-12)
    assert std == pytest.approx(expected["inception_score_std"], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("logits", "splits", "message"),
    [
        (torch.randn(5, 3), 10, "10 splits for 5 images"),
        (torch.randn(5, 3), 0, "0 splits"),
        (torch.full((20, 3), torch.inf), 2, "NaN or infinite"),
        (torch.ones(20, 3, dtype=torch.int64), 2, "floats"),
        (torch.randn(20), 2, "floats"),
        (torch.randn(20, 3).numpy(), 2, "got ndarray, expected logits as a torch tensor"),
    ],
)
def test_wrong_logits_are_refused(logits: torch.Tensor, splits: int, message: str):
    with pytest.raises(EvaluationError, match=message):
        inception_score(logits, splits)
