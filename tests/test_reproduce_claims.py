"""Tests of tools/reproduce.py on claims of the BSSN paper and the SRN paper's appendices: runs, measures, verdicts."""

import importlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import test_reproduce
from click.testing import Result
from commands import done
from test_reproduce import InProcess, rows_of, tables_of

from gan.config import load_config
from gan.config.loading import differences

reproduce, processes, call = test_reproduce.reproduce, test_reproduce.processes, test_reproduce.call  # fixtures
CLAIMS = [
    *(("bssn", name) for name in ("gradients", "initialisation", "sn_conv", "grid")),
    *(("srn_appendix", name) for name in ("B1", "B2", "C", "rank")),
]


def module(name: str) -> ModuleType:
    return importlib.import_module(f"reproducing.{name}")


def trained(content: Any) -> list[Any]:
    """Models of a page that are trained."""
    return list(dict.fromkeys(line.model for line in content.lines if hasattr(line.model, "config")))


@pytest.mark.parametrize(("kind", "name"), CLAIMS)
def test_every_model_of_a_claim_has_a_configuration_at_every_scale(reproduce: ModuleType, kind: str, name: str) -> None:
    for scale in reproduce.SCALES.values():
        for model in trained(reproduce.artefact(kind, name).content):
            run = module("runs").ModelRun.of(model, 3, scale, (), Path("runs"))
            assert run.config.train.gradients_every > 0, "curves and most measures are of logged gradients"
            assert run.config.discriminator.name == "sndcgan"
            assert run.overrides == model.changes
            assert (run.config.discriminator.channels == 16) == scale.small
            assert run.config.train.steps == (0 if "train.steps=0" in model.changes else run.config.train.steps)


def test_models_of_one_page_differ_in_normalization_and_initialization_only(reproduce: ModuleType) -> None:
    normalizing = ("normalization", "c", "relative_to", "scale", "gp_coefficient", "initialization")
    allowed = {"train.loss", "train.steps", *(f"discriminator.{name}" for name in normalizing)}
    for kind, name in CLAIMS:
        content = reproduce.artefact(kind, name).content
        configs = [load_config(one.config, one.changes, one.variants) for one in trained(content)]
        for config in configs[1:]:
            places = {text.partition(": ")[0] for text in differences(configs[0], config)}
            rates = {"train.learning_rate", "train.d_learning_rate"} if name == "grid" else set()
            left = {
                place for place in places - rates if place.rpartition(".")[2] not in allowed and place not in allowed
            }
            assert not left, (name, left)


def test_pages_on_claims_share_their_runs(reproduce: ModuleType, tmp_path: Path) -> None:
    """Gradients trains eight models; initialisation and B1 need no other, sn_conv one more."""

    def runs(*wanted: tuple[str, str]) -> int:
        artefacts = [reproduce.artefact(*each) for each in wanted]
        return len(reproduce.Plan(artefacts, [0], reproduce.SCALES["cpu"], (), tmp_path).groups)

    assert runs(CLAIMS[0]) == 8
    assert runs(CLAIMS[0], CLAIMS[1], ("srn_appendix", "B1"), ("srn_appendix", "C")) == 8
    assert runs(CLAIMS[0], CLAIMS[2]) == 9
    assert runs(CLAIMS[3]) == 16


@pytest.mark.parametrize(("kind", "name"), CLAIMS)
def test_claims_are_about_models_and_columns_of_their_page(reproduce: ModuleType, kind: str, name: str) -> None:
    content = reproduce.artefact(kind, name).content
    labels = {line.model.label for line in content.lines}
    assert content.judged
    assert 1 + len(content.columns) <= 7
    for claim in content.claims:
        assert {claim.smaller, claim.larger} <= labels, claim
        assert {claim.column, claim.than or claim.column} <= set(content.columns), claim
        assert set(claim.panels) <= set(content.sections), claim


def logged(folder: Path, gradients: Sequence[dict[str, float]], variances: Sequence[float] = ()) -> Any:
    """A run of a narrow SNDCGAN with logged gradients by layer at steps 0, 50, ..., and a variance for each step."""
    variances = variances or [1.0] * len(gradients)
    records = [
        {
            "step": 50 * n,
            "gradients": {
                "layers": {
                    name: {"gradient": 9.0, "gradient_used": norm, "variance": variance} for name, norm in each.items()
                },
                "whole": 9.0,
                "slope_real": [0.5, 0.1, 1.0],
                "slope_fake": [0.25, 0.1, 1.0],
            },
        }
        for n, (each, variance) in enumerate(zip(gradients, variances, strict=True))
    ]
    return written(folder, *records, {"step": 10, "d_loss": 1.0})


def written(folder: Path, *records: dict[str, Any]) -> Any:
    """A run with a log, whose last line is incomplete."""
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text("generator: {name: sndcgan}\ndiscriminator: {name: sndcgan, channels: 16}\n")
    (folder / "metrics.jsonl").write_text("\n".join([*map(json.dumps, records), '{"st']))
    return module("measured").MeasuredRun(folder, [])


def norms_of(first: Sequence[float], second: Sequence[float]) -> list[dict[str, float]]:
    """Norms of gradients of two layers, by step."""
    return [{"convs.0": a, "convs.1": b} for a, b in zip(first, second, strict=True)]


def test_measures_of_gradients_are_those_of_the_weights_in_use(reproduce: ModuleType, tmp_path: Path) -> None:
    """Decimal logarithms over steps and layers; the last quarter of steps 0, 50, ..., 200 are 150 and 200."""
    training = module("training")
    run = logged(tmp_path / "run", norms_of((1.0, 30.0, 1.0, 1.0, 0.0), (0.1, 40.0, 1.0, 0.01, 1e-4)))
    assert training.largest_gradient(run) == pytest.approx(math.log10(50))
    assert training.smallest_at_start(run) == pytest.approx(-1)
    late = (0.01 + 0.0) / 2  # median of two
    assert training.smallest_at_end(run) == pytest.approx(math.log10(late))
    assert training.fall(run) == pytest.approx(-1 - math.log10(late))
    zero = logged(tmp_path / "zero", norms_of((0.0, 0.0), (1.0, 1.0)))
    assert training.smallest_at_end(zero) == -12
    without = written(tmp_path / "without", {"step": 0, "d_loss": 1.0})
    for name in ("largest_gradient", "fall", "drift_of_variance", "distance_from_lecun"):
        assert math.isnan(getattr(training, name)(without)), name
    for measure in (training.rank_at(0), training.bound_at(-1)):
        assert math.isnan(measure(without))


def test_variances_are_relative_to_lecuns(reproduce: ModuleType, tmp_path: Path) -> None:
    """LeCun's variance has distance 0, and a quarter of it has drifted by two factors of 2."""
    training = module("training")
    lecun = logged(tmp_path / "run", [{"convs.1": 1.0}, {"convs.1": 1.0}], [1 / 256, 1 / 1024])
    inputs = training.fan_ins(lecun.folder)
    assert [inputs[f"convs.{n}"] for n in (0, 1, 2)] == [3 * 9, 16 * 16, 16 * 9]
    assert inputs["linear"] == 128 * 16
    assert training.distance_from_lecun(lecun) == pytest.approx(0, abs=1e-12)
    assert training.drift_of_variance(lecun) == pytest.approx(2)
    assert training.training_curves(lecun.folder)["lecun/convs.1"][1] == pytest.approx([1, 0.25])


def test_stable_ranks_are_shares_of_the_original(reproduce: ModuleType, tmp_path: Path) -> None:
    def row(name: str, initial: float, now: float, active: bool) -> dict[str, Any]:
        ranks = {"stable_rank": initial, "normalized_stable_rank": now}
        return {"name": name, "sigma": 1.0, "normalized_sigma": 1.0, "active": active, **ranks}

    layers = {name: {"gradient": 1.0, "gradient_used": 1.0, "variance": 1.0} for name in ("convs.0",)}
    gradients = {"layers": layers, "whole": 1.0, "slope_real": [1.0] * 3, "slope_fake": [1.0] * 3}
    run = written(
        tmp_path / "run",
        {"step": 0, "gradients": gradients},
        {"step": 0, "layers": [row("a", 10, 3, True), row("b", 4, 4, False), row("linear", 1, 1, False)]},
        {"step": 50, "layers": [row("a", 8, 5, True), row("b", 6, 3, True), row("linear", 1, 1, False)]},
    )
    training = module("training")
    assert [training.bound_at(place)(run) for place in (0, -1)] == [1, 2]
    assert [training.rank_at(place)(run) for place in (0, -1)] == pytest.approx([65, 62.5])


def test_a_claim_is_seen_if_all_its_orders_are(reproduce: ModuleType) -> None:
    orders = module("pages.orders")

    def judged(*verdicts: str) -> str:
        return str(orders.judgement(orders.Order("text", "pair", one) for one in verdicts))

    assert judged("as in the paper", "as in the paper") == "seen"
    assert judged("as in the paper", "reversed") == "not seen"
    assert judged("as in the paper", "undecided, as in the paper") == "not decidable at this scale"
    assert judged("as in the paper", "not run") == "not decidable at this scale"


def test_a_page_has_a_verdict_for_each_claim_of_the_abstract(
    reproduce: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stored toy values over three seeds; without SN_conv, claims about it cannot be decided."""
    pages, columns = (module(name) for name in ("pages.page", "paper.columns"))
    content = reproduce.artefact("bssn", "gradients").content
    labels = [line.model.label for line in content.lines]
    assert labels[:3] == ["none (Glorot)", "none (LeCun)", "SN"]
    assert labels[5] == "SN_conv"

    def near(*values: float | None) -> list[Any]:
        return [None if value is None else (value - 0.1, value, value + 0.1) for value in values]

    values = {
        columns.LARGEST: near(3, 3, 1, 1, 1, None, 1, 1),
        columns.END: near(-3, -1, -2, -2, -2, None, -2, -2),  # LeCun's is larger than SN's
        columns.FALL: near(1, 1, 0, 0, 0, None, 0, 0),
        columns.DRIFT: near(1, 1, 0, 0, 0, None, 0, 0),
        columns.DISTANCE: near(0, 0, 1, 1, 1, None, 1, 1),
        "FID": near(9, 9, 8, 8, 8, None, 7.9, 9),
    }
    found = pages.page("BSSN gradients", content, rows_of(content, **values), [])
    assert found.summary == "5 claims of the paper: 1 seen, 1 not seen, 3 not decidable at this scale."
    *_, claims = tables_of(found.markdown)
    verdicts = {row["the paper's claim"].partition(",")[0]: row["here"] for row in claims}
    assert verdicts["SN controls exploding gradients"] == "**seen**"
    assert verdicts["SN controls vanishing gradients"] == "**not seen**"
    assert verdicts["BSSN gives better samples than SN"] == "**not decidable at this scale**"
    assert "Not run: SN_conv." in found.markdown
    row = next(row for row in claims if row["the paper's claim"] == "SN controls vanishing gradients")
    assert row["as in the paper"] == f"{columns.END}: none (Glorot) < SN"
    assert row["reversed"] == f"{columns.END}: none (LeCun) < SN"


@pytest.mark.parametrize(("start", "verdict"), [(0.0, "seen"), (-2.0, "not seen")])
def test_a_gradient_must_fall_to_vanish(reproduce: ModuleType, start: float, verdict: str) -> None:
    """Without normalization the smallest layer's gradient ends at -1; SN keeps its own better in both cases."""
    columns, content = module("paper.columns"), reproduce.artefact("bssn", "initialisation").content

    def near(*values: float) -> list[Any]:
        return [(value - 0.01, value, value + 0.01) for value in values]

    values = {
        columns.START: near(start - 1, start, start - 1, start - 1),
        columns.END: near(start - 2, -1, start, start),
        columns.FALL: near(1, start + 1, start - 1, start),
        columns.DISTANCE: near(1, 0, 1, 2),
        columns.DRIFT: near(1, 1, 0, 0),
    }
    found = module("pages.page").page("BSSN initialisation", content, rows_of(content, **values), [])
    *_, claims = tables_of(found.markdown)
    (row,) = (row for row in claims if "only at the beginning" in row["the paper's claim"])
    assert row["here"] == f"**{verdict}**"


def test_a_claim_can_compare_two_values_of_one_model(reproduce: ModuleType) -> None:
    content = reproduce.artefact("srn_appendix", "B1").content
    ratio, segment, _ = content.columns
    values = {ratio: [(1.0, 1.1)] * 5, segment: [(2.0, 2.1)] * 4 + [(0.5, 0.6)]}
    found = module("pages.page").page("SRN B1", content, rows_of(content, **values), [])
    assert found.summary == "1 claim of the paper: 1 not seen."
    *_, (row,) = tables_of(found.markdown)
    assert row["reversed"] == f"SN_conv, {ratio} < SN_conv, {segment}"


def test_training_is_drawn_with_a_curve_for_each_model(reproduce: ModuleType, tmp_path: Path) -> None:
    content = reproduce.artefact("bssn", "gradients").content
    runs = [logged(tmp_path / str(n), norms_of((1.0 + n, 2.0), (1.0, 2.0))) for n in range(2)]
    rows = [SimpleNamespace(label=line.model.label, line=line, runs=runs) for line in content.lines[:2]]
    shown = module("pages.pictures").pictures(content, rows, lambda letter: tmp_path / f"figure{letter}.png")
    assert [(tmp_path / f"figure{letter}.png").stat().st_size > 1000 for letter in "ab"] == [True, True]
    assert "![Gradients of the discriminator during training, gradients](figurea.png)" in shown[0]
    assert len(shown) == 3


def test_the_linear_example_has_its_closed_form(reproduce: ModuleType) -> None:
    """Mean squared ratio rank / 64; norms stay 1; the largest of 2,000 ratios is at most 1 and falls with the rank."""
    example = module("example").LinearExample
    found = {rank: example("", rank).values(3) for rank in (64, 16, 1)}
    for values in found.values():
        assert values["example/product"] == pytest.approx(1)
        assert values["example/jacobian"] == pytest.approx(1)
    assert found[64]["example/ratio"] == pytest.approx(1)
    # 2,000 draws of Beta(8, 24), mean 1/4, deviation 0.075: the largest is 3 to 5 deviations above the mean.
    assert (0.25 + 3 * 0.075) ** 0.5 < found[16]["example/ratio"] < (0.25 + 5 * 0.075) ** 0.5
    assert found[1]["example/ratio"] < 0.6


def test_the_linear_example_needs_no_run(call: Callable[..., Result], processes: InProcess, tmp_path: Path) -> None:
    assert "0 runs, 0 to train" in done(call("--srn-appendix=B2", "--dry-run")).output
    page = tmp_path / "page.md"
    page.write_text("| SRN B2 |")
    done(call("--srn-appendix=B2", f"--into={page}"))
    assert processes.commands == []
    assert page.read_text().startswith("| [SRN B2](out/srn-b2-cpu.md) | Appendix B.2")
    assert "1 claim of the paper: 1 seen." in (tmp_path / "out" / "srn-b2-cpu.md").read_text()


def test_a_dry_run_lists_the_runs_of_a_claim(call: Callable[..., Result], processes: InProcess) -> None:
    lines = done(call("--bssn=gradients", "--dry-run")).output.splitlines()
    assert processes.commands == []
    names = [line.partition("-seed")[0] for line in lines if "-seed0-" in line]
    config = "cifar10_sndcgan_sn-jpeg-narrow"
    first = ("unnormalized-glorot", "unnormalized-lecun", "glorot", "srn30-glorot", "srn30-relative-glorot")
    assert names == [f"{config}-{which}" for which in (*first, "sn_conv-glorot", "bssn-glorot", "wgan_gp-glorot")]
    assert "16 runs, 16 to train" in lines


@pytest.mark.slow
def test_a_page_of_claims_is_made_of_trained_runs(
    call: Callable[..., Result], processes: InProcess, tmp_path: Path
) -> None:
    settings = ("train.gradients_every=1", "eval.num_is=20", "eval.num_real=0", "eval.extractor=resnet")
    done(call("--bssn=gradients", "--srn-appendix=B1,C", *(f"--set={setting}" for setting in settings)))
    out = tmp_path / "out"
    text = (out / "bssn-gradients-cpu.md").read_text()
    assert "5 claims of the paper: " in text
    for letter in "ab":
        assert (out / f"bssn-gradients{letter}-cpu.png").stat().st_size > 1000
    found = json.loads((out / "srn-b1-cpu.json").read_text())["models"]
    obeyed = "share of pairs below their segment's norm"
    assert all(value == 1 for model in found for value in model["ours"][obeyed]["values"])
    assert "Not run" not in text
