"""Tests of classifier reports: every measure's values and protocol, files, figures, comparisons, errors."""

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from headless import HOSTILE, Parts
from matplotlib.colors import to_hex
from random_tensors import points
from settings_with import settings_with
from torch import Tensor, nn
from torchvision.models import resnet18

from evaluation import EvaluationError, Report
from evaluation.generalization import (
    MEASURES,
    MeasureSettings,
    complexity,
    global_lipschitz,
    layer_spectra,
    local_lipschitz,
    margins,
    measure,
    noise_sensitivity,
)
from evaluation.reporting.compare_folders import StoredReport, compare_folders, comparison_figures
from evaluation.reporting.comparison import compare
from evaluation.reporting.histograms import kinds_figure
from evaluation.reporting.plots import COLOURS, LAYERS, read_curves
from evaluation.reporting.tables import class_table, count_text, notes
from evaluation.reporting.value import protocol_hash

PAGE = Path(__file__).resolve().parents[2] / "docs" / "generalization.md"
SMALL = MeasureSettings(num_points=11, num_noise=7, draws=3, num_local=5, num_pairs=9, batch_size=4)
LABELLED = {"accuracy", "margin", "complexity"}
LOG = """{"step": 10, "loss": 2.0, "accuracy": 0.5, "epoch": 1}
{"step": 10, "metrics": {"test_accuracy": 0.4, "step": 99, "test_loss": "x"}}
{"step": 20, "loss": 1.0, "accuracy": 0.75, "metrics": [1]}"""


def a_network(seed: int = 0) -> nn.Module:
    """Smooth float64 network with batch normalization and a parametrization that iterates in training mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 3, stride=2)),
            nn.BatchNorm2d(4),
            nn.Softplus(),
            nn.Flatten(),
            nn.Linear(36, 5),
            nn.Tanh(),
            nn.Linear(5, 4, bias=False),
        ).double()
    network[4].weight.data *= 9  # so that it answers several classes
    return network.train()


def labels_of(network: nn.Module, images: Tensor) -> Tensor:
    """The network's own predictions, except for the first three images."""
    with torch.no_grad():
        labels = network.eval()(images).argmax(1)
    network.train()
    labels[:3] = (labels[:3] + 1) % 4
    return labels


@pytest.fixture
def network() -> nn.Module:
    return a_network()


@pytest.fixture
def images() -> Tensor:
    return points(13)


@pytest.fixture
def labels(network: nn.Module, images: Tensor) -> Tensor:
    return labels_of(network, images)


def whole_report(title: str = "drawn") -> Report:
    """Report with every measure of a network; a class has the name of the data."""
    network, images = a_network(), points(13)
    names = {"data_name": title, "split": "train", "class_names": [title, *"bcd"]}
    return measure(list(MEASURES), network, images, labels_of(network, images), settings=SMALL, **names)


@pytest.fixture(scope="module")
def report() -> Report:
    return whole_report()


@pytest.fixture(scope="module")
def folder(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read-only folder of the report."""
    return report.save(tmp_path_factory.mktemp("report") / "report")


def hashes(report: Report) -> dict[str, str]:
    return {key: entry["hash"] for key, entry in report.protocol["values"].items()}


def measures_of(keys: set[str]) -> set[str]:
    """Names of the measures with the given keys."""
    return {"accuracy" if key == "loss" else key.split("/")[0] for key in keys}


def test_values_record_what_decides_them_and_survive_saving(report: Report, folder: Path) -> None:
    assert measures_of(set(report.values)) == set(MEASURES)
    for key, entry in report.protocol["values"].items():
        assert math.isfinite(report.values[key])
        assert entry["hash"] == protocol_hash(key, entry["fields"])
        assert entry["better"] in ("higher", "lower", "")
        assert entry["count"] > 0
        assert entry["interval"] is None or entry["interval"][0] <= report.values[key] <= entry["interval"][1]
    again = Report.load(folder)
    assert again.values == report.values
    assert again.protocol == json.loads(json.dumps(report.protocol))
    assert set(again.arrays) == set(report.arrays)
    assert again.table() == report.table()


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_leaves_no_trace(name: str, network: nn.Module, images: Tensor, labels: Tensor) -> None:
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    shown, random = images.clone(), torch.random.get_rng_state()
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    network[4].eval()
    try:
        measure([name], network, images, labels, settings=SMALL)
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = "none"
    assert [module.training for module in network] == [True, True, True, True, False, True, True]
    assert all(torch.equal(before[key], tensor) for key, tensor in network.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in network.modules())
    assert torch.equal(images, shown)
    assert torch.equal(torch.random.get_rng_state(), random)


def test_networks_on_the_same_images_are_comparable(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    one, other = (measure(list(MEASURES), each, images, labels, settings=SMALL) for each in (network, a_network(1)))
    assert hashes(one) == hashes(other)
    assert measures_of({key for key in one.values if one.values[key] != other.values[key]}) == set(MEASURES)
    assert one.protocol["subject"]["weights_fingerprint"] != other.protocol["subject"]["weights_fingerprint"]
    comparison = compare({"a": one, "b": other})
    assert {row.key for row in comparison.rows} == set(one.values)
    assert not comparison.left_out


ALL = set(MEASURES)
DECIDES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "num_points": ({"settings": settings_with(SMALL, num_points=12)}, LABELLED),
    "num_noise": ({"settings": settings_with(SMALL, num_noise=8)}, {"noise"}),
    "draws": ({"settings": settings_with(SMALL, draws=2)}, {"noise"}),
    "num_local": ({"settings": settings_with(SMALL, num_local=6)}, {"local"}),
    "num_pairs": ({"settings": settings_with(SMALL, num_pairs=10)}, {"global"}),
    "batch_size": ({"settings": settings_with(SMALL, batch_size=5)}, set()),
    "seed": ({"settings": settings_with(SMALL, seed=1)}, ALL - {"spectra"}),
    "images": ({"images": points(13, seed=1)}, ALL - {"spectra"}),
    "data_fingerprint": ({"data_fingerprint": "a" * 64}, ALL - {"spectra"}),
    "data_name": ({"data_name": "cifar100"}, ALL - {"spectra"}),
    "split": ({"split": "test"}, ALL - {"spectra"}),
    "labels": ({"labels": torch.arange(13) % 4}, LABELLED),
    "label_kind": ({"label_kind": "random, seed 0"}, LABELLED),
    "network_protocol": ({"network_protocol": {"weights": "exact"}}, ALL),
    "subject": ({"subject": {"step": 3}}, set()),
    "class_names": ({"class_names": "wxyz"}, set()),
}


@pytest.mark.parametrize("what", DECIDES)
def test_what_decides_a_value_changes_its_hash_and_nothing_else_does(
    what: str, report: Report, network: nn.Module, images: Tensor, labels: Tensor
) -> None:
    change, changed = DECIDES[what]
    plain = {"images": images, "labels": labels, "settings": SMALL, "data_name": "drawn", "split": "train"}
    other = measure(list(MEASURES), network, **{**plain, **change})
    differing = {key for key, value in hashes(report).items() if value != hashes(other)[key]}
    assert measures_of(differing) == changed
    assert {key for key in report.values if measures_of({key}) <= changed} == differing


def test_a_set_that_is_measured_whole_has_no_seed_but_for_noise_and_pairs(
    network: nn.Module, images: Tensor, labels: Tensor
) -> None:
    one, other = (
        measure(list(MEASURES), network, images, labels, settings=MeasureSettings(draws=2, num_pairs=9, seed=seed))
        for seed in (0, 1)
    )
    differing = {key for key, value in hashes(one).items() if value != hashes(other)[key]}
    assert measures_of(differing) == {"noise", "global"}
    assert {key for key in one.values if one.values[key] != other.values[key]} == differing
    entry = one.protocol["values"]["accuracy"]
    assert (entry["count"], entry["fields"]["num_images"], entry["fields"]["images_seed"]) == (13, 13, None)


def test_parts_of_a_set_are_drawn_by_the_seed(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    found = [
        measure(["margin"], network, images, labels, settings=settings_with(SMALL, seed=seed)).arrays["margin/value"]
        for seed in (0, 0, 1)
    ]
    assert found[0].tolist() == found[1].tolist() != found[2].tolist()
    gaps = margins(network, images, labels).numpy()
    places = [int(np.abs(gaps - value).argmin()) for value in found[2]]
    assert places == sorted(set(places))  # without replacement, in the set's order
    assert gaps[places] == pytest.approx(found[2], rel=1e-9)


def test_values_are_those_of_the_functions_behind_them(
    network: nn.Module, images: Tensor, labels: Tensor, report: Report
) -> None:
    """A report on all images equals the measures' functions with NumPy's percentiles and logarithms."""
    settings = settings_with(SMALL, num_points=13, num_noise=13, num_local=13)
    found = measure(list(MEASURES), network, images, labels, settings=settings, class_names="abcd")
    with torch.no_grad():
        logits = network.eval()(images).numpy()
    odds = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    right = logits.argmax(1) == labels.numpy()
    expected = {"accuracy": right.mean(), "loss": -np.log(odds[np.arange(13), labels.numpy()]).mean()}
    gaps = margins(network, images, labels).numpy()
    expected |= {f"margin/p{percent}": np.percentile(gaps, percent) for percent in (10, 50, 90)}
    expected |= {"margin/mean": gaps.mean(), "margin/not_positive": 3 / 13, "complexity/excluded": 3 / 13}
    percentiles = complexity(network, images, labels).percentile(90)
    expected |= {f"complexity/{name}/p90": value for name, value in percentiles.items()}
    phi = noise_sensitivity(network, images, draws=3).sensitivity.numpy()
    expected |= {"noise/max": phi.max(), "noise/mean": phi.mean(), "noise/p90": np.percentile(phi, 90)}
    for name, norms in local_lipschitz(network, images)._asdict().items():
        statistics = {"mean": norms.mean(), "p95": np.percentile(norms, 95), "max": norms.max()}
        expected |= {f"local/{name}/{one}": float(value) for one, value in statistics.items()}
    weights = [dict(network.named_modules())[layer.name].weight.detach().flatten(1) for layer in layer_spectra(network)]
    ranks = [float(torch.linalg.matrix_norm(w) / torch.linalg.matrix_norm(w, 2)) ** 2 for w in weights]
    expected["spectra/stable_rank_sum"] = sum(ranks)
    expected["spectra/log_spectral_norm_sum"] = sum(math.log(torch.linalg.matrix_norm(w, 2)) for w in weights)
    expected["spectra/normalized_stable_rank_mean"] = np.mean(
        [r / min(w.shape) for r, w in zip(ranks, weights, strict=True)]
    )
    others = {key for key in found.values if key.startswith("global/")}
    assert set(found.values) == set(report.values) == set(expected) | others
    assert {key: found.values[key] for key in expected} == pytest.approx(expected, rel=1e-9)


def test_pairs_are_of_different_images_and_use_all(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Six pairs cover all twelve images once, as their distances show."""
    found = measure(["global"], network, images[:12], labels[:12], settings=settings_with(SMALL, num_pairs=6))
    every = torch.cdist(images[:12].flatten(1), images[:12].flatten(1))
    members = [(every - distance).abs().argmin() for distance in found.arrays["global/distance"]]
    assert sorted(int(row) for member in members for row in (member // 12, member % 12)) == list(range(12))
    x, y = (images[torch.stack(members) // 12], images[torch.stack(members) % 12])
    ratios = global_lipschitz(network, x, y).ratio.numpy()
    assert found.arrays["global/ratio"] == pytest.approx(ratios, rel=1e-9)
    statistics = {"global/mean": ratios.mean(), "global/p95": np.percentile(ratios, 95), "global/max": ratios.max()}
    assert found.values == pytest.approx(statistics, rel=1e-9)


def test_accuracy_is_by_class_too(report: Report, folder: Path) -> None:
    header, *rows = class_table(report)
    assert header == ["class", "accuracy"]
    measured = report.arrays["accuracy/classes"]
    assert [row[0] for row in rows] == [*(("drawn", *"bcd")[label] for label in measured), "mean"]
    counts = [entry["images"] for entry in report.protocol["values"]["accuracy"]["record"]["classes"]]
    shares = [float(row[1]) for row in rows[:-1]]
    assert sum(counts) == 11
    assert np.average(shares, weights=counts) == pytest.approx(report.values["accuracy"], rel=1e-5)
    assert f"{counts[0]} images" in Parts((folder / "report.html").read_text()).text


def test_pairs_and_layers_are_not_called_images(report: Report, folder: Path) -> None:
    entries = report.protocol["values"]
    counts = [count_text(entries[key]) for key in ("noise/max", "global/max", "spectra/stable_rank_sum")]
    assert counts == ["7", "9 pairs", "3 layers"]
    page = Parts((folder / "report.html").read_text()).text
    assert all(text in both for both in (report.table(), page) for text in ("9 pairs", "3 layers"))


def test_directions_are_of_what_does_not_scale_with_the_logits(report: Report) -> None:
    better = {key: entry["better"] for key, entry in report.protocol["values"].items()}
    assert {key for key, direction in better.items() if direction == "higher"} == {"accuracy"}
    lower = {key for key, direction in better.items() if direction == "lower"}
    assert measures_of(lower) == {"accuracy", "margin", "complexity", "noise"}
    assert {key for key in lower if key.startswith("margin")} == {"margin/not_positive"}


def test_a_report_is_one_folder_with_figures_and_a_page(report: Report, folder: Path) -> None:
    figures = {f"{name}.png" for name in ("complexity", "margin", "noise", "local", "global", "layers")}
    names = {file.name for file in folder.iterdir()}
    assert names == figures | {"report.json", "report.txt", "report.html", "arrays.npz", "classes.csv"}
    parts = Parts((folder / "report.html").read_text())
    assert parts.tags.count("img") == len(figures)
    for shown in ("Sample complexities", "Margins", "Noise sensitivity", "Layers", "Layer by layer"):
        assert shown in parts.text
    assert all(entry["hash"] in parts.text for entry in report.protocol["values"].values())


def test_hostile_names_add_nothing_to_the_page(folder: Path, tmp_path: Path) -> None:
    hostile, plain = (
        Parts((place / "report.html").read_text()) for place in (whole_report(HOSTILE).save(tmp_path), folder)
    )
    assert set(hostile.tags) == set(plain.tags)
    assert not hostile.handlers


def test_figure_4_has_a_panel_for_each_complexity(report: Report) -> None:
    figure = kinds_figure(report, "complexity")
    assert [axes.get_title() for axes in figure.axes] == ["log Jac-Norm", "log Spec-L1", "log Spec-Fro"]
    for axes, name in zip(figure.axes, ("jac_norm", "spec_l1", "spec_fro"), strict=True):
        (line,) = axes.lines
        assert line.get_xdata()[0] == report.values[f"complexity/{name}/p90"]
        logs = report.arrays[f"complexity/{name}/log"]
        heights, edges, _ = next(patch for patch in axes.patches if not patch.get_fill()).get_data()
        low, high = np.nanmin(logs), np.nanmax(logs)
        assert low - 0.1 * (high - low) < edges[0] < low  # not at 0: logarithms may be negative
        assert (heights * np.diff(edges)).sum() == pytest.approx(1)


def test_margins_below_zero_are_drawn(report: Report) -> None:
    (axes,) = kinds_figure(report, "margin").axes
    assert axes.get_xlim()[0] < report.arrays["margin/value"].min() < 0
    assert axes.lines[0].get_xdata()[0] == report.values["margin/p50"]


def test_layers_are_drawn_and_listed_in_their_order(report: Report, network: nn.Module) -> None:
    assert report.protocol["values"]["spectra/stable_rank_sum"]["record"]["layers"] == ["0", "4", "6"]
    assert report.arrays["spectra/shape"].tolist() == [[4, 27], [5, 36], [4, 5]]
    layers = layer_spectra(network)
    assert report.arrays["spectra/stable_rank"].tolist() == [layer.stable_rank for layer in layers]
    assert report.arrays["spectra/spectral_norm"].tolist() == [layer.spectral_norm for layer in layers]


def test_runs_of_classifiers_are_compared(network: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path) -> None:
    folders = []
    for seed, name in enumerate(("vanilla", "srn30")):
        for step, names in ((10, ["accuracy"]), (20, list(MEASURES))):
            found = measure(names, a_network(seed), images, labels, settings=SMALL, subject={"step": step})
            found.save(tmp_path / name / "reports" / f"{step:08d}")
        (tmp_path / name / "metrics.jsonl").write_text(LOG)
        folders.append(tmp_path / name)
    comparison = compare_folders(folders, tmp_path / "out")
    assert not comparison.left_out
    names = {file.stem for file in (tmp_path / "out").glob("*.png")}
    kinds = {"complexity", "margin", "noise", "local-spectral", "local-frobenius", "global"}
    assert names == {"training", "values-over-steps", "layers"} | kinds
    figures = comparison_figures(comparison, {folder.name: StoredReport.read(folder) for folder in folders})
    assert len(figures["complexity"].axes) == 3
    for axes in figures["complexity"].axes:
        outlines = [patch for patch in axes.patches if not patch.get_fill()]
        assert [patch.get_label().split(":")[0] for patch in outlines] == ["vanilla", "srn30"]
        assert [to_hex(patch.get_edgecolor()) for patch in outlines] == list(COLOURS[:2])
    assert [axes.get_title() for axes in figures["Layers"].axes] == list(LAYERS)
    assert {axes.get_title() for axes in figures["Training"].axes} == {
        *("training loss", "training accuracy", "test accuracy")
    }


def test_reports_on_other_labels_are_not_compared(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    one = measure(["margin"], network, images, labels)
    other = measure(["margin"], network, images, labels.flip(0), label_kind="random, seed 0")
    with pytest.raises(EvaluationError, match=r"margin/mean: runs a and b differ in labels \(given, random, seed 0\)"):
        compare({"a": one, "b": other})


def test_the_curves_of_a_classifiers_log_are_read(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(LOG)
    curves = read_curves(tmp_path / "metrics.jsonl")
    assert {name: [part.tolist() for part in curve] for name, curve in curves.items()} == {
        "loss": [[10, 20], [2, 1]],
        "accuracy": [[10, 20], [0.5, 0.75]],
        "test_accuracy": [[10], [0.4]],
    }


def test_what_has_no_value_says_so(tmp_path: Path) -> None:
    """Cases: no hidden layer, no correctly classified image, equal images, zero logits."""
    network = nn.Linear(2, 2, bias=False)
    network.weight.data = torch.eye(2)
    x = torch.tensor([[0.0, 0.0], [0.0, 0.0], [3.0, 1.0]])
    found = measure(list(MEASURES), network, x, torch.tensor([0, 1, 1]), settings=settings_with(SMALL, num_pairs=3))
    assert all(math.isnan(found.values[f"complexity/{name}/p90"]) for name in ("spec_fro", "spec_l1", "jac_norm"))
    assert found.values["complexity/excluded"] == found.values["margin/not_positive"] == 1  # two margins are 0
    assert found.values["noise/max"] > 0
    assert notes(found)[:3] == [
        f"complexity/{name}: no image has a value" for name in ("spec_fro", "spec_l1", "jac_norm")
    ]
    assert "noise: 2 images are left out because their logits are 0" in notes(found)
    again = Report.load(found.save(tmp_path))
    assert again.table() == found.table()
    assert not (tmp_path / "complexity.png").exists()
    single = measure(["complexity"], network, x[2:], torch.tensor([0]))
    assert single.values["complexity/spec_fro/p90"] == pytest.approx(math.log(2 / 4), abs=1e-6)
    assert math.isnan(single.values["complexity/jac_norm/p90"])
    equal = measure(["global"], network, torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64))
    assert math.isnan(equal.values["global/max"])
    assert notes(equal) == ["global: 2000 pairs are left out because their images are equal"]


@pytest.mark.parametrize("value", [0, 1.5, True, "3", None, 2**63])
def test_settings_are_whole_numbers_from_one_or_zero_for_the_seed(value: object) -> None:
    for name in ("num_points", "num_noise", "draws", "num_local", "num_pairs", "batch_size"):
        with pytest.raises(EvaluationError, match=rf"^{name}: got {value!r}, expected "):
            MeasureSettings(**{name: value})
    assert MeasureSettings(seed=0).seed == 0
    with pytest.raises(EvaluationError, match=r"^seed: got -1, expected greater than or equal to 0"):
        MeasureSettings(seed=-1)


class Positions(nn.Module):
    """Has a weight outside of its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.position, self.head = nn.Parameter(torch.randn(1, 6)), nn.Linear(6, 3)

        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.head(x + self.position)


@pytest.mark.parametrize("name", MEASURES)
def test_a_network_that_a_measure_of_layers_does_not_know_is_refused_at_once(name: str) -> None:
    network, x, labels = Positions(), torch.randn(4, 6), torch.zeros(4, dtype=torch.int64)
    if MEASURES[name].layers:
        with pytest.raises(EvaluationError, match="got the weight position"):
            measure(["noise", name], network, x, labels, settings=SMALL)
        assert network.calls == 3  # to see whether it is a classifier; nothing is measured
    else:
        assert measure([name], network, x, labels, settings=SMALL).values


def plain(**changes: Any) -> dict[str, Any]:
    return {
        "names": ["accuracy"],
        "network": nn.Linear(2, 2),
        "images": torch.zeros(3, 2),
        "labels": torch.zeros(3, dtype=torch.int64),
        **changes,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (plain(names=[]), r"measures: got \[\], expected a list of names from accuracy, margin, "),
        (plain(names="accuracy"), "measures: got 'accuracy', expected a list"),
        (plain(names=["acuracy"]), "measures: got 'acuracy', .* did you mean accuracy?"),
        (plain(labels=torch.tensor([0, 1, 2])), "labels: got 2 for 2 logits"),
        (plain(network_protocol={"x": torch.zeros(1)}), "protocol of network: .* expected text, numbers"),
        (plain(names=["global"], images=torch.zeros(1, 2), labels=torch.tensor([0])), "got 1 image, expected at least"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        measure(**arguments)


def test_damaged_spectra_are_refused(report: Report, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "report")
    arrays = report.arrays | {"spectra/stable_rank": np.ones(2), "spectra/spectral_norm": np.ones(3)}
    np.savez(tmp_path / "report" / "arrays.npz", **{name.replace("/", "|"): array for name, array in arrays.items()})
    with pytest.raises(EvaluationError, match="expected a number for each layer"):
        Report.load(tmp_path / "report")


def test_a_network_of_torchvision_in_three_lines() -> None:
    """All of MEASURES, as a page of the documentation shows it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = resnet18(num_classes=10)
    images = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = labels_of(network, images)

    report = measure(list(MEASURES), network, images, labels)

    assert report.values["accuracy"] == 0.5
    assert report.values["complexity/excluded"] == 0.5
    assert all(math.isfinite(value) for value in report.values.values())
    assert len(report.arrays["spectra/stable_rank"]) == 21
    assert report.protocol["subject"]["parameters"] == sum(one.numel() for one in network.parameters())


def test_the_python_of_the_page_runs(
    network: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) >= 2
    names: dict[str, object] = {
        "network": network,
        "other": a_network(1),
        "images": images,
        "labels": labels,
        "fingerprint": "a" * 64,
    }
    for block in blocks:
        exec(block, names)
    assert "accuracy" in capsys.readouterr().out
    assert (tmp_path / "report" / "report.html").is_file()


def test_every_measure_and_setting_is_on_the_page() -> None:
    text = PAGE.read_text()
    for name in (*MEASURES, *MeasureSettings.model_fields):
        assert f"`{name}`" in text, name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", MEASURES)
def test_values_do_not_depend_on_the_device(name: str, network: nn.Module, images: Tensor, labels: Tensor) -> None:
    here = measure([name], network, images, labels, settings=SMALL)
    there = measure([name], network.cuda(), images, labels, settings=SMALL)
    assert there.values == pytest.approx(here.values, rel=1e-8)
    assert hashes(there) == hashes(here)
    assert there.protocol["machine"]["device"].startswith("cuda")
