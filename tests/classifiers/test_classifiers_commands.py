"""Tests of gan-train-classifier and gan-eval-classifier: runs, resuming, reports, errors."""

import dataclasses
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import Result
from commands import call, done, refused
from equality import lines, same
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_classifiers_models import SMALL

from gan import build, build_classifier
from gan.config import available_configs
from gan.config.classifier import ClassifierConfig, available_classifier_configs, load_classifier_config
from gan.config.files import find_variants
from gan.data import ImageData
from gan.data.packed import pack
from gan.errors import CheckpointError, ConfigError
from gan.runs.checkpoint import read_checkpoint
from gan.runs.finding import kind_of, list_checkpoints, newest_run

Train = Callable[..., Result]


def last_state(run: Path) -> dict:
    return read_checkpoint(list_checkpoints(run)[-1]).state


def train_small(small_shapes: Path, run: Path, *arguments: object) -> Result:
    """Runs gan-train-classifier on a reduced smoke configuration."""
    small = ["data.num_train=100", f"data.root={small_shapes}", "train.batch_size=20", "train.epochs=2"]
    small += ["classifier.channels=4", "train.milestones=[1]"]
    start = ["--config", "classifier_smoke", *(f"--set={setting}" for setting in small), "--device", "cpu"]
    return call("gan-train-classifier", *start, "--run", run, *arguments)


@pytest.fixture
def train(tmp_path: Path, small_shapes: Path) -> Train:
    return lambda name, *arguments: train_small(small_shapes, tmp_path / name, *arguments)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, small_shapes: Path) -> Path:
    """Read-only run of two epochs."""
    run = tmp_path_factory.mktemp("finished") / "run"
    done(train_small(small_shapes, run))
    return run


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory, small_shapes: Path) -> Path:
    """Read-only run of zero epochs."""
    run = tmp_path_factory.mktemp("untrained") / "run"
    done(train_small(small_shapes, run, "--set=train.epochs=0"))
    return run


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["cifar100_resnet", "--with=srn30"], ["1,736,564", "100 classes", "srn, c = 0.3", "of 112 layers"]),
        (["cifar100_densenet", "--with=sn"], ["800,032", "classifier weights: sn"]),
        (["cifar100_alexnet", "--with=cifar10"], ["2,472,266", "10 classes", "classifier weights: none"]),
    ],
)
def test_dry_run_builds_without_data(arguments: list[str], parts: list[str]) -> None:
    name, *more = arguments
    config = ["--config", f"classifier_{name}", *more]
    output = done(call("gan-train-classifier", *config, "--dry-run", "--device=cpu")).output
    for part in parts:
        assert part in output, output


@pytest.mark.parametrize("variant", [None, *find_variants("classifier")])
@pytest.mark.parametrize("name", available_classifier_configs())
def test_a_configuration_names_what_there_is(name: str, variant: str | None) -> None:
    config = load_classifier_config(name, variants=[variant] if variant else [])
    build_classifier.check_classifier_names(config)
    if "cifar100" in name:
        counts = {"resnet": 1_736_564, "wide_resnet": 36_536_884, "densenet": 800_032, "vgg": 20_086_692}
        with torch.device("meta"):
            network = build_classifier.architecture(config)(100)
        count = sum(parameter.numel() for parameter in network.parameters())
        assert count == (counts | {"alexnet": 2_495_396})[config.classifier.name]


def test_a_variant_from_the_command_line_changes_settings_and_name() -> None:
    arguments = ["--config", "classifier_smoke", "--with", "srn30", "--with", "cifar10", "--print-config"]
    config = yaml.safe_load(done(call("gan-train-classifier", *arguments)).output)
    assert (config["name"], config["classifier"]["c"]) == ("classifier_smoke-srn30-cifar10", 0.3)
    assert config["data"]["name"] == "cifar10"


def test_configurations_of_both_kinds_are_told_apart() -> None:
    assert not set(available_configs()) & set(available_classifier_configs())
    assert "  classifier_smoke " in done(call("gan-train-classifier", "--list")).output
    assert "classifier_smoke" not in done(call("gan-train", "--list")).output
    refused(call("gan-train", "--config", "classifier_smoke"), "section classifier", "gan-train-classifier")
    refused(call("gan-train-classifier", "--config", "smoke"), "section generator", "for gan-train")


@pytest.fixture(scope="session")
def three_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random images in three classes, 12 to train and 12 to test."""
    splits = {}
    for seed, split in enumerate(("train", "test")):
        random = torch.Generator().manual_seed(seed)
        images = torch.randint(0, 256, (12, 3, 32, 32), dtype=torch.uint8, generator=random)
        splits[split] = ImageData(images, torch.arange(12) % 3, ("a", "b", "c"), "folder", split)
    folder = tmp_path_factory.mktemp("random") / "packed"
    return pack(splits, folder, image_size=32, crop=0, resize="none", overwrite=False)


@pytest.mark.parametrize("normalization", ["", "srn30"])
@pytest.mark.parametrize("name", [name for name in available_classifier_configs() if "small" in name])
def test_a_configuration_trains_resumes_and_is_measured(
    name: str, normalization: str, tmp_path: Path, three_classes: Path
) -> None:
    sizes = SMALL.get(load_classifier_config(name).classifier.name, {})
    narrow = [
        *("data.name=folder", f"data.root={three_classes}", "data.num_train=0", "train.batch_size=4"),
        *(f"classifier.{name}={value}" for name, value in sizes.items()),
        *("train.epochs=3", "train.checkpoint_every=1", "train.warmup=0"),
    ]
    variants = [f"--with={normalization}"] if normalization else []
    settings = ["--config", name, *variants, "--device=cpu", *(f"--set={override}" for override in narrow)]
    done(call("gan-train-classifier", *settings, "--run", tmp_path / "whole"))
    done(call("gan-train-classifier", *settings, "--run", tmp_path / "parts", "--stop-after=4"))
    assert last_state(tmp_path / "parts")["step"] == 4
    done(call("gan-train-classifier", *settings, "--run", tmp_path / "parts", "--resume"))
    assert last_state(tmp_path / "whole")["step"] == 9
    same(last_state(tmp_path / "whole"), last_state(tmp_path / "parts"))
    assert lines(tmp_path / "whole") == lines(tmp_path / "parts")
    report = tmp_path / "report"
    metrics = "accuracy,margin,complexity,spectra"
    done(call("gan-eval-classifier", "--run", tmp_path / "whole", "--metrics", metrics, "--out", report))
    values = json.loads((report / "report.json").read_text())["values"]
    assert {"accuracy", "complexity/spec_fro/p90", "spectra/stable_rank_sum"} <= values.keys()


@pytest.mark.parametrize(
    ("choice", "precision"),
    [
        *((name, "fp32") for name in build_classifier.classifier_registries()["classifier.normalization"]),
        ("srn", "bf16"),
    ],
)
def test_every_normalization_trains_and_resumes(choice: str, precision: str, train: Train, tmp_path: Path) -> None:
    settings = [f"--set=classifier.normalization={choice}", f"--set=train.precision={precision}"]
    done(train("whole", *settings))
    done(train("parts", *settings, "--stop-after=3"))
    done(train("parts", *settings, "--resume"))
    same(last_state(tmp_path / "whole"), last_state(tmp_path / "parts"))


def test_the_orthonormal_penalty_is_part_of_the_gradient() -> None:
    config = load_classifier_config("classifier_smoke", ["classifier.normalization=ortho"])
    network = build_classifier.build_classifier(config, 3)
    penalty = build_classifier.build_weight_penalty(config)
    assert penalty is not None
    assert float(penalty(network).detach()) > 0
    assert build_classifier.build_weight_penalty(load_classifier_config("classifier_smoke")) is None


WRONG = {
    "unknown architecture": (["classifier.name=resnett"], ["classifier.name", "did you mean 'resnet'"]),
    "unknown normalization": (["classifier.normalization=snr"], ["classifier.normalization", "did you mean"]),
    "generated images": (["classifier.normalization=wgan_gp"], ["wgan_gp", "expected one of none, sn"]),
    "depth": (["classifier.depth=99999998"], ["classifier.depth", "less than or equal to 1202"]),
    "odd depth": (["classifier.depth=21"], ["21", "6 n + 2"]),
    "rising milestones": (["train.milestones=[2,1]"], ["milestones in rising order"]),
    "milestones as text": (["train.milestones=many"], ["train.milestones", "expected a list such as [150, 250]"]),
    "momentum": (["train.nesterov=true", "train.momentum=0"], ["momentum above 0"]),
    "accuracy": (["train.stop_accuracy=99"], ["train.stop_accuracy", "less than or equal to 1"]),
    "labels": (["data.labels=true"], ["data.labels", "'given' or 'random'"]),
    "setting of GANs": (["train.steps=3"], ["train.steps: unknown setting"]),
    "too many images": (["data.num_train=5000000"], ["data.num_train", "choose fewer"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_settings_are_one_sentence(case: str, train: Train) -> None:
    overrides, parts = WRONG[case]
    refused(train("run", *(f"--set={override}" for override in overrides)), *parts)


def test_a_network_that_cannot_fit_is_refused_before_it_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gan.build.physical_memory", lambda: 10**9)
    wide = ["--config", "classifier_smoke", "--set=classifier.channels=4096", "--dry-run"]
    refused(call("gan-train-classifier", *wide), "has 1 GB", "smaller network")


def test_a_run_folder_explains_itself(finished: Path) -> None:
    run = finished
    assert {"config.yaml", "run.json", "checkpoints", "metrics.jsonl"} <= {path.name for path in run.iterdir()}
    record = json.loads((run / "run.json").read_text())
    assert record["kind"] == "classifier"
    assert record["commands"][0].split()[0] == "gan-train-classifier"
    first, line, tested = lines(run)[:3]
    assert (first["step"], line["step"], tested["step"]) == (0, 5, 5)
    assert {"epoch", "loss", "accuracy", "learning_rate", "layers"} <= line.keys()
    assert tested["metrics"].keys() == {"test_accuracy", "test_loss"}
    events = EventAccumulator(str(run))
    events.Reload()
    tags = events.Tags()["scalars"]
    expected = ("loss/train", "loss/test", "accuracy/train", "accuracy/test", "train/learning_rate", "sigma/linear")
    for tag in (*expected, "srn/active/blocks.0.conv1"):
        assert tag in tags, tags


def test_a_finished_run_says_so_and_a_changed_one_is_refused(train: Train) -> None:
    done(train("run"))
    assert "all 10 steps are done" in done(train("run", "--resume")).output
    refused(train("run"), "--resume")
    refused(train("run", "--resume", "--set=train.seed=1"), "train.seed: 1, 0")
    refused(train("run", "--resume", "--set=classifier.c=0.3"), "classifier.c: 0.3, 0.5")


def test_more_epochs_equal_a_run_that_began_with_them(train: Train, tmp_path: Path) -> None:
    for name, settings in (("steps", ("train.test_every=2",)), ("rolled back", ("train.test_every=0",))):
        options = [f"--set={setting}" for setting in settings]
        done(train(f"{name} whole", *options, "--set=train.epochs=4"))
        done(train(name, *options))
        done(train(name, *options, "--set=train.epochs=4", "--resume"))
        same(last_state(tmp_path / f"{name} whole"), last_state(tmp_path / name))
        assert lines(tmp_path / f"{name} whole") == lines(tmp_path / name)
    done(train("cosine", "--set=train.schedule=cosine"))
    cosine = ["--set=train.schedule=cosine", "--set=train.epochs=4", "--resume"]
    refused(train("cosine", *cosine), "fallen by a cosine of 2 epochs", "begin a new run")
    refused(train("steps", "--set=train.epochs=3", "--resume"), "it has completed 4 epochs already")


def test_other_images_are_refused(train: Train, three_classes: Path) -> None:
    done(train("run", "--stop-after=2"))
    other = [f"--set=data.root={three_classes}", "--set=data.name=folder", "--set=data.num_train=0"]
    refused(train("run", "--resume", *other), "data.name")
    refused(train("run", "--resume", "--set=data.root=nowhere"), "nowhere")


def test_training_stops_at_an_accuracy_for_good(train: Train, tmp_path: Path) -> None:
    settings = ["--set=train.stop_accuracy=0.02", "--set=train.epochs=9"]
    output = done(train("run", *settings)).output
    assert "training accuracy 0.02 is reached" in output
    assert last_state(tmp_path / "run")["step"] == 5
    assert last_state(tmp_path / "run")["reached"]
    assert "are done" in done(train("run", *settings, "--resume")).output
    assert last_state(tmp_path / "run")["step"] == 5


def test_no_epochs_leave_the_network_as_it_is_initialized(untrained: Path) -> None:
    state = last_state(untrained)
    assert state["step"] == 0
    assert lines(untrained)[-1]["metrics"].keys() == {"test_accuracy", "test_loss"}
    config = build_classifier.classifier_config(read_checkpoint(untrained))
    same(dict(build_classifier.build_classifier(config, 10).state_dict()), dict(state["network"]))


def test_random_labels_are_fixed_for_each_image(small_shapes: Path) -> None:
    def images(*overrides: str, split: str = "train") -> ImageData:
        few = [f"data.root={small_shapes}", "data.num_train=300"]
        config = load_classifier_config("classifier_smoke", [*few, *overrides])
        return build_classifier.load_labelled_images(config, split)

    whole, part = images("data.labels=random", "data.num_train=0"), images("data.labels=random", "data.num_train=100")
    given = images("data.num_train=100")
    assert torch.equal(given.images, part.images)
    assert torch.equal(given.labels.bincount(), torch.full((10,), 10))
    assert not torch.equal(given.labels, part.labels)
    labels = {image.numpy().tobytes(): int(label) for image, label in zip(whole.images, whole.labels, strict=True)}
    assert [labels[image.numpy().tobytes()] for image in part.images] == part.labels.tolist()
    assert images("data.labels=random", "train.seed=5").fingerprint == images("data.labels=random").fingerprint
    assert images("data.labels=random", "data.seed=5").fingerprint != images("data.labels=random").fingerprint
    assert images("data.labels=random", split="test").fingerprint == images(split="test").fingerprint


def test_a_smaller_part_is_part_of_a_larger_one(small_shapes: Path) -> None:
    def pixels(count: int) -> set[bytes]:
        overrides = [f"data.root={small_shapes}", f"data.num_train={count}"]
        data = build_classifier.load_labelled_images(load_classifier_config("classifier_smoke", overrides), "train")
        assert len(data) == count
        counts = data.labels.bincount(minlength=10)
        assert int(counts.max() - counts.min()) <= 1
        return {image.numpy().tobytes() for image in data.images}

    assert pixels(37) < pixels(101) < pixels(600)


def test_without_a_test_split_there_is_no_test_accuracy(tmp_path: Path, train: Train) -> None:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (12, 3, 32, 32), dtype=torch.uint8, generator=random)
    data = ImageData(images, torch.arange(12) % 2, ("a", "b"), "folder", "train")
    folder = pack({"train": data}, tmp_path / "packed", image_size=32, crop=0, resize="none", overwrite=False)
    result = done(train("run", "--set=data.name=folder", f"--set=data.root={folder}", "--set=data.num_train=0"))
    assert "no test accuracy: " in result.output
    assert not any("metrics" in record for record in lines(tmp_path / "run"))


def test_reports_carry_protocol_and_subject(train: Train, tmp_path: Path) -> None:
    done(train("run", "--set=data.labels=random"))
    result = done(call("gan-eval-classifier", "--run", tmp_path / "run", "--device=cpu"))
    folder = tmp_path / "run" / "reports" / "00000010"
    assert f"report: {folder}" in result.output
    report = json.loads((folder / "report.json").read_text())
    assert report["subject"]["experiment"] == "classifier_smoke"
    fields = report["values"]["accuracy"]["fields"]
    assert "random, seed 0" in json.dumps(fields)
    again = ["--run", tmp_path / "run", "--metrics=accuracy", "--set=eval.split=test", "--set=eval.num_points=300"]
    done(call("gan-eval-classifier", *again, "--out", tmp_path / "test"))
    other = json.loads((tmp_path / "test" / "report.json").read_text())["values"]["accuracy"]
    assert "random" not in json.dumps(other["fields"])
    assert other["hash"] != report["values"]["accuracy"]["hash"]
    assert other["value"] == pytest.approx(lines(tmp_path / "run")[-1]["metrics"]["test_accuracy"], abs=1e-6)


def test_measuring_other_images_than_those_of_training_is_refused(
    untrained: Path, tmp_path: Path, three_classes: Path
) -> None:
    random = torch.Generator().manual_seed(7)
    images = torch.randint(0, 256, (600, 3, 32, 32), dtype=torch.uint8, generator=random)
    config = build_classifier.classifier_config(read_checkpoint(untrained))
    classes = build_classifier.load_labelled_images(config, "train").classes
    data = ImageData(images, torch.arange(600) % 10, classes, "shapes", "train")
    swapped = dataclasses.replace(data, classes=classes[::-1], split="test")
    for one in (data, swapped):
        pack({one.split: one}, tmp_path / one.split, image_size=32, crop=0, resize="none", overwrite=False)
    measuring = ["--run", untrained, "--metrics=accuracy"]
    other = [f"--set=data.root={tmp_path / split}" for split in ("train", "test")]
    refused(call("gan-eval-classifier", *measuring, other[0]), "was trained on other images")
    swapped_classes = [*measuring, other[1], "--set=eval.split=test", "--set=eval.other_images=true"]
    refused(call("gan-eval-classifier", *swapped_classes), "expected those of training")


def test_reports_of_two_classifiers_are_compared(train: Train, tmp_path: Path) -> None:
    for name in ("sn", "srn"):
        done(train(name, f"--set=classifier.normalization={name}"))
        done(call("gan-eval-classifier", "--run", tmp_path / name, "--metrics=accuracy,spectra"))
    runs = [tmp_path / "sn", tmp_path / "srn"]
    for command in ("gan-eval-classifier", "gan-eval"):
        result = done(call(command, "--compare", *runs, "--out", tmp_path / command))
        assert "Weights, stable rank sum" in result.output


def test_commands_refuse_checkpoints_of_the_other_kind(finished: Path, trained: Callable[..., Path]) -> None:
    gan = trained("train.steps=1")
    refused(call("gan-eval", "--run", finished, "--metrics=fid"), "for gan-train-classifier")
    refused(call("gan-eval-classifier", "--run", gan), "for gan-train, gan-eval")
    with pytest.raises(ConfigError, match="section classifier"):
        build.load_generator(finished)
    assert [kind_of(run) for run in (finished, gan)] == ["classifier", "gan"]


def test_the_newest_run_is_of_the_right_kind(
    train: Train, tmp_path: Path, small_shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gan = ["--config", "smoke", f"--set=data.root={small_shapes}", "--set=train.steps=1", "--device=cpu"]
    done(call("gan-train", *gan, "--run", tmp_path / "runs" / "gan"))
    with pytest.raises(CheckpointError, match="no run with a checkpoint"):
        newest_run(tmp_path / "runs", kind="classifier")
    done(train("runs/classifier"))
    monkeypatch.chdir(tmp_path)
    assert newest_run() == Path("runs/gan")
    first = done(call("gan-eval-classifier", "--metrics=accuracy")).output.splitlines()[:2]
    assert first == ["newest run: runs/classifier", "checkpoint: runs/classifier/checkpoints/step-00000010.pt"]


WRONG_MEASURING = {
    "unknown metric": (("--metrics", "acuracy"), ["'acuracy'", "accuracy"]),
    "changed training": (("--set", "classifier.c=0.3"), ["classifier.c", "change only eval.*"]),
    "no points": (("--set", "eval.num_points=0"), ["eval.num_points"]),
    "both": (("--checkpoint", "x.pt"), ["--checkpoint and --run"]),
}


@pytest.mark.parametrize("case", WRONG_MEASURING)
def test_wrong_measuring_is_one_sentence(case: str, untrained: Path) -> None:
    arguments, parts = WRONG_MEASURING[case]
    refused(call("gan-eval-classifier", "--run", untrained, *arguments), *parts)


def test_a_divergence_is_told_with_what_may_help(train: Train) -> None:
    plain = ["name=alexnet", "depth=null", "normalization=none"]  # batch normalization would keep numbers finite
    result = train("run", "--set=train.learning_rate=1000", *(f"--set=classifier.{setting}" for setting in plain))
    refused(result, "not finite", "a lower train.learning_rate")


def test_a_changed_state_is_refused(train: Train, tmp_path: Path) -> None:
    """Tensors of wrong shape or type and invalid texts are refused with a one-line error."""
    done(train("run", "--stop-after=2"))
    checkpoint = read_checkpoint(tmp_path / "run")
    config = build_classifier.classifier_config(checkpoint)

    def changed(**changes: object) -> None:
        state = {**checkpoint.state, **changes}
        with pytest.raises(CheckpointError, match="does not fit its configuration"):
            build_classifier.load_classifier_state(checkpoint._replace(state=state), config)

    network = dict(checkpoint.state["network"])
    name = next(iter(network))
    changed(network={**network, name: network[name].double()})
    changed(network={**network, name: network[name].flatten()})
    changed(step=-1)
    changed(step="2")
    changed(reached=1)
    changed(class_names=["../x"] * 10)
    changed(data_fingerprint=7)
    changed(totals=torch.zeros(3, dtype=torch.float64))
    changed(num_classes=3)
    moments = {index: {"momentum_buffer": torch.zeros(1)} for index in checkpoint.state["optimizer"]["state"]}
    changed(optimizer={**checkpoint.state["optimizer"], "state": moments})
    build_classifier.load_classifier_state(checkpoint, config)


def test_a_classifier_is_loaded_for_use(finished: Path) -> None:
    network = build_classifier.load_classifier(finished)
    assert not network.training
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_the_defaults_are_the_papers_resnet() -> None:
    config = ClassifierConfig()
    paper = load_classifier_config("classifier_cifar100_resnet")
    assert config.identity() == paper.identity()


def test_a_signal_saves_and_the_run_goes_on_in_the_same_bits(train: Train, tmp_path: Path, small_shapes: Path) -> None:
    """SIGTERM to a separate process gives status 128 + 15."""
    done(train("whole", "--set=train.epochs=60"))
    config = tmp_path / "whole" / "config.yaml"
    command = [sys.executable, "-m", "gan.train_classifier", "--config", str(config), "--device=cpu"]
    with subprocess.Popen([*command, "--run", tmp_path / "the parts"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("step "):
                process.send_signal(signal.SIGTERM)
                break
        told = process.stderr.read()
    assert process.returncode == 128 + signal.SIGTERM
    assert f"continue with: gan-train-classifier --run '{tmp_path / 'the parts'}' --resume" in told
    assert last_state(tmp_path / "the parts")["step"] < last_state(tmp_path / "whole")["step"]
    done(call("gan-train-classifier", "--run", tmp_path / "the parts", "--resume", "--device=cpu"))
    same(last_state(tmp_path / "whole"), last_state(tmp_path / "the parts"))
    assert lines(tmp_path / "whole") == lines(tmp_path / "the parts")
