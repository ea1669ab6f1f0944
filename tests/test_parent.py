"""Tests of gan-train --from: a run that begins with the networks of another one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result
from commands import call, done, refused
from equality import lines, same

from gan.build import load_discriminator
from gan.config import Config
from gan.config.loading import load
from gan.models import ResNetDiscriminator, ResNetGenerator, inherit_
from gan.normalization import bake
from gan.runs.checkpoint import read_checkpoint

Train = Callable[..., Result]
PARENT = ("train.steps=2", "train.ema_decay=0.5", "conditional=true")


def test_a_child_begins_with_its_parents_networks_and_resumes_without_it(
    copied: Callable[..., Path], train: Train, tmp_path: Path
) -> None:
    parent = read_checkpoint(copied("parent", *PARENT)).state
    options = ["--set=conditional=true", "--set=train.ema_decay=0.5", "--set=train.batch_size=4"]
    begun = [*options, "--set=train.steps=6", f"--from={tmp_path / 'parent'}"]
    assert "began with the networks of smoke at step 2" in done(train("whole", *begun)).output
    done(train("parts", *begun, "--stop-after=3"))
    first = torch.load(tmp_path / "parts" / "checkpoints" / "step-00000000.pt")["state"]
    for part in ("generator", "discriminator", "average"):
        same(first[part], parent[part], part)
    assert first["g_optimizer"]["state"] == {} == first["d_optimizer"]["state"]
    shutil.rmtree(tmp_path / "parent")
    done(call("gan-train", "--run", tmp_path / "parts", "--resume", "--device=cpu"))
    whole, parts = (read_checkpoint(tmp_path / run) for run in ("whole", "parts"))
    same(whole.state, parts.state)
    assert lines(tmp_path / "whole") == lines(tmp_path / "parts")
    record = json.loads((tmp_path / "parts" / "run.json").read_text())
    assert record["parent"] == whole.state["parent"]
    assert (record["parent"]["step"], record["parent"]["new"]) == (2, [])
    child = load(Config, tmp_path / "parts" / "config.yaml")
    assert child.parent == record["parent"]["networks"]
    assert child.identity() == record["identity"] != child.model_copy(update={"parent": None}).identity()
    elsewhere = f"--config={tmp_path / 'parts' / 'config.yaml'}"
    refused(call("gan-train", elsewhere, "--run", tmp_path / "new"), "of another run: give its checkpoint by --from")


@pytest.mark.parametrize("normalization", ["none", "sn", "bssn"])
def test_another_normalization_begins_with_the_same_function(
    normalization: str, trained: Callable[..., Path], train: Train, tmp_path: Path
) -> None:
    """The parent's is srn, whose weights have norm 1, so that a spectral normalization changes them little."""
    parent = trained(*PARENT)
    changed = ["--set=train.steps=0", f"--set=discriminator.normalization={normalization}", "--set=conditional=true"]
    done(train("child", *changed, f"--from={parent}"))
    images, labels = torch.rand(4, 3, 32, 32), torch.arange(4)
    expected = bake(load_discriminator(parent))(images, labels)
    found = load_discriminator(tmp_path / "child")(images, labels)
    if normalization == "none":
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)  # sums in another order
    else:  # singular values are estimated by one power iteration, bssn also scales by the norm of the transposed layout
        assert torch.nn.functional.cosine_similarity(found, expected, dim=0) > 0.9


@pytest.mark.parametrize("ema", ["0.5", "0"])
def test_exported_networks_are_a_parent_too(
    ema: str, trained: Callable[..., Path], train: Train, tmp_path: Path
) -> None:
    """Without an average they are those of the checkpoint: the same experiment."""
    parent, begun = (
        trained(PARENT[0], f"train.ema_decay={ema}", PARENT[2]),
        ["--set=train.steps=0", f"--set={PARENT[2]}"],
    )
    done(call("gan-export", "--run", parent, "--out", tmp_path / "exported"))
    done(train("of-exported", *begun, f"--from={tmp_path / 'exported'}"))
    done(train("of-run", *begun, f"--from={parent}"))
    found, other = (read_checkpoint(tmp_path / run).state for run in ("of-exported", "of-run"))
    same(found["discriminator"], other["discriminator"])
    same(found["generator"], read_checkpoint(parent).state["generator" if ema == "0" else "average"])
    assert (found["parent"] == other["parent"]) == (ema == "0")
    (tmp_path / "exported" / "discriminator.safetensors").unlink()
    refused(
        train("more", *begun, f"--from={tmp_path / 'exported'}"), "holds a generator only", "a folder of gan-export"
    )


def test_other_numbers_of_classes_have_new_tables(trained: Callable[..., Path], train: Train, tmp_path: Path) -> None:
    parent = trained(*PARENT)
    output = done(train("child", "--set=train.steps=0", f"--from={parent}")).output
    assert "as the parent has 10 classes and this run 0: generator.blocks.0.bn1, " in output
    before, after = (read_checkpoint(run).state for run in (parent, tmp_path / "child"))
    new = after["parent"]["new"]
    assert all(".bn" in layer for layer in new)
    assert torch.equal(before["generator"]["to_rgb.weight"], after["generator"]["to_rgb.weight"])
    for make, ends in ((ResNetGenerator, ("gamma", "beta")), (ResNetDiscriminator, ("embedding",))):
        network, other = make(channels=4, num_classes=3), make(channels=4, num_classes=10)
        own = {name.rpartition(".")[0] for name in network.state_dict()}
        kept = inherit_(network, other)
        assert set(kept) == {layer for layer in own if layer.endswith(ends)} != set()
        theirs = other.state_dict()
        rest = {name: tensor for name, tensor in network.state_dict().items() if name.rpartition(".")[0] not in kept}
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in rest.items())


def test_what_does_not_fit_is_refused(trained: Callable[..., Path], train: Train, tmp_path: Path) -> None:
    parent = trained(*PARENT)
    wider = ["--set=generator.channels=16", "--set=discriminator.c=0.9", "--set=conditional=true", f"--from={parent}"]
    for dry in ([], ["--dry-run"]):
        refused(
            train("child", *wider, *dry),
            "its generator has other layers or shapes",
            "linear",
            "set these settings as there, or begin without --from (now, then): generator.channels: 16, 8",
        )
    grey = train("child", "--set=data.root=drawn", "--set=data.channels=1", "--dry-run", *wider[1:])
    refused(grey, "to_rgb; set these settings as there", "data.channels: 1, None")
    swept = train("child", *wider[1:], "--sweep=generator.channels=8,16")
    refused(swept, "generator.channels: 16, 8")
    assert "discriminator.c:" not in swept.output
    for place, advice in (
        (tmp_path / "nowhere", "no such checkpoint or run folder"),
        (parent.parent, f"give one of the runs in it: {parent}"),
        (parent / "checkpoints", f"give the run, {parent}"),
    ):
        refused(train("child", "--from", place), advice)
    assert not (tmp_path / "child").exists()
