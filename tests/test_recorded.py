"""Tests of the comparison of images with those of a run's training."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from commands import call, done, refused

from gan.data.packed import verify_packed
from gan.runs.finding import list_checkpoints

Run = Callable[..., Result]
Other = Callable[[str], Path]
COMMANDS = {"gan-eval": ("gan-train", "smoke"), "gan-eval-classifier": ("gan-train-classifier", "classifier_smoke")}
SMALL = {
    "gan-eval": ["train.steps=1", "train.eval_every=1", "train.keep_best=fid", "eval.cache=false"],
    "gan-eval-classifier": ["train.epochs=1", "data.num_train=100", "classifier.channels=4", "train.milestones=[]"],
}
ON_TEST = {"gan-eval": "eval.reference=test", "gan-eval-classifier": "eval.split=test"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, small_shapes: Path) -> dict[str, Path]:
    """A run of each kind on `small_shapes`, by the command that evaluates it; must not be changed."""
    found = {}
    for command, (train, config) in COMMANDS.items():
        found[command] = tmp_path_factory.mktemp("recorded") / "run"
        settings = [f"--set={setting}" for setting in (f"data.root={small_shapes}", *SMALL[command])]
        done(call(train, "--config", config, "--run", found[command], "--device=cpu", *settings))
    return found


def entry_of(run: Path) -> dict[str, Any]:
    """Report of an evaluation that wrote into `run / out`."""
    return json.loads((run / "out" / "report.json").read_text())


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_other_images_are_refused_or_named_in_the_protocol(
    runs: dict[str, Path], command: str, split: str, tmp_path: Path, small_shapes: Path, other_shapes: Other
) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs[command], run)
    metric = {"gan-eval": "fid", "gan-eval-classifier": "accuracy"}[command]
    options = ["--run", run, "--metrics", metric, "--device=cpu", "--out", run / "out"]
    options += [f"--set={ON_TEST[command]}"] if split == "test" else []
    options += ["--set=eval.num_real=100"] if command == "gan-eval" else []
    other = f"--set=data.root={other_shapes(split)}"
    words = "was trained on other images" if split == "train" else "has other test images"
    found = call(command, *options, other)
    refused(found, f"{words} than those in '{other_shapes(split)}'", "fingerprint", f"in {small_shapes} then")
    if command == "gan-eval":
        refused(call(command, *options, other, "--best"), words)
    said = done(call(command, *options)).output
    assert "images than" not in said
    assert "recorded" not in said
    plain = entry_of(run)
    assert plain["subject"]["images"] == {split: "as in training"}
    unaffected = "test" if split == "train" else "train"
    done(call(command, *options, f"--set=data.root={other_shapes(unaffected)}"))  # this split is the same there
    assert entry_of(run)["values"] == plain["values"]
    assert (
        f"note: the {split} images are others"
        in done(call(command, *options, other, "--set=eval.other_images=true")).output
    )
    key = next(iter(plain["values"]))
    entries = [report["values"][key] for report in (plain, entry_of(run))]
    assert entries[0]["hash"] != entries[1]["hash"]
    fields = [str(entry["fields"]) for entry in entries]
    assert ["other_images" in text for text in fields] == [False, True]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_of_an_earlier_version_is_measured_with_a_note(
    runs: dict[str, Path], command: str, tmp_path: Path, other_shapes: Other
) -> None:
    """It recorded the training images only."""
    run = tmp_path / "run"
    shutil.copytree(runs[command], run)
    for file in list_checkpoints(run):
        content = torch.load(file)
        del content["state"]["other_fingerprints"]
        torch.save(content, file)
    (run / "run.json").unlink()
    small = ["--set=eval.num_real=100"] if command == "gan-eval" else []
    options = ["--run", run, f"--set={ON_TEST[command]}", *small, "--out", run / "out", "--device=cpu"]
    result = done(call(command, *options, f"--set=data.root={other_shapes('test')}"))
    assert "note: the run recorded no fingerprint of its test images, so these may be others" in result.output
    refused(call(command, "--run", run, f"--set=data.root={other_shapes('train')}"), "was trained on other images")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_records_its_images_and_goes_on_with_them_only(
    runs: dict[str, Path], command: str, tmp_path: Path, small_shapes: Path, other_shapes: Other
) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs[command], run)
    data = json.loads((run / "run.json").read_text())["data"]
    assert data["root"] == str(small_shapes)
    known = {split: images.fingerprint for split, images in verify_packed(small_shapes).items()}
    assert data["fingerprints"]["test"] == known["test"]
    if command == "gan-eval":  # a classifier is trained on some of the images
        assert data["fingerprints"] == known
    train = COMMANDS[command][0]
    longer = {"gan-eval": "train.steps=2", "gan-eval-classifier": "train.epochs=2"}[command]
    shutil.rmtree(run / "reports", ignore_errors=True)
    stored = list_checkpoints(run)[-1]
    content = torch.load(stored)
    section, name = longer.partition("=")[0].split(".")
    content["config"][section][name] = 2
    torch.save(content, stored)
    settings = [f"--set={longer}", *(["--set=eval.reference=test"] if command == "gan-eval" else [])]
    for split, words in (("train", "was trained on other images"), ("test", "has other test images")):
        other = f"--set=data.root={other_shapes(split)}"
        refused(call(train, "--run", run, "--resume", "--device=cpu", *settings, other), words)
    assert (run / "metrics.jsonl").read_bytes() == (runs[command] / "metrics.jsonl").read_bytes(), "no step was trained"
