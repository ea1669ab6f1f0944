"""Tests of train.keep_best: the best checkpoint by a named value, across interruptions, within one protocol."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from commands import call, done, refused

from evaluation.reporting.ranking import differences, is_better
from gan.errors import UserError
from gan.runs.best import Best, forget_best_after, read_best
from gan.runs.checkpoint import save_best
from gan.runs.finding import list_checkpoints

FID = {"std": None, "better": "lower", "hash": "a", "fields": {"num_fid": 10}}


def best_of(run: Path, metric: str, step: int, back_to: Callable[[], list[int]] = list) -> Best:
    return Best(run, metric, step, back_to=back_to, is_better=is_better, differences=differences)


def consider(run: Path, best: Best, step: int, value: float, **changes: Any) -> bool:
    """Reports one evaluation at a step."""
    return best.consider({"fid/x": value}, {"fid/x": FID | changes}, step, lambda: save_best(run, {}, {"step": step}))


def files(run: Path) -> set[str]:
    return {path.name for path in (run / "checkpoints").iterdir()}


def test_the_best_is_kept_and_the_one_before_removed(tmp_path: Path) -> None:
    best = best_of(tmp_path, "fid", 0)
    assert [consider(tmp_path, best, step, value) for step, value in ((1, 3.0), (2, 2.0), (3, 2.5))] == [
        True,
        True,
        False,
    ]
    assert files(tmp_path) == {"best-00000002.pt"}
    found = read_best(tmp_path)
    assert found is not None
    assert (found["step"], found["key"], found["value"]) == (2, "fid/x", 2.0)
    assert str(best) == "fid/x 2 at step 2 (best-00000002.pt)"


def test_higher_may_be_better(tmp_path: Path) -> None:
    best = best_of(tmp_path, "fid", 0)
    assert consider(tmp_path, best, 1, 1.0, better="higher")
    assert consider(tmp_path, best, 2, 2.0, better="higher")
    assert not consider(tmp_path, best, 3, 2.0, better="higher")


def test_nan_is_never_the_best(tmp_path: Path) -> None:
    best = best_of(tmp_path, "fid", 0)
    nan = float("nan")
    assert [consider(tmp_path, best, step, value) for step, value in ((1, nan), (2, 9.0), (3, nan), (4, 8.0))] == [
        False,
        True,
        False,
        True,
    ]
    assert files(tmp_path) == {"best-00000004.pt"}


def test_a_best_that_comes_again_is_forgotten(tmp_path: Path) -> None:
    """A run that was interrupted after step 4 and resumes from step 3 will evaluate step 4 again."""
    consider(tmp_path, best_of(tmp_path, "fid", 0), 4, 1.0)
    assert best_of(tmp_path, "fid", 3).found is None
    assert best_of(tmp_path, "fid", 4).found is not None


def test_a_best_that_a_retry_may_need_stays_as_long_as_its_checkpoint(tmp_path: Path) -> None:
    """Best values at steps 1, 3, 4 and 6: a retry from step 2 needs that of 1, from step 5 that of 4."""
    steps = [2]
    best = best_of(tmp_path, "fid", 0, lambda: steps)
    for step, value in ((1, 9.0), (3, 8.0), (4, 7.0)):
        assert consider(tmp_path, best, step, value)
    assert files(tmp_path) == {"best-00000001.pt", "best-00000004.pt"}
    steps[:] = [2, 5]
    assert consider(tmp_path, best, 6, 6.0)
    assert files(tmp_path) == {f"best-0000000{step}.pt" for step in (1, 4, 6)}
    steps[:] = [5]
    assert not consider(tmp_path, best, 7, 6.5)
    assert files(tmp_path) == {"best-00000004.pt", "best-00000006.pt"}
    forget_best_after(tmp_path, 5)
    found = read_best(tmp_path)
    assert found is not None
    assert (found["step"], found["value"]) == (4, 7.0)
    assert files(tmp_path) == {"best-00000004.pt"}
    assert not consider(tmp_path, best_of(tmp_path, "fid", 5, lambda: steps), 6, 7.5), "the earlier one is better"


def test_a_resumed_run_has_the_best_of_its_checkpoint(tmp_path: Path) -> None:
    """Case of a retry that was killed before it had written anything: the later best is dropped."""
    best = best_of(tmp_path, "fid", 0, lambda: [2])
    assert consider(tmp_path, best, 1, 2.0)
    assert consider(tmp_path, best, 3, 1.0)
    found = best_of(tmp_path, "fid", 2, lambda: [2]).found
    assert found is not None
    assert found == read_best(tmp_path)
    assert found["step"] == 1


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"step": 1}'])
def test_a_record_without_its_checkpoint_counts_as_none(tmp_path: Path, damage: str) -> None:
    consider(tmp_path, best_of(tmp_path, "fid", 0), 1, 1.0)
    (tmp_path / "best.json").write_text(damage)
    assert read_best(tmp_path) is None


def test_a_lost_checkpoint_counts_as_none(tmp_path: Path) -> None:
    consider(tmp_path, best_of(tmp_path, "fid", 0), 1, 1.0)
    (tmp_path / "checkpoints" / "best-00000001.pt").unlink()
    assert read_best(tmp_path) is None


def test_two_protocols_have_no_best(tmp_path: Path) -> None:
    best = best_of(tmp_path, "fid", 0)
    consider(tmp_path, best, 1, 1.0)
    with pytest.raises(UserError, match=r"at step 1: they differ in num_fid \(10, 20\)"):
        consider(tmp_path, best, 2, 0.5, hash="b", fields={"num_fid": 20})


def test_a_value_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"got 'kid', expected one of the values that can be ranked: fid/x"):
        consider(tmp_path, best_of(tmp_path, "kid", 0), 1, 1.0)


def test_training_keeps_the_best(train: Any, tmp_path: Path) -> None:
    options = [f"--set=train.{name}" for name in ("steps=6", "eval_every=1", "checkpoint_every=2", "keep_best=fid")]
    trained: Result = done(train("run", *options))
    run = tmp_path / "run"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    values = {line["step"]: line["metrics"]["fid/pixels"] for line in lines if "metrics" in line}
    found = read_best(run)
    assert found is not None
    assert found["value"] == min(values.values()) == values[found["step"]]
    assert torch.load(run / "checkpoints" / found["checkpoint"])["state"]["step"] == found["step"]
    assert [path.name for path in list_checkpoints(run)] == ["step-00000004.pt", "step-00000006.pt"]
    assert "best fid/pixels" in trained.output
    done(call("gan-eval", "--run", run, "--best", "--metrics=fid", "--device=cpu"))
    report = json.loads((run / "reports" / f"{found['step']:08d}-2" / "report.json").read_text())
    assert report["values"]["fid/pixels"]["value"] == found["value"]
    assert report["values"]["fid/pixels"]["hash"] == found["hash"]


def test_a_run_without_a_best_is_one_sentence(copied: Callable[..., Path], tmp_path: Path) -> None:
    copied("run", "train.steps=1")
    refused(call("gan-eval", "--run", tmp_path / "run", "--best", "--metrics=fid"), "has no best checkpoint")


def test_an_interrupted_run_keeps_the_same_best(train: Any, tmp_path: Path) -> None:
    options = [f"--set=train.{name}" for name in ("steps=6", "eval_every=1", "checkpoint_every=2", "keep_best=fid")]
    train("whole", *options)
    train("parts", *options, "--stop-after", "3")
    train("parts", *options, "--resume")
    whole, parts = read_best(tmp_path / "whole"), read_best(tmp_path / "parts")
    assert whole == parts
    assert whole is not None


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["train.keep_best=fid"], "set train.eval_every"),
        (["train.keep_best=kid", "train.eval_every=2"], "got 'kid', expected one of fid"),
        (["train.keep_best=elhist", "train.eval_every=2", "eval.metrics=elhist"], "expected one of a metric"),
        (["train.keep_best=nd", "train.eval_every=2", "eval.metrics=nd"], "nd_short/srn2020/softplus_fake"),
        (["train.keep_best=fid", "train.eval_every=2", "eval.extractor=pixels,classifier"], "with several extractors"),
    ],
)
def test_what_cannot_be_kept_is_refused_before_training(train: Any, settings: list[str], sentence: str) -> None:
    refused(train("run", *(f"--set={setting}" for setting in settings)), "train.keep_best", sentence)


def test_a_changed_evaluation_is_refused_before_training_goes_on(train: Any, tmp_path: Path) -> None:
    settings = ["--set=train.keep_best=fid", "--set=train.eval_every=2", "--set=eval.num_fid=40"]
    done(train("run", *settings, "--stop-after=2"))
    changed = train("run", *settings, "--set=eval.num_fid=30", "--resume")
    refused(changed, "another protocol at step 2", "num_generated", "restore the settings of the evaluation")
    assert "step 3" not in changed.output
    done(train("run", *settings, "--set=eval.num_fid=30", "--set=train.keep_best=''", "--resume", "--stop-after=3"))
    done(train("run", *settings, "--resume", "--stop-after=5"))
