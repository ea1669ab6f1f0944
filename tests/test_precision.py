"""Test that no command runs a network with TF32 convolutions, torch's default on a GPU."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from commands import call, done
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

LAYERS = (nn.Conv2d, nn.Linear)


@pytest.fixture
def precisions() -> Iterator[set[tuple[str, str]]]:
    """Collects the precisions of convolutions and matrix products, as set whenever a layer is called."""
    seen: set[tuple[str, str]] = set()

    def note(module: nn.Module, inputs: object) -> None:
        if isinstance(module, LAYERS):
            convolutions, products = torch.backends.cudnn.conv, torch.backends.cuda.matmul  # type: ignore[attr-defined]
            seen.add((convolutions.fp32_precision, products.fp32_precision))

    hook = register_module_forward_pre_hook(note)
    yield seen
    hook.remove()


def test_every_command_runs_networks_in_full_float32(
    precisions: set[tuple[str, str]], small_shapes: Path, tmp_path: Path
) -> None:
    run, small = tmp_path / "run", f"--set=data.root={small_shapes}"
    counts = [f"--set=eval.{name}=40" for name in ("num_fid", "num_real", "nd.num_samples")]
    training = [
        "--set=train.steps=1",
        "--set=train.eval_every=1",
        "--set=eval.bn_mode=standing",
        "--set=eval.nd.steps=1",
    ]
    for command, *arguments in (
        ("gan-train", "--config=smoke", f"--run={run}", small, *training, *counts, "--set=eval.metrics=fid,nd"),
        ("gan-eval", f"--run={run}", "--metrics=fid", small, *counts),
        ("gan-sample", f"--run={run}", "--num=2", "--standing-statistics"),
        ("gan-sample", f"--run={run}", "--num=1", "--interpolate=2"),
        ("gan-sample", "--demo", f"--out={tmp_path / 'demo'}"),
    ):
        precisions.clear()
        done(call(command, *arguments))
        assert precisions == {("ieee", "ieee")}, (command, *arguments)
    done(call("gan-export", "--run", run, "--out", tmp_path / "exported"))
    assert precisions == {("ieee", "ieee")}
    precisions.clear()
    done(
        call(
            "gan-train-classifier",
            "--config=classifier_smoke",
            f"--run={tmp_path / 'c'}",
            small,
            "--set=train.epochs=1",
            "--set=data.num_train=200",
        )
    )
    done(call("gan-eval-classifier", f"--run={tmp_path / 'c'}", small))
    assert precisions == {("ieee", "ieee")}
