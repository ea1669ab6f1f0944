"""Tests of the command lines: help, dry runs, outputs, error messages."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from commands import COMMANDS, call, done, refused
from PIL import Image

from evaluation.__main__ import main as evaluation
from gan.config import available_configs, load_config
from gan.data.shapes import SHAPES
from gan.runs.finding import list_checkpoints

ROOT = Path(__file__).resolve().parent.parent
Train = Callable[..., Result]
Copied = Callable[..., Path]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_worked_examples(command: str) -> None:
    output = call(command, "--help").output
    assert output.count(f"  {command} ") >= 3, output


@pytest.mark.parametrize("name", ["cifar10_sn", "cifar10_srn70", "cifar10_cond_srn70", "celeba_sn"])
def test_dry_run_builds_without_data(name: str) -> None:
    result = done(call("gan-train", "--config", f"{name}.yaml", "--dry-run"))
    expected = {
        "cifar10_sn": ["4,276,739", "1,053,824", "unconditional"],
        "cifar10_srn70": ["4,276,739", "srn, c = 0.7, lowers the stable rank of 1 of 10 layers", "no gradient: linear"],
        "cifar10_cond_srn70": ["4,304,387", "1,055,104", "10 classes"],
        "celeba_sn": ["12,220,675", "10,141,441", "64x64"],
    }[name]
    for part in expected:
        assert part in result.output


@pytest.mark.slow
def test_every_configuration_builds(small_shapes: Path) -> None:
    """Configurations of the data set `folder` get existing files, from which classes are counted."""
    for name in available_configs():
        folder = load_config(name).data.name == "folder"
        given = ["--set=data.name=shapes", f"--set=data.root={small_shapes}"] if folder else []
        result = call("gan-train", "--config", name, "--dry-run", *given)
        assert result.exit_code == 0, (name, result.output)


def test_print_config_is_a_configuration(tmp_path: Path) -> None:
    printed = call("gan-train", "--config", "cifar10_srn70", "--set=train.seed=3", "--print-config").output
    (tmp_path / "again.yaml").write_text(printed)
    assert call("gan-train", "--config", tmp_path / "again.yaml", "--print-config").output == printed


def test_list_names_everything() -> None:
    output = call("gan-train", "--list").output
    for name in ("cifar10_srn70", "shapes", "resnet", "srn", "hinge", "nd", "inception", "SRN paper, Table 2:", "jpeg"):
        assert name in output


def test_a_variant_from_the_command_line_changes_settings_and_name(tmp_path: Path) -> None:
    arguments = ["--config", "smoke", "--with", "srn30", "--set=discriminator.c=0.4", "--print-config"]
    config = yaml.safe_load(call("gan-train", *arguments).output)
    assert (config["name"], config["discriminator"]["c"]) == ("smoke-srn30", 0.4)
    refused(call("gan-train", "--run", tmp_path, "--resume", "--with", "srn30"), "--with", "--config")
    refused(call("gan-train", "--config", "cifar10_jpeg_srn50"), "--config cifar10_srn50 --with jpeg")
    refused(call("gan-train", "cifar10_sn"), "unexpected extra argument (cifar10_sn)", "--config NAME")


WRONG_TRAINING = {
    "unknown config": (("--config", "cifar10_snr70"), ["did you mean 'cifar10_srn70.yaml'"]),
    "unknown name": (("--config", "smoke", "--set=data.name=shpes"), ["data.name: got 'shpes'", "'shapes'"]),
    "unknown metric": (("--config", "smoke", "--set=eval.metrics=fdi"), ["fdi", "fid"]),
    "unknown extractor": (("--config", "smoke", "--set=eval.extractor=inceptoin"), ["'inception'"]),
    "missing data": (
        ("--config", "smoke", "--set=data.name=folder", "--set=data.root=nowhere"),
        ["nowhere"],
    ),
    "unknown device": (("--config", "smoke", "--device", "cuda:99"), ["--device cuda:99"]),
    "no such processor": (("--config", "smoke", "--device", "cpu:3"), ["--device cpu:3"]),
    "device without data": (("--config", "smoke", "--device", "meta", "--dry-run"), ["--device meta"]),
    "too large": (("--config", "smoke", "--set=generator.channels=2000000000", "--dry-run"), ["less than or equal"]),
    "unknown name, built": (("--config", "smoke", "--set=data.name=shpes", "--dry-run"), ["'shapes'"]),
    "two contradictions": (("--config", "smoke", "--skip-damaged"), ["--skip-damaged: needs --resume"]),
    "strange device": (("--config", "smoke", "--device", "quantum"), ["--device quantum"]),
    "nothing to resume": (("--run", "nowhere", "--resume"), ["nowhere", "config.yaml"]),
}


@pytest.mark.parametrize("case", WRONG_TRAINING)
def test_wrong_training_is_one_sentence(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, parts = WRONG_TRAINING[case]
    refused(call("gan-train", *arguments), *parts)


def test_networks_that_cannot_fit_are_refused_before_they_are_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gan.build.physical_memory", lambda: 10**9)
    sizes = ["--set=generator.channels=4096", "--set=discriminator.channels=4096"]
    refused(call("gan-train", "--config", "smoke", *sizes, "--dry-run"), "take 33 GB", "has 1 GB")


def test_memory_that_is_refused_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def allocate(*arguments: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr("gan.build.build_generator", allocate)
    refused(call("gan-train", "--config", "smoke", "--dry-run"), "not enough memory")


def test_a_decay_that_never_begins_is_said(small_shapes: Path) -> None:
    """A shortened run of a recipe with a late decay keeps a constant learning rate, which is printed."""
    result = call("gan-train", "--config", "smoke", "--set=train.lr_decay_start=30", "--dry-run")
    assert (
        "the learning rate does not decay: train.lr_decay_start, 30, is not before the last step, 30" in result.output
    )
    result = call("gan-train", "--config", "smoke", "--set=train.lr_decay_start=29", "--dry-run")
    assert "does not decay" not in result.output


def test_conditional_training_needs_classes(tmp_path: Path) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "one.png")
    arguments = ["--config", "smoke", "--set=data.name=folder", f"--set=data.root={tmp_path}"]
    for more in (["--dry-run"], ["--run", tmp_path / "run"]):
        refused(call("gan-train", *arguments, "--set=conditional=true", *more), "1 class", "at least 2")


def test_a_run_folder_explains_itself(copied: Copied, tmp_path: Path) -> None:
    copied("run", "train.steps=10")
    run = tmp_path / "run"
    names = {path.name for path in run.iterdir()}
    assert {"config.yaml", "run.json", "checkpoints", "metrics.jsonl", "samples"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    record = json.loads((run / "run.json").read_text())
    assert {"identity", "commands", "commit", "dirty", "python", "torch", "device"} <= record.keys()
    first, line = (json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()[:2])
    assert (first["step"], line["step"]) == (0, 5)
    assert {"step", "d_loss", "g_loss", "real_logit", "fake_logit", "learning_rate", "images_per_second"} <= line.keys()
    assert {"sigma", "stable_rank", "target_rank", "active"} <= line["layers"][0].keys()


def test_tensorboard_holds_what_it_should(copied: Copied, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    copied("run", "train.steps=10")
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    tags = events.Tags()
    assert "samples" in tags["images"]
    assert "custom_scalars__config__" in tags["tensors"], "charts of several curves"
    for tag in (
        *("loss/discriminator", "loss/generator", "logits/real", "logits/fake"),
        *("train/learning_rate", "train/images_per_second"),
        *("sigma/linear", "stable_rank/blocks.0.conv1", "srn/active/blocks.0.conv1"),
    ):
        assert tag in tags["scalars"], tags["scalars"]
    assert [event.step for event in events.Scalars("sigma/linear")] == [0, 5, 10]
    assert [event.step for event in events.Scalars("loss/generator")] == [5, 10]


def test_the_newest_run_is_the_default(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train("runs/old", "--set=train.steps=1")
    train("runs/new", "--set=train.steps=1")
    monkeypatch.chdir(tmp_path)
    for result in (call("gan-eval", "--metrics", "fid", "--device", "cpu"), call("gan-sample", "--num", "4")):
        assert result.exit_code == 0, result.output
        assert result.output.splitlines()[0] == "newest run: runs/new"


@pytest.mark.parametrize("bn_mode", ["eval", "standing"])
def test_evaluation_does_not_change_training(train: Train, copied: Copied, tmp_path: Path, bn_mode: str) -> None:
    """The networks with and without evaluations are equal bit for bit."""
    copied("without", "train.steps=6")
    train("with", "--set=train.steps=6", "--set=train.eval_every=2", f"--set=eval.bn_mode={bn_mode}")
    states = [torch.load(list_checkpoints(tmp_path / run)[-1])["state"] for run in ("without", "with")]
    for network in ("generator", "discriminator"):
        for key, value in states[0][network].items():
            assert torch.equal(value, states[1][network][key]), key
    assert '"metrics": {"fid/pixels"' in (tmp_path / "with" / "metrics.jsonl").read_text()


def test_sampling_by_class(copied: Copied, tmp_path: Path) -> None:
    copied("run", "train.steps=1", "conditional=true")
    out = tmp_path / "out"
    done(call("gan-sample", "--run", tmp_path / "run", "--class", "star", "--class", "0", "--num", 3, "--out", out))
    assert {path.name for path in out.iterdir()} == {"star", "circle"}
    assert out.with_name("out.png").is_file()
    assert len(list((out / "star").iterdir())) == 3
    with Image.open(out / "star" / "000000.png") as image:
        assert image.size == (32, 32)
    refused(call("gan-sample", "--run", tmp_path / "run", "--class", "cat"), "'cat'", "star")


def test_sampling_is_a_function_of_the_seed(copied: Copied, tmp_path: Path) -> None:
    copied("run", "train.steps=1")
    refused(call("gan-sample", "--run", tmp_path / "run", "--class", "0"), "unconditional")
    grids = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        call(
            "gan-sample", "--run", tmp_path / "run", "--num", 4, "--seed", seed, "--out", tmp_path / name, "--grid-only"
        )
        grids.append((tmp_path / f"{name}.png").read_bytes())
        assert not (tmp_path / name).exists()
    assert grids[0] == grids[1] != grids[2]


def pixels_of(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image)


def _make_classes_differ(checkpoint: Path) -> None:
    """Sets random class embeddings in a generator; those of the first steps are nearly equal."""
    content, random = torch.load(checkpoint), torch.Generator().manual_seed(0)
    embeddings = [tensor for tensor in content["state"]["generator"].values() if tensor.shape[:1] == (len(SHAPES),)]
    assert embeddings
    for tensor in embeddings:
        tensor.normal_(generator=random)
    torch.save(content, checkpoint)


def test_paths_begin_at_the_images_of_the_same_seed(copied: Copied, tmp_path: Path) -> None:
    copied("run", "train.steps=1", "conditional=true")
    _make_classes_differ(list_checkpoints(tmp_path / "run")[-1])
    run, many = ["--run", tmp_path / "run", "--device", "cpu"], ["--class", "star", "--class", "0", "--num", 3]
    done(call("gan-sample", *run, *many, "--out", tmp_path / "images"))
    done(call("gan-sample", *run, *many, "--interpolate", 5, "--out", tmp_path / "paths"))
    assert not (tmp_path / "paths").exists()
    grid = pixels_of(tmp_path / "paths.png")
    assert grid.shape == (6 * 33 + 1, 5 * 33 + 1, 3)
    files = [f"star/00000{i}.png" for i in range(3)] + [f"circle/00000{i}.png" for i in range(3, 6)]
    for row, file in enumerate(files):
        first = grid[1 + 33 * row : 33 + 33 * row, 1:33].astype(int)
        assert np.abs(first - pixels_of(tmp_path / "images" / file)).max() <= 1  # another batch size rounds differently
    last = grid[1:33, 1 + 4 * 33 : 33 + 4 * 33].astype(int)
    assert np.abs(last - grid[1:33, 1:33]).max() > 1


def test_a_second_picture_does_not_replace_the_first(copied: Copied, tmp_path: Path) -> None:
    copied("run", "train.steps=1")
    run = ["--run", tmp_path / "run", "--device", "cpu"]
    for more in (["--grid-only"], ["--grid-only"], ["--interpolate", 3], ["--interpolate", 3, "--num", 2]):
        done(call("gan-sample", *run, "--num", 4, *more))
    names = {file.name for file in (tmp_path / "run" / "samples").iterdir()}
    assert {f"{kind}-00000001{number}.png" for kind in ("generated", "paths") for number in ("", "-2")} <= names
    assert pixels_of(tmp_path / "run" / "samples" / "paths-00000001-2.png").shape[0] == 2 * 33 + 1


def test_ways_of_sampling_change_the_images(copied: Copied, tmp_path: Path) -> None:
    copied("run", "train.steps=1")
    run = ["--run", tmp_path / "run", "--device", "cpu", "--num", 16, "--grid-only"]
    ways = {"plain": [], "truncated": ["--truncation", "0.3"], "standing": ["--standing-statistics"]}
    ways["both"] = ways["truncated"] + ways["standing"]
    for name, way in ways.items():
        done(call("gan-sample", *run, *way, "--out", tmp_path / name))
    assert len({(tmp_path / f"{name}.png").read_bytes() for name in ways}) == 4
    for wrong, said in (("-1", "'--truncation'"), ("inf", "'--truncation'"), ("nan", "eval.truncation: got 'nan'")):
        refused(call("gan-sample", *run, "--truncation", wrong), said)


def test_truncation_is_part_of_the_protocol(copied: Copied, tmp_path: Path) -> None:
    """Without truncation the protocol has no such field, so hashes from before the setting remain valid."""
    copied("run", "train.steps=1")
    entries = []
    for bound in ("0", "0.5"):
        arguments = ["--metrics", "fid", f"--set=eval.truncation={bound}", "--out", tmp_path / bound]
        done(call("gan-eval", "--run", tmp_path / "run", "--device", "cpu", *arguments))
        entries.append(json.loads((tmp_path / bound / "report.json").read_text())["values"]["fid/pixels"])
    generation = {"quantizer": "round", "bn_mode": "eval", "weights": "raw", "labels": "none", "precision": "fp32"}
    assert entries[0]["fields"]["generation"] == {**generation, "truncation": "none", "seed": 0}
    assert entries[1]["fields"]["generation"] == {**generation, "truncation": 0.5, "seed": 0}
    assert entries[0]["hash"] != entries[1]["hash"]
    assert entries[0]["value"] != entries[1]["value"]


@pytest.mark.parametrize("untrained", [("--set", "train.steps=0"), ("--stop-after", "1")])
def test_a_random_gan_is_the_checkpoint_of_step_0(train: Train, tmp_path: Path, untrained: tuple[str, str]) -> None:
    """Figure 5b of the SRN paper uses an untrained discriminator and images of an untrained generator."""
    done(train("run", *untrained))
    first = tmp_path / "run" / "checkpoints" / "step-00000000.pt"
    small = ["--metrics", "elhist", "--set=eval.lipschitz.pairs=20", "--device", "cpu"]
    done(call("gan-eval", "--checkpoint", first, *small))
    document = json.loads((tmp_path / "run" / "reports" / "00000000" / "report.json").read_text())
    assert document["subject"]["step"] == 0
    entry = document["values"]["elhist/real_fake/p95"]
    assert 0 < entry["value"] < 1
    assert entry["count"] == 20
    assert (tmp_path / "run" / "reports" / "00000000" / "elhist.png").is_file()


def test_samples_can_be_evaluated(copied: Copied, tmp_path: Path, small_shapes: Path) -> None:
    """gan-eval reads the output of gan-sample, with and without classes."""
    common = ["--config", "smoke", f"--set=data.root={small_shapes}", "--set=eval.num_fid=40", "--metrics", "fid"]
    for conditional in ("true", "false"):
        run, out = tmp_path / f"run-{conditional}", tmp_path / f"samples-{conditional}"
        copied(run.name, "train.steps=1", f"conditional={conditional}")
        done(call("gan-sample", "--run", run, "--num", 45, "--out", out))
        done(call("gan-eval", "--generated", out, *common, "--device", "cpu", "--out", tmp_path / conditional))
        refused(call("gan-sample", "--run", run, "--num", 4, "--out", out), "not empty")


def test_samples_by_class_keep_the_classes_of_the_data(copied: Copied, tmp_path: Path, small_shapes: Path) -> None:
    """Folders are sorted by name, unlike the data set's classes (circle, ring, ...): classes are matched by name."""
    copied("run", "train.steps=1", "conditional=true")
    out, report = tmp_path / "samples", tmp_path / "report"
    call("gan-sample", "--run", tmp_path / "run", "--num", 40, "--out", out)
    common = ["--config", "smoke", f"--set=data.root={small_shapes}", "--device", "cpu", "--out", report]
    measure = ["--metrics", "intra_fid,fid", "--set=eval.num_intra=4", "--set=eval.num_fid=40"]
    done(call("gan-eval", "--generated", out, *measure, *common))
    document = json.loads((report / "report.json").read_text())
    assert document["class_names"] == list(SHAPES) != sorted(SHAPES)
    with np.load(report / "arrays.npz") as arrays:
        images, labels = arrays["samples"], arrays["sample_labels"]
    assert len(images) == 40
    for image, label in zip(images, labels, strict=True):
        files = [np.asarray(Image.open(file)) for file in (out / list(SHAPES)[label]).iterdir()]
        assert any(np.array_equal(image.transpose(1, 2, 0), pixels) for pixels in files)
    (out / "ring").rename(out / "cat")
    refused(call("gan-eval", "--generated", out, *measure, *common), "got images of class 'cat'", "circle, ")


def test_named_data_sets_are_references(tmp_path: Path, small_shapes: Path) -> None:
    """A reference by name has the values and hashes of the same images by path."""
    options = ["--metrics", "fid", "--set=eval.num_real=0", "--set=eval.num_fid=0", "--set=eval.extractor=pixels"]
    generated = ["--generated", f"{small_shapes}:test", "--device", "cpu"]
    entries = []
    for reference, shown in (("shapes:train", "shapes:train"), (small_shapes, f"{small_shapes}, train")):
        places = ["--reference", reference, f"--set=data.root={small_shapes}", "--out", tmp_path / "out"]
        done(call("gan-eval", *generated, *places, *options))
        report = json.loads((tmp_path / "out" / "report.json").read_text())
        assert report["title"] == f"{small_shapes}:test against {shown}"
        entries.append(report["values"]["fid/pixels"])
    assert entries[0]["value"] == entries[1]["value"] > 0
    assert entries[0]["hash"] == entries[1]["hash"]
    refused(call("gan-eval", *generated, "--reference", "shapes:valid", *options), "expected one of train, test")
    refused(call("gan-eval", *generated, "--reference", "shape", *options), "shape: not found")


def test_samples_of_a_class_called_train_are_read_back(tmp_path: Path) -> None:
    root = tmp_path / "data" / "train"
    for number, name in enumerate(("bus", "caf\u00e9", "train")):
        (root / name).mkdir(parents=True)
        for index in range(4):
            pixels = np.random.default_rng(4 * number + index).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    data = ["--set=data.name=folder", f"--set=data.root={root.parent}", "--set=conditional=true"]
    quick = ["--set=train.steps=1", "--set=train.batch_size=2", "--device=cpu"]
    done(call("gan-train", "--config=smoke", *data, *quick, f"--run={tmp_path / 'run'}"))
    sample = ["gan-sample", "--run", tmp_path / "run", "--device=cpu", "--num", 4, "--out"]
    done(call(*sample, tmp_path / "out", "--class", "train", "--class", "cafe\u0301"))
    assert sorted(path.name for path in (tmp_path / "out" / "train").iterdir()) == ["caf\u00e9", "train"]
    same = ["--metrics=intra_fid", *data, *(f"--set=eval.num_{kind}=0" for kind in ("real", "intra"))]
    done(call("gan-eval", "--generated", root.parent, "--config=smoke", "--device=cpu", *same, "--out", tmp_path / "r"))


def test_both_commands_read_a_folder_alike(tmp_path: Path, small_shapes: Path) -> None:
    """gan-eval and python -m evaluation give the same value under the same hash for the same files and protocol."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "generated.npz", images=pixels)
    np.savez(tmp_path / "real.npz", images=np.load(small_shapes / "train-images.npy"))
    sets = ["--config", "smoke", f"--set=data.root={small_shapes}", "--set=eval.num_fid=50", "--device", "cpu"]
    generated = ["--generated", tmp_path / "generated.npz", "--metrics", "fid"]
    done(call("gan-eval", *generated, *sets, "--out", tmp_path / "a"))
    numbers = ["--reference", tmp_path / "real.npz", "--extractor", "pixels", "--num-real", "500", "--num-fid", "50"]
    arguments = [str(argument) for argument in (*generated, *numbers, "--out", tmp_path / "b")]
    done(CliRunner().invoke(evaluation, arguments))
    first, second = (json.loads((tmp_path / name / "report.json").read_text())["values"]["fid/pixels"] for name in "ab")
    assert first["fields"]["generation"] == {"source": "image files", "seed": 0}
    assert (first["value"], first["hash"]) == (second["value"], second["hash"])


def test_evaluating_twice_keeps_both_reports(copied: Copied, tmp_path: Path) -> None:
    copied("run", "train.steps=1")
    for _ in range(2):
        done(call("gan-eval", "--run", tmp_path / "run", "--metrics", "fid", "--device", "cpu"))
    names = {path.name for path in (tmp_path / "run" / "reports").iterdir()}
    assert names == {"00000001", "00000001-2"}


def test_what_evaluation_lacks_is_said_before_training_or_sampling(
    train: Train, copied: Copied, tmp_path: Path
) -> None:
    evaluating = ["--set=train.steps=4", "--set=train.eval_every=2"]
    refused(train("a", *evaluating, "--set=eval.metrics=is"), "no class probabilities")
    refused(train("b", *evaluating, "--set=eval.num_real=601"), "got 600 reference images, expected 601")
    refused(train("c", "--set=eval.nd.preset=foo"), "foo", "srn2020")
    refused(train("d", "--set=eval.is_splits=999"), "is_splits")
    refused(train("e", *evaluating, "--set=eval.metrics=intra_fid"), "metric intra_fid: got an unconditional generator")
    for run in "abcde":
        assert not (tmp_path / run / "checkpoints").exists()
    copied("run", "train.steps=1")
    impossible = ["--set=eval.num_is=10000000", "--metrics", "fid,is"]
    refused(call("gan-eval", "--run", tmp_path / "run", *impossible), "no class probabilities")


def test_wrong_evaluation_is_one_sentence(copied: Copied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied("run", "train.steps=1")
    run = tmp_path / "run"
    refused(call("gan-eval", "--run", run, "--metrics", "fdi"), "fdi", "did you mean fid")
    refused(call("gan-eval", "--run", run, "--metrics", "fid", "--checkpoint", run), "give only one of them")
    refused(
        call("gan-eval", "--checkpoint", run / "checkpoints" / "step-9.pt"), "no such checkpoint", "step-00000001.pt"
    )
    refused(call("gan-eval", "--run", run, "--set=train.seed=3"), "train.seed: 3, 0", "eval.*")
    refused(call("gan-eval", "--run", run, "--set=eval.num_fid=x"), "eval.num_fid")
    refused(call("gan-eval", "--generated", run, "--metrics", "fid"), "--config, or --reference")
    refused(call("gan-eval", "--reference", "cifar10", "--metrics", "fid"), "--reference: needs --generated")
    refused(call("gan-eval", "--generated", run, "--config", "smoke", "--test", run), "--test: needs --reference")
    refused(call("gan-eval", "--generated", run, "--config", "smoke", "--run", run), "cannot be combined with")
    refused(call("gan-eval", "--run", run, "--metrics", "is"), "pixels")
    monkeypatch.chdir(tmp_path)
    refused(call("gan-eval", "--metrics", "fid"), "no run with a checkpoint")


@pytest.mark.slow
def test_a_wheel_works_outside_the_checkout(tmp_path: Path) -> None:
    """The wheel is built, unpacked beside the installed dependencies, and used from an empty folder."""
    source = tmp_path / "source"
    for name in ("gan", "evaluation", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]
    build += ["--outdir", str(tmp_path / "dist"), str(source)]
    result = subprocess.run(build, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    wheel = next((tmp_path / "dist").glob("*.whl"))
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    empty = tmp_path / "empty"
    empty.mkdir()
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1))\n"
        "import gan.train; assert gan.train.__file__.startswith(sys.path[0]), gan.train.__file__\n"
        "gan.train.main(prog_name='gan-train')"
    )
    for arguments, expected in (
        (["--config", "cifar10_cond_srn70.yaml", "--dry-run"], "1,055,104"),
        (["--config", "cifar10_srn70", "--with", "jpeg", "--print-config"], "root: data/cifar10-jpeg"),
    ):
        command = [sys.executable, "-I", "-c", code, str(site), *arguments]
        run = subprocess.run(command, cwd=empty, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        assert expected in run.stdout
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1))\n"
        "from evaluation import Report, Sources, build_extractor\n"
        "build_extractor('resnet', Sources())\n"
        "from gan.measuring.generator_file import DEMO, read_generator\n"
        "assert read_generator(DEMO).scores.values\n"
        "Report.of([], arrays={}, title='t', subject={}, machine={}).save('report')"
    )
    subprocess.run([sys.executable, "-I", "-c", code, str(site)], cwd=empty, check=True)
    assert "<style>" in (empty / "report" / "report.html").read_text()


def test_compare_runs(train: Train, tmp_path: Path) -> None:
    for run, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(run, "--set=train.steps=2", f"--set=train.seed={seed}")

    def compare(other: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "tools" / "compare_runs.py"), str(tmp_path / "a"), str(tmp_path / other)]
        return subprocess.run([*command, "--assert-equal"], capture_output=True, text=True, check=False, cwd=ROOT)

    assert compare("b").returncode == 0
    result = compare("c")
    assert result.returncode == 1
    assert "differences" in result.stdout


def test_fid_against_statistics_from_a_file(copied: Copied, tmp_path: Path) -> None:
    np.savez(tmp_path / "reference.npz", mu=np.zeros(192), sigma=np.eye(192))
    copied("run", "train.steps=1")
    against = [f"--set=eval.reference_statistics={tmp_path / 'reference.npz'}"]
    done(call("gan-eval", "--run", tmp_path / "run", "--metrics", "fid", *against, "--device", "cpu"))
    report = json.loads((tmp_path / "run" / "reports" / "00000001" / "report.json").read_text())
    assert "reference_statistics" in report["values"]["fid/pixels"]["fields"]
    missing = [f"--set=eval.reference_statistics={tmp_path / 'missing.npz'}"]
    refused(call("gan-eval", "--run", tmp_path / "run", "--metrics", "fid", *missing), "missing.npz", "cannot be read")


def test_statistics_written_for_a_run_stand_for_its_images(
    copied: Copied, tmp_path: Path, small_shapes: Path, other_shapes: Callable[[str], Path]
) -> None:
    """From a run, a configuration or a named data set; a run whose images have changed is refused."""
    copied("run", "train.steps=1")
    run, file, out = ["--run", tmp_path / "run"], tmp_path / "real.npz", tmp_path / "out"
    options = ["--metrics", "fid", "--device", "cpu", "--out", out]

    def fid(*arguments: object) -> dict[str, Any]:
        done(call("gan-eval", *run, *options, *arguments))
        return json.loads((out / "report.json").read_text())["values"]["fid/pixels"]

    images, root = fid(), f"--set=data.root={small_shapes}"
    smoke = "--set=eval.extractor=pixels"
    for source in (run, ["--config", "smoke", root], ["--reference", "shapes", root, smoke, "--set=eval.num_real=500"]):
        written = done(call("gan-eval", *source, "--write-statistics", file, "--device", "cpu"))
        assert f"{file}: statistics of 500 images (shapes, train, 600 images) by extractor pixels" in written.output
        statistics = fid(f"--set=eval.reference_statistics={file}")
        assert statistics["value"] == pytest.approx(images["value"], rel=1e-9, abs=0)
        assert statistics["hash"] == images["hash"]
    other = f"--set=data.root={other_shapes('train')}"
    refused(call("gan-eval", *run, other, "--write-statistics", file), "was trained on other images")
    refused(call("gan-eval", *run, "--metrics=fid", "--write-statistics", file), "--write-statistics: measures nothing")
    refused(call("gan-eval", *run, "--config=smoke", "--write-statistics", file), "expected one source")
    refused(
        call("gan-eval", *run, *options, "--set=eval.protocol=all", "--set=eval.num_fid=null"),
        "eval.num_fid=0 (protocol all)",
    )


def test_lipschitz_constants_are_logged_during_training(train: Train, tmp_path: Path) -> None:
    evaluating = ["train.steps=2", "train.eval_every=2", "eval.metrics=elhist,fid", "eval.lipschitz.pairs=20"]
    done(train("run", *(f"--set={setting}" for setting in evaluating)))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(tmp_path / "run"), size_guidance={"histograms": 0})
    board.Reload()
    kinds = {"elhist/real_fake", "elhist/real_real", "elhist/fake_fake", "elhist/test_fake", "jacobian/real_near"}
    assert {f"metrics/{kind}" for kind in kinds} <= set(board.Tags()["histograms"])
    (event,) = board.Histograms("metrics/elhist/real_fake")
    assert event.step == 2
    assert event.histogram_value.num == 20
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"elhist/real_fake/p95", "jacobian/fake/p95", "fid/pixels"} <= line["metrics"].keys()


def test_every_metric_of_a_conditional_run(copied: Copied, tmp_path: Path) -> None:
    """The report has values by class, distributions, neighbours and training curves; no temporary files are left."""
    copied("run", "conditional=true", "train.steps=2")
    small = ["num_intra=40", "kid_subset_size=50", "kid_subsets=5", "lipschitz.pairs=20"]
    small += ["nd.steps=3", "nd.num_samples=50"]
    sets = [f"--set=eval.{setting}" for setting in small]
    metrics = "fid,fid_infinity,kid,intra_fid,intra_kid,intra_prdc,prdc,nd,elhist"
    result = done(call("gan-eval", "--run", tmp_path / "run", "--metrics", metrics, *sets, "--device", "cpu"))
    folder = tmp_path / "run" / "reports" / "00000002"
    page = (folder / "report.html").read_text()
    for heading in ("All values", "Nearest reference", "Values by class", "Empirical Lipschitz", "Training", "Critics"):
        assert heading in page, heading
    values = json.loads((folder / "report.json").read_text())["values"]
    assert {"fid/pixels", "fid_floor/pixels", "kid/pixels", "precision/pixels", "elhist/real_fake/p95"} <= values.keys()
    header, *rows = [line.split(",") for line in (folder / "classes.csv").read_text().splitlines()]
    by_class = ("fid", "kid", "precision", "recall", "f_score", "density", "coverage")
    assert header == ["class", *(f"intra_{name}/pixels" for name in by_class)]
    assert [row[0] for row in rows] == [*SHAPES, "mean"]
    assert float(rows[-1][1]) == pytest.approx(values["intra_fid/pixels"]["value"], rel=1e-5)
    assert "intra_recall/pixels" in result.output.partition("\nclass ")[2]
    assert pixels_of(folder / "neighbours.png").shape == (16 * 34 + 2, 6 * 34 + 2, 3)
    assert not list((tmp_path / "run").glob("unfinished/*"))


def test_comparing_runs(copied: Copied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seed in (("one", 0), ("two", 1)):
        copied(name, "train.steps=2", f"train.seed={seed}")
        done(call("gan-eval", "--run", tmp_path / name, "--metrics", "fid", "--device", "cpu"))
    both = [tmp_path / "one", tmp_path / "two"]
    result = done(call("gan-eval", "--compare", *both, "--out", tmp_path / "comparison"))
    assert "FID (pixels)" in result.output
    assert (tmp_path / "comparison" / "compare.html").is_file()
    small = ["--set=eval.num_fid=50", "--metrics", "fid", "--device", "cpu"]
    done(call("gan-eval", "--run", tmp_path / "two", *small))
    refused(call("gan-eval", "--compare", *both), "fid/pixels: runs one and two differ in num_generated")
    monkeypatch.chdir(tmp_path)
    done(call("gan-eval", "--compare", *both, "--skip-mixed"))
    refused(call("gan-eval", *both), "got 2 runs, expected one; add --compare")
    refused(call("gan-eval", both[0], "--run", both[1]), "got a second run beside --run")
    assert "step-00000002.pt" in done(call("gan-eval", both[0], *small)).output
    refused(call("gan-eval", "--compare", both[0]), "expected at least two")


def test_what_a_generator_cannot_be_measured_by_is_said_early(copied: Copied, tmp_path: Path) -> None:
    copied("run", "conditional=true", "train.steps=1")
    run = ["--run", tmp_path / "run", "--device", "cpu"]
    uneven = ["--metrics", "intra_fid", "--set=eval.labels=uniform"]
    refused(call("gan-eval", *run, *uneven), "metric intra_fid: got eval.labels=uniform", "set eval.labels=balanced")
    by_share = ["--metrics", "intra_kid", "--set=eval.labels=data"]
    refused(call("gan-eval", *run, *by_share), "equally many images of each class: set eval.labels=balanced")
    drawn = ["--metrics", "gan_test", "--set=eval.labels=uniform"]
    refused(call("gan-eval", *run, *drawn), "class counts that are not random: set eval.labels=balanced or data")
    refused(
        call("gan-eval", *run, "--metrics", "fid", "--set=eval.num_fid=0"),
        "eval.num_fid=0",
        "expected a positive number",
    )


def test_a_generator_that_has_diverged_is_refused(copied: Copied, tmp_path: Path) -> None:
    copied("run", "train.steps=1")
    file = list_checkpoints(tmp_path / "run")[-1]
    content = torch.load(file)
    for tensor in content["state"]["generator"].values():
        if tensor.is_floating_point():
            tensor.fill_(torch.nan)
    torch.save(content, file)
    refused(call("gan-eval", "--run", tmp_path / "run", "--metrics", "fid", "--device", "cpu"), "images are not finite")
    refused(call("gan-sample", "--run", tmp_path / "run", "--device", "cpu"), "images are not finite")


def test_training_images_are_the_same_whatever_fid_compares_with(copied: Copied, tmp_path: Path) -> None:
    copied("run", "train.steps=1")
    values = []
    for protocol in ("srn2020", "test10k"):
        small = [f"eval.protocol={protocol}", "eval.lipschitz.pairs=20", "eval.num_fid=20", "eval.num_real=20"]
        small += [f"eval.nd.{setting}" for setting in ("split=train", "steps=2", "num_samples=20", "num_critics=1")]
        sets = [f"--set={setting}" for setting in small]
        out = tmp_path / protocol
        asked = ["--run", tmp_path / "run", "--metrics", "elhist,nd", "--out", out, "--device", "cpu"]
        done(call("gan-eval", *asked, *sets))
        values.append(json.loads((out / "report.json").read_text())["values"])
    keys = ("elhist/real_fake/p95", "elhist/test_fake/p95", "jacobian/real/p95", "nd_short/srn2020/critic_gap")
    for key in keys:
        assert values[0][key]["value"] == values[1][key]["value"]
        assert values[0][key]["hash"] == values[1][key]["hash"]
    assert values[1]["elhist/real_fake/p95"]["value"] != values[1]["elhist/test_fake/p95"]["value"]


@pytest.mark.parametrize("command", ["python -m evaluation", "gan-eval", "gan-eval of a configuration"])
@pytest.mark.parametrize(
    ("file", "extractor", "message"),
    [
        ("x.txt", "pixels", "expected a file name that ends with .npz"),
        ("folder.npz", "pixels", "folder.npz is a folder"),
        ("file/x.npz", "pixels", "file: Not a directory; choose another file"),
        ("x.npz", "pixels,resnet", "got extractors pixels, resnet, expected one"),
    ],
)
def test_statistics_that_cannot_be_written_are_refused_before_images_are_read(
    command: str, file: str, extractor: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "file").touch()
    target = ["--write-statistics", tmp_path / file]
    if command == "python -m evaluation":
        arguments = ["--reference", tmp_path / "nowhere", "--extractor", extractor, *target]
        result = CliRunner().invoke(evaluation, [str(argument) for argument in arguments])
    elif command == "gan-eval":
        result = call("gan-eval", "--reference", tmp_path / "nowhere", f"--set=eval.extractor={extractor}", *target)
    else:
        images = ["--config=smoke", "--set=data.name=folder", f"--set=data.root={tmp_path / 'nowhere'}"]
        result = call("gan-eval", *images, f"--set=eval.extractor={extractor}", *target)
    refused(result, "statistics: ", message)
