"""Tests of gan-export: networks as safetensors files and as a program, and their model card."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from commands import call, done, refused

from gan.build import load_discriminator, load_generator
from gan.errors import CheckpointError
from gan.measuring.exported import load_exported

SETTINGS = ("conditional=true", "train.steps=2", "train.ema_decay=0.5")


@pytest.fixture(scope="module")
def exported(trained: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run that was evaluated in training, and its exported folder. A newer report is of the raw generator."""
    settings = (*SETTINGS, "train.eval_every=2", "train.keep_best=fid")
    run = shutil.copytree(trained(*settings), tmp_path_factory.mktemp("measured") / "run")
    done(call("gan-eval", "--run", run, "--metrics", "fid", "--device", "cpu", "--set=eval.ema=false"))
    out = run.parent / "exported"
    result = done(call("gan-export", "--run", run, "--best", "--program", "--out", out))
    assert f"scores: {run / 'reports' / '00000002'}\n" in result.output
    return run, out


def test_loaded_networks_and_the_program_compute_what_the_runs_do(exported: tuple[Path, Path]) -> None:
    run, out = exported
    latents, labels = torch.randn(5, 16), torch.arange(5)
    found = load_exported(out)
    images = load_generator(run)(latents, labels)
    assert torch.equal(found.generator(latents, labels), images)
    assert torch.equal(found.discriminator(images, labels), load_discriminator(run)(images, labels))
    assert found.class_names[0] == "circle"
    program = torch.export.load(out / "generator.pt2").module()
    torch.testing.assert_close(program(latents, labels), images, rtol=1e-5, atol=1e-5)  # sums in another order


def test_the_card_has_working_code_the_scores_and_no_place_on_this_machine(exported: tuple[Path, Path]) -> None:
    run, out = exported
    card = (out / "README.md").read_text()
    assert str(run.parent.parent) not in card
    assert re.search(r"\| fid/\S+ \| [\d.e+]+ \| .*weights ema", card)
    assert "drawn by this package" in card
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    names: dict[str, torch.Tensor] = {}
    exec(code.replace("FOLDER", str(out)), names)
    assert names["images"].shape == (16, 3, 32, 32)


def test_what_cannot_be_exported_or_loaded(trained: Callable[..., Path], exported: tuple[Path, Path]) -> None:
    run, out = exported
    refused(call("gan-export", "--run", run, "--out", out), "the folder is not empty")
    file = out / "README.md"
    refused(call("gan-export", "--run", run, "--out", file), "networks cannot be written", "choose another --out")
    for command, arguments in (
        ("gan-eval", ["--checkpoint", out / "generator.safetensors", "--metrics", "fid"]),
        ("gan-sample", ["--run", out]),
        ("gan-export", ["--checkpoint", out, "--out", out.parent / "again"]),
    ):
        refused(call(command, *arguments), "exported networks: gan-sample --checkpoint, gan-train --from and")
    done(call("gan-sample", "--checkpoint", out, "--out", out.parent / "drawn"))
    with pytest.raises(CheckpointError, match="no such file"):
        load_exported(run)
    unmeasured = out.parent / "unmeasured"
    done(call("gan-export", "--run", trained(*SETTINGS), "--half", "--out", unmeasured))
    assert "None was measured." in (unmeasured / "README.md").read_text()
    assert (unmeasured / "generator.safetensors").stat().st_size < (out / "generator.safetensors").stat().st_size
    content = bytearray((unmeasured / "discriminator.safetensors").read_bytes())
    content[-9] ^= 16
    (unmeasured / "discriminator.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="its checksum is wrong"):
        load_exported(unmeasured)
