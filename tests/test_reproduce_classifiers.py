"""tools/reproduce.py on classifiers: the paper's settings at every scale, nothing twice, intervals, claims."""

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
from scipy.special import stdtr
from test_reproduce import InProcess

from gan.classifier_config import available_classifier_configs, load_classifier_config

reproduce, processes = test_reproduce.reproduce, test_reproduce.processes  # fixtures

SETTINGS = (
    *("data.name=shapes", "data.num_train=100", "classifier.depth=8", "classifier.channels=4"),
    *("train.batch_size=50", "train.epochs=2", "train.milestones=[1]", "train.checkpoint_every=1"),
    *("eval.num_points=50", "eval.num_noise=10", "eval.draws=2"),
)


@pytest.fixture
def call(reproduce: ModuleType, processes: InProcess, tmp_path: Path, small_shapes: Path) -> Callable[..., Result]:
    """Runs the tool at the scale of a CPU on drawn shapes and ResNets of eight layers, of four channels."""
    settings = [f"--set={setting}" for setting in (*SETTINGS, f"data.root={small_shapes}")]
    shared = ["--scale=cpu", "--device=cpu", "--seeds=0,1", f"--folder={tmp_path / 'out'}", "--architecture=resnet"]
    return lambda *arguments: CliRunner().invoke(reproduce.main, [*shared, *settings, *map(str, arguments)])


def module(name: str) -> ModuleType:
    return importlib.import_module(f"reproducing.{name}")


def runs_of(
    reproduce: ModuleType, kind: str, number: str, scale: str, *overrides: str
) -> dict[tuple[str, str], object]:
    """Of a table or figure with seed 1, by what its lines are called."""
    content = reproduce.artefact(kind, number).content
    run_of = module("runs").Run.of
    return {
        (line.section, line.model.label): run_of(line.model, 1, reproduce.SCALES[scale], overrides, Path("runs"))
        for line in content.lines
    }


def cells(text: str) -> list[dict[str, str]]:
    """Rows of the first table of a page, by its header."""
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in text.splitlines() if row.startswith("|")]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:] if len(row) == len(rows[0])]


def test_every_classifier_has_a_configuration_at_every_scale(reproduce: ModuleType) -> None:
    paper, known = module("paper_classifiers"), available_classifier_configs()
    artefacts = [reproduce.artefact("table", number) for number in paper.TABLES]
    artefacts += [reproduce.artefact("figure", number) for number in paper.FIGURES]
    for name, scale in reproduce.SCALES.items():
        for model in {model for artefact in artefacts for model, _ in artefact.needs}:
            run = module("runs").Run.of(model, 3, scale, (), Path("runs"))
            assert f"{run.name}.yaml" in known
            assert ("_small_" in run.name) == (name == "cpu"), "at the scale of a CPU all are small, on CIFAR-10 (JPEG)"
            assert run.config.train.seed == 3
            assert run.config.data.labels == ("random" if "data.labels=random" in model.changes else "given")
            assert run.config.train.precision == ("fp32" if name == "paper" else "bf16")
            assert run.config.train.augment == (name != "cpu" or run.config.data.labels == "given")


def test_runs_at_the_scale_of_a_cpu_are_those_that_are_made_by_hand(reproduce: ModuleType) -> None:
    """gan-train-classifier with these settings and no others makes runs that the tool finds."""
    methods = {"Vanilla": "", "SN": "_sn", "SRN-50": "_srn50", "SRN-30": "_srn30"}
    clean, shattered = (runs_of(reproduce, "figure", number, "cpu") for number in ("2", "3"))
    memorizing = ("data.labels=random", "train.augment=false", "train.epochs=40")
    for label, suffix in methods.items():
        name = f"classifier_cifar10_small_resnet{suffix}"
        run = clean["ResNet", label]
        assert (run.name, run.overrides) == (name, ())
        assert run.config.identity() == load_classifier_config(name, ["train.seed=1"]).identity()
        run = shattered["ResNet", label]
        assert (run.name, set(run.overrides)) == (name, set(memorizing))
        assert run.config.identity() == load_classifier_config(name, [*memorizing, "train.seed=1"]).identity()
    vgg = load_classifier_config("classifier_cifar10_small_vgg", [*memorizing, "train.learning_rate=0.01"])
    assert shattered["VGG", "Vanilla"].config.model_copy(update={"train": vgg.train}).identity() == vgg.identity()
    assert shattered["VGG", "Vanilla"].config.train.learning_rate == 0.01


def test_an_interval_is_student_t(reproduce: ModuleType) -> None:
    """Of two seeds the distribution is Cauchy's, whose 0.875 quantile is tan(3 pi / 8) = 1 + sqrt(2); of three, by
    Student's own closed form for two degrees of freedom, (2 p - 1) / sqrt(2 p (1 - p))."""
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
    small, large = [0.0, 0.2 / math.sqrt(2)], [0.5, 0.5 + 0.4 / math.sqrt(2)]
    assert results.verdict(small, large) == "as in the paper"
    assert results.verdict(small, large, results.half_interval) == "as in the paper"
    closer = [value - 0.2 for value in large]
    assert results.verdict(small, closer) == "as in the paper", "by the deviations"
    assert results.verdict(small, closer, results.half_interval) == "as in the paper, within the spread"


@pytest.mark.slow
def test_bars_are_made_once(
    call: Callable[..., Result], processes: InProcess, reproduce: ModuleType, tmp_path: Path
) -> None:
    first = call("--figure=2,3")
    assert first.exit_code == 0, first.output
    assert {run.module for run in processes.commands} == {"gan.train_classifier"}, "accuracies are in the log"
    assert len(processes.commands) == 16
    out = tmp_path / "out"
    rows = cells((out / "figure-2-cpu.md").read_text())
    assert rows[0]["data"] == "CIFAR-100"
    assert rows[2]["paper"] == "71.5 (text)"
    ours = next(row for row in rows if row["model"] == "SRN-30")
    assert ours["data"] == "shapes, 100 training images"
    assert ours["network"] == "resnet, depth 8, channels 4"
    assert ours["epochs"] == "2"
    assert ours["seeds"] == "2"
    assert "crops and flips, bf16" in ours["recipe"]
    values = json.loads((out / "figure-2-cpu.json").read_text())[3]["ours"]["test accuracy, %"]["values"]
    logs = sorted(out.glob("runs/classifier_cifar10_small_resnet_srn30-seed*/metrics.jsonl"))
    lines = [[json.loads(line) for line in log.read_text().splitlines()] for log in logs]
    last = {line["step"]: line["metrics"] for log in lines for line in log if "metrics" in line}
    assert set(last) == {4, 8}, "a random label's run is twice as long"
    assert 100 * last[4]["test_accuracy"] in values
    assert ours["test accuracy, % ↑"] == f"{sum(values) / 2:.4g} ± {abs(values[0] - values[1]) / 2 * (1 + 2**0.5):.2g}"
    assert "not run: left out by --architecture" in [row["test accuracy, % ↑"] for row in rows if row[""] == "VGG"]
    random = next(row for row in cells((out / "figure-3-cpu.md").read_text()) if row["model"] == "SN")
    assert (random["labels"], random["epochs"]) == ("random, seed 0", "4")
    assert "no crops or flips" in random["recipe"]
    assert "images as they are" in random["measured"]
    for name in ("figure-2-cpu.png", "figure-3-cpu.png"):
        assert (out / name).stat().st_size > 1000

    done = len(processes.commands)
    again = call("--figure=2,3")
    assert len(processes.commands) == done
    assert again.output.partition("### ")[2] == first.output.partition("### ")[2]
    shutil.rmtree(next((out / "runs").glob("classifier_cifar10_small_resnet_sn-seed1-*")))
    assert call("--figure=2,3").exit_code == 0
    assert len(processes.commands) == done + 1
