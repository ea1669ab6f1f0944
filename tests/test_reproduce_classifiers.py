"""Tests of tools/reproduce.py on classifiers: settings at every scale, no repeated work, intervals, claims."""

import importlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import test_reproduce
from click.testing import CliRunner, Result
from commands import done
from scipy.special import stdtr
from test_reproduce import InProcess, tables_of

from gan.config.classifier import available_classifier_configs, load_classifier_config

reproduce, processes = test_reproduce.reproduce, test_reproduce.processes  # fixtures

SETTINGS = (
    *("data.name=shapes", "data.num_train=100", "classifier.depth=8", "classifier.channels=4"),
    *("train.batch_size=50", "train.epochs=2", "train.milestones=[1]", "train.checkpoint_every=1"),
    *("eval.num_points=50", "eval.num_noise=10", "eval.draws=2"),
)


@pytest.fixture
def call(reproduce: ModuleType, processes: InProcess, tmp_path: Path, small_shapes: Path) -> Callable[..., Result]:
    """Runs the tool at scale cpu on drawn shapes, with ResNets of eight layers and four channels."""
    settings = [f"--set={setting}" for setting in (*SETTINGS, f"data.root={small_shapes}")]
    shared = ["--scale=cpu", "--device=cpu", "--seeds=0,1", f"--folder={tmp_path / 'out'}", "--architecture=resnet"]
    return lambda *arguments: CliRunner().invoke(reproduce.main, [*shared, *settings, *map(str, arguments)])


def module(name: str) -> ModuleType:
    return importlib.import_module(f"reproducing.{name}")


def runs_of(
    reproduce: ModuleType, kind: str, number: str, scale: str, *overrides: str
) -> dict[tuple[str, str], object]:
    """Runs of a table or figure with seed 1, by section and label."""
    content = reproduce.artefact(kind, number).content
    run_of = module("runs").ModelRun.of
    return {
        (line.section, line.model.label): run_of(line.model, 1, reproduce.SCALES[scale], overrides, Path("runs"))
        for line in content.lines
    }


def test_every_classifier_has_a_configuration_at_every_scale(reproduce: ModuleType) -> None:
    paper, known = module("paper.classifiers"), available_classifier_configs()
    artefacts = [reproduce.artefact("table", number) for number in paper.TABLES]
    artefacts += [reproduce.artefact("figure", number) for number in paper.FIGURES]
    for name, scale in reproduce.SCALES.items():
        for model in {model for artefact in artefacts for model, _ in artefact.needs}:
            run = module("runs").ModelRun.of(model, 3, scale, (), Path("runs"))
            assert f"{run.name}.yaml" in known
            assert ("small" in run.config.name) == (name == "cpu"), "a CPU's runs are small, on CIFAR-10 (JPEG)"
            assert run.config.train.seed == 3
            assert run.config.data.labels == ("random" if "data.labels=random" in model.changes else "given")
            assert run.config.train.precision == ("fp32" if name == "paper" else "bf16")
            assert run.config.train.augment == (name != "cpu" or run.config.data.labels == "given")


def test_runs_at_the_scale_of_a_cpu_are_those_that_are_made_by_hand(reproduce: ModuleType) -> None:
    """gan-train-classifier with exactly these settings makes runs that the tool finds."""
    methods = {"Vanilla": (), "SN": ("sn",), "SRN-50": ("srn50",), "SRN-30": ("srn30",)}
    clean, shattered = (runs_of(reproduce, "figure", number, "cpu") for number in ("2", "3"))
    memorizing = ("data.labels=random", "train.augment=false", "train.epochs=40")
    name = "classifier_cifar10_small_resnet"
    for label, variants in methods.items():
        run = clean["ResNet", label]
        assert (run.name, run.variants, run.overrides) == (name, variants, ())
        assert run.config.identity() == load_classifier_config(name, ["train.seed=1"], variants).identity()
        run = shattered["ResNet", label]
        assert (run.name, run.variants, set(run.overrides)) == (name, variants, set(memorizing))
        by_hand = load_classifier_config(name, [*memorizing, "train.seed=1"], variants)
        assert run.config.identity() == by_hand.identity()
    vgg = load_classifier_config("classifier_cifar10_small_vgg", [*memorizing, "train.learning_rate=0.01"])
    assert shattered["VGG", "Vanilla"].config.model_copy(update={"train": vgg.train}).identity() == vgg.identity()
    assert shattered["VGG", "Vanilla"].config.train.learning_rate == 0.01


def test_an_interval_is_student_t(reproduce: ModuleType) -> None:
    """Closed forms of Student's t quantiles.

    For two seeds the distribution is Cauchy's, with 0.875 quantile tan(3 pi / 8) = 1 + sqrt(2). For three seeds, two
    degrees of freedom, the quantile is (2 p - 1) / sqrt(2 p (1 - p)).
    """
    results = module("results")
    half = results.half_interval
    assert half(results.Spread.of([1.0, 3.0])) == pytest.approx((1 + math.sqrt(2)) * math.sqrt(2) / math.sqrt(2))
    assert half(results.Spread.of([1.0, 2.0, 3.0])) == pytest.approx(0.75 / math.sqrt(2 * 0.875 * 0.125) / math.sqrt(3))
    five = results.Spread.of([1.0, 2.0, 3.0, 4.0, 5.0])
    assert stdtr(4, half(five) / five.std * math.sqrt(5)) == pytest.approx(0.875)
    assert math.isnan(half(results.Spread.of([1.0])))
    assert results.Spread.of([1.0, 3.0]).text(half) == "2 ± 2.4"
    assert results.Spread.of([1.0]).text(half) == "1"


def test_intervals_that_overlap_decide_nothing(reproduce: ModuleType) -> None:
    """Means 1 apart, deviations of 0.1 and 0.2 of two seeds: their intervals reach 0.171 and 0.341."""
    results = module("results")
    small = results.Spread.of([0.0, 0.2 / math.sqrt(2)])
    large = results.Spread.of([0.5, 0.5 + 0.4 / math.sqrt(2)])
    assert results.verdict(small, large) == "as in the paper"
    assert results.verdict(small, large, results.half_interval) == "as in the paper"
    closer = large._replace(mean=large.mean - 0.2)
    assert results.verdict(small, closer) == "as in the paper", "by the deviations"
    assert results.verdict(small, closer, results.half_interval) == "undecided, as in the paper"


@pytest.mark.parametrize(
    ("artefact", "line", "scale", "expected"),
    [
        (("table", "1"), ("weight decay", "SRN-30"), "paper", {"epochs": 200, "milestones": (150, 250)}),
        (("table", "1"), ("no weight decay", "SN"), "paper", {"learning_rate": 0.01, "weight_decay": 0.0}),
        (("table", "1"), ("weight decay", "SN"), "gpu-hour", {"epochs": 20, "milestones": (15, 25)}),
        (("table", "1"), ("weight decay", "SN"), "cpu", {"epochs": 13, "milestones": (10, 16), "augment": False}),
        (("table", "6"), ("", "Vanilla"), "paper", {"epochs": 50, "milestones": (60, 120, 160), "weight_decay": 5e-4}),
        (("table", "6"), ("", "Vanilla"), "gpu-hour", {"epochs": 5, "milestones": (6, 12, 16), "precision": "bf16"}),
        (("table", "7"), ("weight decay", "Vanilla"), "cpu", {"epochs": 13, "learning_rate": 0.01, "augment": True}),
        (("figure", "2"), ("WideResNet", "SN"), "gpu-hour", {"epochs": 20, "weight_decay": 1e-4}),
        (("figure", "3"), ("WideResNet", "SN"), "paper", {"epochs": 400, "milestones": (60, 120, 160)}),
        (("figure", "3"), ("VGG", "SRN-50"), "paper", {"epochs": 600, "learning_rate": 0.01}),
        (("figure", "3"), ("DenseNet", "SRN-50"), "gpu-hour", {"epochs": 60, "learning_rate": 0.1}),
        (("figure", "6"), ("AlexNet", "SN, no WD"), "paper", {"learning_rate": 0.1, "weight_decay": 0.0}),
        (("figure", "7"), ("AlexNet", "SN, WD"), "paper", {"learning_rate": 0.01, "weight_decay": 5e-4, "epochs": 200}),
        (("figure", "8"), ("AlexNet", "SN"), "paper", {"stop_accuracy": 0.55, "epochs": 300}),
        (("figure", "8"), ("VGG", "SN"), "cpu", {"stop_accuracy": 0.99, "epochs": 20}),
        (("figure", "9"), ("AlexNet", "SN"), "gpu-hour", {"stop_accuracy": 0.85, "epochs": 30}),
        (("figure", "11"), ("ResNet", "SRN-30"), "paper", {"epochs": 600, "learning_rate": 0.1}),
    ],
)
def test_settings_are_the_papers_at_every_scale(
    reproduce: ModuleType, artefact: tuple[str, str], line: tuple[str, str], scale: str, expected: dict[str, object]
) -> None:
    """Epochs are shares of the configuration's; milestones stay those of the recipe."""
    run = runs_of(reproduce, *artefact, scale)[line]
    assert {name: getattr(run.config.train, name) for name in expected} == expected


def test_what_a_model_changes_it_changes_of_what_is_set(reproduce: ModuleType) -> None:
    """--set train.epochs=3 gives twice as many for random labels; a learning rate does not replace Table 1's."""
    shattered = runs_of(reproduce, "figure", "3", "cpu", "train.epochs=3", "train.augment=true")["ResNet", "SN"]
    assert (shattered.config.train.epochs, shattered.config.train.augment) == (6, True)
    slow = runs_of(reproduce, "table", "1", "gpu-hour", "train.epochs=3", "train.learning_rate=1.0")
    train = slow["weight decay", "SN"].config.train
    assert (train.epochs, train.learning_rate, train.milestones) == (2, 0.01, (15, 25))


def test_tables_and_figures_share_classifiers(reproduce: ModuleType, tmp_path: Path) -> None:
    """Table 5 and Figures 1, 2 and 4 share clean runs; Figure 7 uses those of Table 1.

    At scale cpu Figures 10 and 11, on CIFAR-10, add no runs to Figures 2 and 3.
    """

    def count(scale: str, *wanted: tuple[str, str]) -> int:
        artefacts = [reproduce.artefact(*each) for each in wanted]
        return len(reproduce.Plan(artefacts, [0, 1], reproduce.SCALES[scale], (), tmp_path).groups)

    clean = [("figure", "2"), ("figure", "1"), ("figure", "4"), ("table", "5")]
    assert count("paper", *clean) == count("paper", clean[0]) == 2 * 20
    assert count("paper", ("figure", "7"), ("table", "1")) == 2 * 16
    ten = [("figure", "10"), ("figure", "11")]
    assert count("cpu", clean[0], ("figure", "3"), *ten) == 2 * 40
    assert count("paper", clean[0], ("figure", "3"), *ten) == 2 * (40 + 16 + 8)


def test_only_what_is_not_logged_is_measured(reproduce: ModuleType) -> None:
    paper = module("paper.classifiers")
    wanted = [("table", number) for number in paper.TABLES] + [("figure", number) for number in paper.FIGURES]
    groups = {each: {group for _, groups in reproduce.artefact(*each).needs for group in groups} for each in wanted}
    assert {each: found for each, found in groups.items() if found} == {
        ("table", "5"): {("complexity",)},
        ("figure", "1"): {("noise",)},
        ("figure", "4"): {("complexity",)},
    }


def log(folder: Path, *epochs: float, tested: float | None = None) -> Path:
    """Writes a training log with ten updates per epoch, a test after the last, and an incomplete last line."""
    lines: list[dict[str, object]] = [{"step": 0, "layers": []}]
    lines += [{"step": 10 * n, "epoch": float(n), "accuracy": accuracy} for n, accuracy in enumerate(epochs, start=1)]
    lines += [{"step": 10 * len(epochs), "metrics": {"test_accuracy": tested}}] if tested is not None else []
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text + '{"step": 99, "epo')
    return folder


def test_a_run_ends_with_its_epochs_or_at_its_accuracy(reproduce: ModuleType, tmp_path: Path) -> None:
    model = module("classifiers").ClassifierModel("", "classifier_smoke")

    def is_trained(step: int, *settings: str) -> bool:
        config = load_classifier_config("classifier_smoke", ["train.epochs=3", *settings])
        return bool(model.is_trained(config, tmp_path, step))

    assert not is_trained(0), "a checkpoint, and no epoch in the log"
    assert is_trained(0, "train.epochs=0")
    log(tmp_path, 0.5, 0.75, 0.9)
    assert is_trained(30)
    assert not is_trained(25), "the log is ahead of the checkpoint: a killed process goes on from there"
    assert not is_trained(30, "train.epochs=6")
    assert is_trained(30, "train.epochs=6", "train.stop_accuracy=0.9")
    assert not is_trained(30, "train.epochs=6", "train.stop_accuracy=0.91")


def test_accuracies_are_read_from_the_log(reproduce: ModuleType, tmp_path: Path) -> None:
    classifiers = module("classifiers").ClassifierModel("", "classifier_smoke")
    config = load_classifier_config("classifier_smoke")
    measured = module("measured").MeasuredRun(
        tmp_path, [], classifiers.logged(config, log(tmp_path, 0.5, 0.875, tested=0.75))
    )
    values = {key: value for key, (value, _) in measured.values.items()}
    assert values == {
        "training/accuracy": 87.5,
        "training/error": 12.5,
        "test/accuracy": 75.0,
        "test/error": 25.0,
        "generalization/error": 12.5,
    }
    assert module("measured").value_of("test/accuracy")(measured) == 75
    hashes = {entry["hash"] for _, entry in measured.values.values()}
    assert len(hashes) == 5, "each value has a protocol of its own"
    augmented = classifiers.logged(load_classifier_config("classifier_smoke", ["train.augment=true"]), tmp_path)
    assert augmented["training/error"][1]["hash"] not in hashes
    assert set(classifiers.logged(config, log(tmp_path, 0.5))) == {"training/accuracy", "training/error"}
    stopping = load_classifier_config("classifier_smoke", ["train.stop_accuracy=0.9"])
    assert classifiers.logged(stopping, log(tmp_path, 0.5, 0.875, tested=0.75)) == {}, "it was not reached"
    assert classifiers.logged(stopping, log(tmp_path, 0.5, 0.9, tested=0.75))["test/accuracy"][0] == 75


def test_what_stops_at_an_accuracy_says_where(reproduce: ModuleType, tmp_path: Path) -> None:
    """One of two seeds does not reach the accuracy; its test accuracy is not used."""
    classifiers, results = module("classifiers").ClassifierModel("", "classifier_smoke"), module("results")
    config = load_classifier_config("classifier_smoke", ["train.stop_accuracy=0.9"])
    runs = []
    for name, accuracies in (("reached", (0.5, 0.95)), ("missed", (0.5, 0.6, 0.7))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text('{"device": "a", "threads": 1}')
        logged = classifiers.logged(config, log(tmp_path / name, *accuracies, tested=0.5))
        runs.append(module("measured").MeasuredRun(tmp_path / name, [], logged))
    value = results.over_seeds(runs, "test/accuracy")
    assert value.values == (50.0,)
    found = classifiers.conditions(config, runs, [value])
    assert found["epochs"] == "2, 3 until accuracy 0.9, not reached by 1 of 2"
    assert found["seeds"] == "1 of 2, no interval"


def test_bars_are_hatched_and_coloured_by_their_labels(reproduce: ModuleType) -> None:
    bars = module("pages.bars")
    labels = ("SN, WD", "SRN, WD", "SN, no WD", "SRN, no WD")
    figure = bars.bars_figure({"ResNet": [bars.Bar(label, 2.0, 0.5, (1.8, 2.2)) for label in labels]}, axis="error")
    (axes,) = figure.axes
    colours = [bar.get_facecolor() for bar in axes.patches]
    assert colours[:2] == colours[2:]
    assert colours[0] != colours[1]
    assert [bar.get_hatch() or "" for bar in axes.patches] == ["", "", "//", "//"]
    assert axes.get_ylim() == pytest.approx((1.5 - 0.15, 2.5 + 0.15)), "around intervals and seeds"
    assert bars._limits([bars.Bar("", 1.0, 0.9, (1.0,))])[0] == 0, "an error is never below it"


def test_bars_are_made_once(
    call: Callable[..., Result], processes: InProcess, reproduce: ModuleType, tmp_path: Path
) -> None:
    first = done(call("--figure=2,3"))
    assert [run.module for run in processes.commands] == ["gan.train_classifier"] * 16, "accuracies are in the log"
    out = tmp_path / "out"
    text = (out / "figure-2-cpu.md").read_text()
    conditions, rows = tables_of(text)[:2]
    shown = {row["conditions"]: row["ours"] for row in conditions}
    assert rows[2]["test accuracy, % ↑, paper"] == "71.5 (text)"
    assert shown | {"data": "shapes, 100 training images", "epochs": "2", "seeds": "2"} == shown
    assert shown["network"] == "resnet, depth 8, channels 4"
    assert "crops and flips, bf16" in shown["recipe"]
    ours = next(row for row in rows if row["model"] == "SRN-30")
    values = json.loads((out / "figure-2-cpu.json").read_text())["models"][3]["ours"]["test accuracy, %"]["values"]
    logs = out.glob("runs/classifier_cifar10_small_resnet-srn30-seed*/metrics.jsonl")
    lines = (json.loads(line) for log in sorted(logs) for line in log.read_text().splitlines())
    last = {line["step"]: line["metrics"] for line in lines if "metrics" in line}
    assert set(last) == {4, 8}, "a random label's run is twice as long"
    assert 100 * last[4]["test_accuracy"] in values
    interval = f"{abs(values[0] - values[1]) / 2 * (1 + 2**0.5):.2g}"
    assert ours["test accuracy, % ↑, ours"] == f"{sum(values) / 2:.4g} ± {interval}"
    assert "Not run: WideResNet, AlexNet, DenseNet, VGG." in text
    random = {row["conditions"]: row["ours"] for row in tables_of((out / "figure-3-cpu.md").read_text())[0]}
    assert random | {"labels": "random, seed 0", "epochs": "4"} == random
    assert "no crops or flips" in random["recipe"]
    assert "images as they are" in random["measured"]
    assert all((out / f"figure-{number}-cpu.png").stat().st_size > 1000 for number in (2, 3))

    assert call("--figure=2,3").stdout == first.stdout
    shutil.rmtree(next((out / "runs").glob("classifier_cifar10_small_resnet-sn-seed1-*")))
    assert call("--figure=2,3").exit_code == 0
    assert len(processes.commands) == 17


@pytest.mark.slow
def test_complexities_and_noise_are_measured_once(
    call: Callable[..., Result], processes: InProcess, tmp_path: Path
) -> None:
    """Table 5 and Figure 4 share reports; Figure 1 takes accuracies from the log."""
    done(call("--table=5", "--figure=1,4", "--seeds=0"))
    modules = [run.module for run in processes.commands]
    assert modules.count("gan.train_classifier") == 3
    assert modules.count("gan.evaluate_classifier") == 6
    out = tmp_path / "out"
    conditions, rows = tables_of((out / "table-5-cpu.md").read_text())[:2]
    shown = {row["conditions"]: row["ours"] for row in conditions}
    vanilla = next(row for row in rows if row["model"] == "Vanilla")
    assert vanilla["log Spec-L1 ↓, paper"] == "∞"
    document = json.loads((out / "table-5-cpu.json").read_text())
    found = document["models"][0]["ours"]["log Spec-L1"]
    assert vanilla["log Spec-L1 ↓, ours"] == f"{found['values'][0]:.4g}", "no interval of one seed"
    assert shown["seeds"] == "1, no interval"
    assert document["protocols"][found["protocol"]]["num_images"] == 50
    assert shown["measured"] == "50 train images"
    text = (out / "table-5-cpu.md").read_text()
    assert "| log Jac-Norm (ResNet) |" in text
    figure = (out / "figure-4-cpu.md").read_text()
    assert "| SRN-30 is better than SN (the paper: SRN is, in 7 of 9 cases): " in figure
    assert [name for name in "abcdefghi" if f"(figure-4{name}-cpu.png)" in figure] == ["a", "b", "c"]
    assert "Not run: WideResNet, DenseNet." in figure
    assert "10 train images, 2 draws each; all images of the test split" in (out / "figure-1-cpu.md").read_text()


def test_what_was_begun_by_hand_goes_on(
    call: Callable[..., Result], processes: InProcess, reproduce: ModuleType, tmp_path: Path, small_shapes: Path
) -> None:
    """A run with these settings, in a folder named with its identity, was stopped within the second epoch."""
    overrides = (*SETTINGS, f"data.root={small_shapes}")
    run = module("runs").ModelRun.of(
        reproduce.artefact("table", "7").content.lines[0].model, 0, reproduce.SCALES["cpu"], overrides, tmp_path
    )
    folder = tmp_path / "out" / "runs" / f"mine-{run.identity}"
    arguments = [*run.training("cpu").arguments, "--stop-after", "1"]
    arguments[arguments.index("--run") + 1] = str(folder)
    done(CliRunner().invoke(test_reproduce.COMMANDS["gan.train_classifier"], arguments))
    processes.statuses = [143, -1]
    assert call("--table=7").exit_code == 130
    assert not list((tmp_path / "out").glob("table*"))
    done(call("--table=7"))
    mine = [command for command in processes.commands if command.folder == folder]
    assert mine
    assert all("--resume" in command.arguments for command in mine)
    assert [path.name for path in sorted((folder / "checkpoints").iterdir())][-1] == "step-00000002.pt"
    assert len(json.loads((folder / "run.json").read_text())["commands"]) == 2, "it went on, and did not begin again"
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 16


def test_what_cannot_be_loaded_is_not_trained(
    call: Callable[..., Result], processes: InProcess, tmp_path: Path
) -> None:
    result = call("--figure=2", "--set=data.root=nowhere.zip", "--set=data.name=folder")
    assert result.exit_code == 1
    assert "8 runs not trained or measured: data.root: " in result.output
    assert "nowhere.zip" in result.output
    result = call("--table=1", "--set=data.num_train=5000")
    assert result.exit_code == 1
    assert "not trained or measured: data.num_train: " in result.output
    assert processes.commands == []
    assert not list((tmp_path / "out").glob("*.md"))


def test_architectures_that_are_left_out_are_not_planned(
    call: Callable[..., Result], processes: InProcess, tmp_path: Path
) -> None:
    result = done(call("--figure=2", "--dry-run"))
    assert processes.commands == []
    lines = [line.split() for line in result.output.splitlines()]
    assert {line[0].partition("-seed")[0] for line in lines[2:10]} == {
        f"classifier_cifar10_small_resnet{suffix}" for suffix in ("", "-sn", "-srn50", "-srn30")
    }
    assert [line[1:] for line in lines[2:10]] == [["to", "do"]] * 8, "accuracies are in the log"
    assert lines[-1] == ["8", "runs,", "8", "to", "train"]
    assert call("--figure=2", "--architecture=lenet").exit_code == 2
    assert "Table 6: nothing was run" in done(call("--table=6")).output, "which is of WideResNets"
