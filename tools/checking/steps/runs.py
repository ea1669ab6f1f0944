"""Steps "fast-and-plain" and "training": runs of gan-train, in processes as a user starts them."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from compare_runs import log_of

from checking.conditions import ROOT, Conditions, Record
from gan.data import ImageData
from gan.data.packed import is_packed, pack

COMPARED = ("d_loss", "g_loss", "real_logit", "fake_logit")
SHOWN = ("step", *COMPARED, "images_per_second")
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TINY = (
    *("train.steps=2", "train.batch_size=2", "train.log_every=1", "generator.channels=8", "discriminator.channels=8"),
    *("eval.num_real=20", "eval.num_fid=20", "eval.num_is=20"),
)
RESERVED = 60.0
"""Seconds of the training's time for packing its images, evaluating and writing its results."""


def fast_and_plain(conditions: Conditions) -> Iterator[Record]:
    """Trains with the fast and with the plain step on drawn shapes; yields both logs and their differences."""
    config = conditions.choose("cifar10_srn70", "smoke")
    full = ["data.name=shapes", "data.title=shapes", "train.steps=300", "train.log_every=25", "train.precision=bf16"]
    settings = conditions.choose(full, ["train.steps=4", "train.log_every=2", "train.precision=bf16"])
    settings += ["train.sample_every=0", "train.checkpoint_every=0"]
    logs: dict[str, list[Record]] = {}
    steps = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, fast in (("fast", "on"), ("plain", "off")):
            run = Path(folder) / name
            _call("gan.train", conditions, "--config", config, *_set([*settings, f"train.fast={fast}"]), "--run", run)
            lines = (json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines())
            logs[name] = [{key: line[key] for key in SHOWN} for line in lines if COMPARED[0] in line]
            steps[name] = json.loads((run / "run.json").read_text())["step"]
            yield {"logs": logs, "steps": steps}
    differences = [_difference(*pair) for pair in zip(logs["fast"], logs["plain"], strict=True)]
    yield {
        "captured": str(steps["fast"]).startswith("fast step"),
        "differences": differences,
        "difference of the first line": differences[0],
    }


def _difference(ours: Record, theirs: Record) -> float:
    """Largest relative difference of the losses and logits of a log line; differences below 1 count as of 1."""
    return max(abs(ours[key] - theirs[key]) / max(1.0, abs(theirs[key])) for key in COMPARED)


def training(conditions: Conditions) -> Iterator[Record]:
    """Trains SRN-70 on the images for the time left, then measures it; leaves log, samples, report and generator."""
    with tempfile.TemporaryDirectory() as folder:
        run, data = Path(folder) / "run", _packed(Path(folder) / "packed", conditions)
        names = [f"data.root={data}", "train.precision=bf16", "train.fast=auto", "eval.extractor=classifier"]
        names += conditions.choose(["train.ema_decay=0.999"], [*TINY])
        minutes = max(0.1, (conditions.seconds - RESERVED) / 60)
        given = ["--with", "jpeg", *_set(names), "--max-minutes", f"{minutes:.2f}", "--run", run]
        _call("gan.train", conditions, "--config", "cifar10_srn70", *given)
        _keep(run / "metrics.jsonl", conditions.out / "training-metrics.jsonl")
        samples = sorted(path for path in run.joinpath("samples").rglob("*.png"))
        _keep(samples[-1], conditions.out / "training-samples.png")
        yield {
            "step": json.loads((run / "run.json").read_text())["step"],
            "minutes": minutes,
            "log": log_of(run)[-1],
        }
        _call("gan.evaluate", conditions, "--run", run, "--metrics", "fid,is")
        (report,) = run.joinpath("reports").rglob("report.json")
        _keep(report, conditions.out / "training-report.json")
        yield {"values": json.loads(report.read_text())["values"]}
        exported, out = Path(folder) / "exported", conditions.out / "training-generator.safetensors"
        origin = f"{Path(conditions.images).name or 'random pixels'}, given to tools/gpu_check.py"
        wanted = ["--run", run, "--origin", origin, "--half", "--out", exported]
        _call("gan.export", conditions, *wanted, device=False)
        _keep(exported / out.name.removeprefix("training-"), out)
        yield {"generator, MiB": round(out.stat().st_size / 2**20, 2)}


def _packed(out: Path, conditions: Conditions) -> Path:
    """Packed data set of the given images, or without any of random ones."""
    if conditions.images and is_packed(conditions.images):
        return Path(conditions.images)
    if conditions.images:
        _call("prepare_dataset", conditions, "--root", conditions.images, "--out", out, device=False)
        return out
    pixels = torch.randint(0, 256, (60, 3, 32, 32), dtype=torch.uint8)
    splits = {split: ImageData(pixels, torch.arange(60) % 10, CLASSES, "folder", split) for split in ("train", "test")}
    return pack(splits, out, image_size=32, crop=0, resize="none", overwrite=False)


def _set(settings: list[str]) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def _call(module: str, conditions: Conditions, *arguments: object, device: bool = True) -> None:
    """Runs a command or a tool of the project; its output goes to the step's."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    command += ["--device", conditions.device] if device else []
    subprocess.run(command, cwd=ROOT, check=True)


def _keep(file: Path, out: Path) -> None:
    shutil.copyfile(file, out)
