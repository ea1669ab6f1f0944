"""Tests of tools/reproduce.py on GANs: planned runs, no repeated work, the paper's values beside ours."""

import importlib
import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result
from commands import done

from evaluation.errors import EvaluationError
from gan.build import build_discriminator
from gan.config import available_configs, load_config
from gan.config.loading import differences
from gan.errors import DataError, UserError
from gan.evaluate import main as gan_eval
from gan.evaluate_classifier import main as gan_eval_classifier
from gan.launch.several import Ended, Planned
from gan.normalization import refresh_, spectra
from gan.train import main as gan_train
from gan.train_classifier import main as gan_train_classifier

TOOLS = Path(__file__).resolve().parent.parent / "tools"
COMMANDS = {
    "gan.train": gan_train,
    "gan.evaluate": gan_eval,
    "gan.train_classifier": gan_train_classifier,
    "gan.evaluate_classifier": gan_eval_classifier,
}
TINY = (
    *("data.name=shapes", "data.title=shapes", "train.steps=4", "train.log_every=1", "train.batch_size=2"),
    *("generator.channels=4", "discriminator.channels=4", "eval.extractor=pixels", "eval.num_fid=20"),
    *("eval.nd.steps=2", "eval.nd.num_samples=20", "eval.nd.num_critics=1", "eval.lipschitz.pairs=20"),
)


@pytest.fixture
def reproduce(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("reproduce")


class InProcess:
    """Stand-in for gan.launch.several.run_all that runs commands in this process; returns `statuses` in turn."""

    def __init__(self) -> None:
        self.commands: list[Planned] = []
        self.statuses: list[int] = []
        self.stopped = False

    def __call__(self, planned: Sequence[Planned], at_once: int, say: Callable[[str], None]) -> list[Ended]:
        return [self._run(run, say) for run in planned]

    def _run(self, run: Planned, say: Callable[[str], None]) -> Ended:
        self.commands.append(run)
        if self.statuses:
            return Ended(self.statuses.pop(0), 1.5, self.stopped)
        result = CliRunner().invoke(COMMANDS[run.module], run.arguments)
        for line in result.output.splitlines():
            say(f"[{run.folder.name}] {line}")
        return Ended(result.exit_code, 1.5)


@pytest.fixture
def processes(reproduce: ModuleType, monkeypatch: pytest.MonkeyPatch) -> InProcess:
    found = InProcess()
    monkeypatch.setattr("reproducing.jobs.run_all", found)
    return found


@pytest.fixture
def call(reproduce: ModuleType, processes: InProcess, tmp_path: Path, small_shapes: Path) -> Callable[..., Result]:
    """Runs the tool at scale cpu, reduced further, on drawn shapes."""
    settings = [f"--set={setting}" for setting in (*TINY, f"data.root={small_shapes}")]
    shared = ["--scale=cpu", "--device=cpu", "--seeds=0,1", f"--folder={tmp_path / 'out'}", *settings]
    return lambda *arguments: CliRunner().invoke(reproduce.main, [*shared, *map(str, arguments)])


def tables_of(text: str) -> list[list[dict[str, str]]]:
    """Tables of a page as rows of cells by column name."""
    tables = [part.splitlines() for part in text.split("\n\n") if part.startswith("|")]
    cells = [[[cell.strip() for cell in row.split("|")[1:-1]] for row in table] for table in tables]
    return [[dict(zip(rows[0], row, strict=True)) for row in rows[2:]] for rows in cells]


def test_every_model_has_a_configuration_at_every_scale(reproduce: ModuleType) -> None:
    paper = importlib.import_module("reproducing.paper.gans")
    artefacts = [reproduce.artefact("table", number) for number in paper.TABLES]
    artefacts += [reproduce.artefact("figure", number) for number in paper.FIGURES]
    known = available_configs()
    for scale in reproduce.SCALES.values():
        for model, _ in (need for artefact in artefacts for need in artefact.needs):
            run = importlib.import_module("reproducing.runs").ModelRun.of(model, 3, scale, (), Path("runs"))
            assert f"{run.name}.yaml" in known
            assert run.config.train.seed == 3
            adam = 0.9 if model.config.endswith("_miyato") else 0.999
            assert run.config.train.adam_beta2 == (0.99 if "compact" in run.variants else adam)
            assert run.config.discriminator.name == ("compact" if "compact" in run.variants else "resnet")
            assert (run.config.train.steps == 0) == ("train.steps=0" in model.changes)
            assert run.config.conditional == ("_cond_" in model.config)


def test_the_tool_changes_no_configuration(reproduce: ModuleType) -> None:
    """Each run is one that gan-train makes with --config and --with, apart from seeds and untrained networks."""
    paper, runs = (importlib.import_module(f"reproducing.{name}") for name in ("paper.gans", "runs"))
    models = {line.model for content in (*paper.TABLES.values(), *paper.FIGURES.values()) for line in content.lines}
    for scale in reproduce.SCALES.values():
        for model in models:
            run = runs.ModelRun.of(model, 3, scale, (), Path("runs"))
            assert run.overrides == model.changes
            assert run.training("cpu").arguments[:2] == ["--config", model.config]


def test_a_variant_is_added_to_those_of_a_scale(reproduce: ModuleType, tmp_path: Path) -> None:
    """On a CPU it replaced those that make the networks small."""
    for scale in reproduce.SCALES.values():
        for number, name in (("2", "cifar10_sn_miyato"), ("4", "celeba_sn")):
            artefacts = [reproduce.artefact("table", number)]
            plain, other = (
                reproduce.Plan(artefacts, [0], each, (), tmp_path) for each in (scale, scale._replace(variant="jpeg"))
            )
            found, changed = ({run.name: run for run in plan.groups}[name] for plan in (plain, other))
            expected = [*(["jpeg"] if number == "2" else []), *(each for each in found.variants if each != "jpeg")]
            assert list(changed.variants) == expected


def test_the_rows_of_a_section_differ_in_their_normalization_only(reproduce: ModuleType) -> None:
    """Except in quoted rows, which have another Adam; WGAN-GP has its loss."""
    paper = importlib.import_module("reproducing.paper.gans")
    for content in (*paper.TABLES.values(), *paper.FIGURES.values()):
        for lines in content.sections.values():
            found = [line.model.load(line.model.config, line.model.variants, ()) for line in lines]
            for config, line in zip(found, lines, strict=True):
                places = {difference.partition(": ")[0] for difference in differences(found[-1], config)}
                allowed = {"discriminator.normalization", "discriminator.c", "train.loss", "train.adam_beta2"}
                assert {place for place in places if not place.endswith("_coefficient")} <= allowed
                assert ("train.adam_beta2" in places) == (line.protocol == paper.QUOTED)


def test_printed_numbers_belong_to_columns(reproduce: ModuleType) -> None:
    orders = importlib.import_module("reproducing.pages.orders")
    for table in reproduce.KINDS["table"].contents.values():
        for line in table.lines:
            assert set(line.printed) <= set(table.columns)
            assert all(orders.number(text) > 0 for text in line.printed.values())
            ours = line.model.conditions(line.model.load(line.model.config, line.model.variants, ()), [], [])
            assert {*table.protocol, *line.protocol} <= set(ours)


def test_pages_have_at_most_seven_columns(reproduce: ModuleType) -> None:
    """A column each for the model and our values, and one for the paper's where it prints any."""
    for content in (*reproduce.KINDS["table"].contents.values(), *reproduce.KINDS["figure"].contents.values()):
        printed = {name for line in content.lines for name in line.printed}
        assert 1 + len(content.columns) + len(printed) <= 7, content.title


def rows_of(content: Any, **values: Sequence[float]) -> list[Any]:
    """Rows of a table or figure, in order of its lines, with each column's values by model; None leaves a model out."""
    rows, results = (importlib.import_module(f"reproducing.{name}") for name in ("pages.rows", "results"))
    found = []
    for place, line in enumerate(content.lines):
        given = {name: each[place] for name, each in values.items() if each[place] is not None}
        ours = {name: results.Ours(results.Spread.of(each), tuple(each), name, {}, "") for name, each in given.items()}
        if ours:
            found.append(rows.Row(line, ours, {"data": "shapes"}, (3.0 + place, math.nan)))
    return found


def test_every_table_and_figure_is_among_the_results(reproduce: ModuleType) -> None:
    """With a page or the reason why there is none; pages have narrow tables."""
    results = TOOLS.parent / "docs" / "results"
    rows = [row for table in tables_of((results / "README.md").read_text()) for row in table]
    shown = {row["in the paper"].partition("]")[0].removeprefix("["): row for row in rows}
    expected = [(kind, name) for kind, each in reproduce.KINDS.items() for name in each.contents]
    assert list(shown) == [reproduce.artefact(*each).name for each in expected]
    pages = {path.name for path in (results / "reproduction").glob("*.md")}
    for name, row in shown.items():
        page = row["in the paper"].partition("(reproduction/")[2].removesuffix(")")
        assert page in pages if page else row["here"].startswith("Not run"), name
        pages.discard(page)
    assert not pages, "pages without a row"
    for path in (results / "reproduction").glob("*.md"):
        text = path.read_text()
        assert all(len(row) <= 7 for table in tables_of(text) for row in table), path


def test_lines_that_the_paper_quotes_say_so(reproduce: ModuleType) -> None:
    """A footnote of Table 2 marks two lines as quoted from Miyato et al."""
    conditions = importlib.import_module("reproducing.pages.conditions")
    table = reproduce.KINDS["table"].contents["2"]
    (shown,) = tables_of(conditions.conditions_markdown(table, rows_of(table, IS=[(1.0,)] * 8)))
    (iterations,) = (row["the paper's"] for row in shown if row["conditions"] == "iterations")
    quoted = "not stated there; quoted from Miyato et al. 2018"
    assert iterations == f"not stated<br>Orthonormal (unconditional), SN-GAN (unconditional): {quoted}"


def test_every_claim_is_about_models_and_a_column_of_its_page(reproduce: ModuleType) -> None:
    for content in (*reproduce.KINDS["table"].contents.values(), *reproduce.KINDS["figure"].contents.values()):
        panels = {title: {line.model.label for line in lines} for title, lines in content.sections.items()}
        for claim in content.claims:
            assert any({claim.smaller, claim.larger} <= labels for labels in panels.values()), claim
            assert set(claim.panels) <= set(panels), claim
            assert claim.column in content.columns, claim


@pytest.mark.parametrize("infeasible", ["skip", "floor"])
def test_the_sweep_of_figure_5_is_monotone_with_floor_only(reproduce: ModuleType, infeasible: str) -> None:
    """Stable rank of the RGB shortcut at the start, by c; the note beside the figure has the numbers."""
    ranks = []
    for percent in (90, 70, 50, 30, 10):
        config = load_config("cifar10_sn", [f"discriminator.infeasible={infeasible}"], [f"srn{percent}"])
        shortcut = build_discriminator(config, 0).blocks[0].shortcut
        refresh_(shortcut)
        ranks.append(spectra(shortcut)[0].normalized_stable_rank)
    assert (ranks == sorted(ranks, reverse=True)) == (infeasible == "floor")
    note = reproduce.KINDS["figure"].contents["5"].note
    assert ", ".join(f"{rank:.1f}" for rank in ranks) in note
    assert note in (TOOLS.parent / "docs/results/reproduction/figure-5-cpu.md").read_text(encoding="utf-8")


def test_an_order_is_checked_in_each_section_on_its_own_models(reproduce: ModuleType) -> None:
    """Conditional and unconditional models have equal labels but different runs."""
    pages, content = (importlib.import_module(f"reproducing.{name}") for name in ("pages.page", "paper.content"))
    models = {
        "unconditional": (content.GanModel("SN-GAN", "a"), content.GanModel("WGAN-GP", "a")),
        "conditional": (content.GanModel("SN-GAN", "b"), content.GanModel("WGAN-GP", "b")),
    }
    claims = (content.Claim("less", "IS", "SN-GAN", "WGAN-GP"), content.Claim("more", "IS", "Ortho-GAN", "WGAN-GP"))
    figure = content.PaperContent("A figure", ("IS",), content.in_panels(models), {}, claims=claims, drawn="bars")
    rows = rows_of(figure, IS=[(1.0, 1.2), (2.0, 2.2), (3.0, 3.2), (3.1, 2.9)])
    found = pages.page("Figure 1", figure, rows, [])
    undecided = "1 undecided within the spread over seeds (0 in the paper's direction)"
    assert found.summary == f"2 comparisons in the paper: 1 as in the paper, {undecided}."
    *_, orders = tables_of(found.markdown)
    assert [list(row.values()) for row in orders] == [
        ["less (unconditional)", "SN-GAN < WGAN-GP", "", "", ""],
        ["less (conditional)", "", "", "", "SN-GAN < WGAN-GP"],
    ]


def test_a_page_has_values_side_by_side_and_names_what_was_not_run(reproduce: ModuleType) -> None:
    pages = importlib.import_module("reproducing.pages.page")
    table = reproduce.KINDS["table"].contents["2"]
    values = [None, (1.0, 2.0), (1.0,), (4.0,), *[None] * 4]
    text = pages.page("Table 2", table, rows_of(table, IS=values, FID=values), []).markdown
    conditions, numbers, orders = tables_of(text)
    assert conditions[0] == {"conditions": "data", "the paper's": "CIFAR-10", "ours": "shapes"}
    assert conditions[-1]["ours"] == "training 4.0 to 6.0 min"
    assert list(numbers[0]) == ["model", "IS ↑, paper", "IS ↑, ours", "FID ↓, paper", "FID ↓, ours"]
    assert list(numbers[1].values()) == ["WGAN-GP", "7.86 ± .07", "1.5 ± 0.71", "21.7", "1.5 ± 0.71"]
    assert "Not run: conditional, projection discriminator" not in text
    assert "Not run: Orthonormal (unconditional), SRN-50-GAN (unconditional), conditional, projection" in text
    alone = pages.page("Table 2", table, rows_of(table, IS=[(1.0,), *[None] * 7]), [])
    assert alone.summary == "1 model shown; no order to compare."
    assert [row["the paper's order"] for row in orders] == ["IS (unconditional)", "FID (unconditional)"]
    assert "one seed decides nothing" in text
    assert orders[0]["undecided, as in the paper"] == "WGAN-GP < SRN-70-GAN<br>SN-GAN < SRN-70-GAN"


@pytest.mark.parametrize(
    ("overrides", "title"),
    [((), "CIFAR-10 (JPEG)"), (("data.root=other.zip",), "other.zip"), (("data.root=x", "data.title=Mine"), "Mine")],
)
def test_other_data_do_not_keep_the_title(reproduce: ModuleType, overrides: tuple[str, ...], title: str) -> None:
    model = reproduce.KINDS["table"].contents["2"].lines[2].model
    runs = importlib.import_module("reproducing.runs")
    run = runs.ModelRun.of(model, 0, reproduce.SCALES["cpu"], overrides, Path("runs"))
    assert run.config.data.shown == title


def test_tables_and_figures_share_their_runs(reproduce: ModuleType, tmp_path: Path) -> None:
    """Table 2 trains eight models; Figure 5 needs five of them and four more; Figure 20 needs no more."""

    def runs(*wanted: tuple[str, str]) -> int:
        artefacts = [reproduce.artefact(*each) for each in wanted]
        return len(reproduce.Plan(artefacts, [0, 1], reproduce.SCALES["cpu"], (), tmp_path).groups)

    table, figure, samples = ("table", "2"), ("figure", "5"), ("figure", "20")
    assert runs(table) == 16
    assert runs(figure) == 18
    assert runs(table, figure, samples) == 16 + 8


def test_settings_that_are_equal_are_one_run_under_any_name(reproduce: ModuleType, tmp_path: Path) -> None:
    """CIFAR-100's configurations on CIFAR-10's images equal runs of Table 2."""
    other = load_config("cifar10_sn", variants=["jpeg"]).data
    data = (f"data.name={other.name}", f"data.root={other.root}", "eval.num_intra=500")
    plan = reproduce.Plan(
        [reproduce.artefact("table", number) for number in ("2", "3")], [0], reproduce.SCALES["cpu"], data, tmp_path
    )
    assert len(plan.groups) == 8
    (theirs,) = plan.runs_of(reproduce.KINDS["table"].contents["3"].lines[0].model)
    (ours,) = plan.runs_of(reproduce.KINDS["table"].contents["2"].lines[2].model)
    assert (theirs.config.name, ours.config.name) == ("cifar100_sn-compact", "cifar10_sn_miyato-jpeg-compact")
    ours.folder.mkdir()
    assert theirs.folder == ours.folder


@pytest.mark.slow
def test_a_table_and_figures_are_made_once(
    call: Callable[..., Result], processes: InProcess, reproduce: ModuleType, tmp_path: Path
) -> None:
    first = call("--table=4", "--figure=13,17,20")
    assert first.exit_code == 1, "CelebA's two configurations want images of 64x64"
    assert "4 runs not trained or measured: data.root: " in first.stderr
    out = tmp_path / "out"
    text = (out / "table-4-cpu.md").read_text()
    conditions, rows = tables_of(text)[:2]
    shown = {row["conditions"]: row for row in conditions}
    assert shown["data"] == {"conditions": "data", "the paper's": "as the section says", "ours": "shapes"}
    assert shown["extractor"]["ours"] == "1 critic of 2 updates"
    assert shown["iterations"]["ours"] == "4"
    assert shown["seeds"]["ours"] == "2"
    assert shown["images"]["ours"] == "ND of 20 generated, 300 real"
    assert "compact 4 channels, batch 2, Adam 0.0005 and 0.001, 0, 0.99, bf16" in shown["networks"]["ours"]
    document = json.loads((out / "table-4-cpu.json").read_text())
    found = document["models"][0]["ours"]["ND"]
    assert (rows[1]["model"], rows[1]["ND ↑, paper"]) == ("SN-GAN", "10.69")
    assert rows[1]["ND ↑, ours"].startswith(f"{sum(found['values']) / 2:.4g} ± ")
    assert document["protocols"][found["protocol"]]["steps"] == 2
    assert "Not run: CelebA." in text
    assert "data.root" not in text
    for name in ("figure-13a-cpu.png", "figure-13b-cpu.png", "figure-17-cpu.png", "figure-20d-cpu.png"):
        assert (out / name).stat().st_size > 1000
    losses = (out / "figure-17-cpu.md").read_text()
    for panel in ("unconditional", "conditional"):
        assert f"| SRN-70-GAN's loss is steadier than SN-GAN's ({panel}) |" in losses
    noted = json.loads(next(out.glob("runs/cifar10_sn-jpeg-compact-seed0-*/reproduce.json")).read_text())
    assert noted["training"] == [1.5]

    before = len(processes.commands)
    again = call("--table=4", "--figure=13,17,20")
    assert {run.folder.name.partition("-seed")[0] for run in processes.commands[before:]} <= {
        *("celeba_sn-small64", "celeba_sn-small64-srn70")
    }, "only what could not be done is tried again"
    assert again.stdout == first.stdout


def test_what_is_interrupted_goes_on(
    call: Callable[..., Result],
    processes: InProcess,
    tmp_path: Path,
    other_shapes: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And results of other images are not taken for those of the present ones."""
    processes.statuses = [0, 143, -1]
    assert call("--figure=17").exit_code == 130
    assert len(processes.commands) == 12
    assert not list((tmp_path / "out").glob("figure*"))
    done(call("--figure=17"))
    again = processes.commands[12:]
    assert "](figure-17-cpu.png)" in (tmp_path / "out" / "figure-17-cpu.md").read_text()
    assert all("--resume" in run.arguments for run in again)
    shutil.rmtree(next((tmp_path / "out" / "runs").glob("cifar10_srn50-jpeg-compact-seed1-*")))
    before = len(processes.commands)
    page = tmp_path / "page.md"
    page.write_text("| Figure 17 |")
    done(call("--figure=17", f"--into={page}"))
    assert page.read_text().startswith("| [Figure 17](out/figure-17-cpu.md) | Loss of the discriminator "), (
        "from the page"
    )
    assert [run.folder.name.rpartition("-")[0] for run in processes.commands[before:]] == [
        "cifar10_srn50-jpeg-compact-seed1"
    ]
    before, written = len(processes.commands), (tmp_path / "out" / "figure-17-cpu.md").read_bytes()
    for split, sentence in (("train", "was trained on other images"), ("test", "has other test images")):
        refused = call("--figure=17", f"--set=data.root={other_shapes(split)}")
        assert refused.exit_code == 1
        assert f"{sentence} than those in '{other_shapes(split)}'" in refused.output
        assert "or choose another --folder" in refused.output
        assert " runs not trained or measured: " in refused.output
    assert (tmp_path / "out" / "figure-17-cpu.md").read_bytes() == written

    def gone(config: Any) -> Any:
        raise DataError("the images are gone")

    monkeypatch.setattr("reproducing.reused.kind_of", gone)
    assert "are not compared with the present images: the images are gone" in done(call("--figure=17")).output
    assert len(processes.commands) == before


def test_a_stopped_evaluation_that_stands_alone_stops_all(
    call: Callable[..., Result], processes: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends with click's status 1, as after an error; no further evaluation may start."""
    monkeypatch.setattr("reproducing.runs.ModelRun.is_trained", True)
    processes.statuses, processes.stopped = [1] * 9, True
    assert call("--figure=13", "--table=4").exit_code == 130
    assert len(processes.commands) == 1


def test_a_process_that_dies_without_a_sentence_is_named(
    call: Callable[..., Result], processes: InProcess, tmp_path: Path
) -> None:
    """A process that was killed for its memory, or ended with a traceback, does not count as an interruption."""
    processes.statuses = [-9, -9, 1, 1]
    result = call("--figure=22")
    assert result.exit_code == 1
    assert "2 runs not trained or measured: gan.train ended with status -9" in result.output
    assert "2 runs not trained or measured: gan.train ended with status 1" in result.output
    assert not (tmp_path / "out" / "figure-22-cpu.md").exists(), "no page of nothing"


def test_what_cannot_be_measured_is_not_trained(
    call: Callable[..., Result], processes: InProcess, tmp_path: Path
) -> None:
    result = call("--table=3", "--set=eval.num_real=100")
    assert result.exit_code == 1
    assert processes.commands == []
    assert "metric is: extractor pixels returns no class probabilities" in result.output


def test_finished_runs_are_shown_without_training(
    call: Callable[..., Result], processes: InProcess, reproduce: ModuleType, tmp_path: Path, small_shapes: Path
) -> None:
    """A run made by hand, in a folder of any name; the others of Figure 20 are left out."""
    overrides = (*TINY, f"data.root={small_shapes}")
    settings = [f"--set={setting}" for setting in overrides]
    by_hand = ["--config=cifar10_sn", "--with=jpeg", "--with=compact", *settings, "--device=cpu"]
    done(CliRunner().invoke(gan_train, [*by_hand, "--run", str(tmp_path / "out" / "runs" / "by_hand")]))
    done(call("--figure=20", "--trained-only"))
    assert processes.commands == []
    text = (tmp_path / "out" / "figure-20-cpu.md").read_text()
    assert "![SN-GAN](figure-20c-cpu.png)" in text
    assert "Not run: SRN-70-GAN, SRN-50-GAN, WGAN-GP." in text


def test_a_dry_run_lists_what_would_run(call: Callable[..., Result], processes: InProcess) -> None:
    result = done(call("--figure=13", "--table=4", "--dry-run"))
    assert processes.commands == []
    lines = [line.split() for line in result.output.splitlines()]
    assert lines[2][0].startswith("cifar10_sn-jpeg-compact-seed0-")
    assert lines[2][1:] == ["to", "do", "nd;", "elhist"], "one run, of Table 4 and of Figure 13"
    assert lines[22] == ["20", "runs,", "20", "to", "train"]
    assert result.output.count("Table 4: The printed numbers cannot come from") == 1, "what is to be known beside it"


def test_equal_conditions_stand_once(reproduce: ModuleType) -> None:
    """Conditions that vary are those of most models first, then the others' with their names."""
    conditions = importlib.import_module("reproducing.pages.conditions")
    table = reproduce.KINDS["table"].contents["4"]
    rows = rows_of(table, ND=[(1.0,)] * 5)
    rows[4] = rows[4]._replace(conditions={"data": "shapes", "seeds": "3"})
    (shown,) = tables_of(conditions.conditions_markdown(table._replace(protocol={"data": "CIFAR-10"}), rows))
    assert [list(row.values()) for row in shown] == [
        ["data", "CIFAR-10", "shapes"],
        ["networks", "32-layer ResNet, batch not stated, Adam 2e-4, 0, 0.999, c not stated", ""],
        ["seeds", "", "3"],
        ["time per run", "", "training 3.0 to 7.0 min"],
    ]
    rows = [row._replace(conditions={"seeds": "3" if n < 2 else f"{n}"}) for n, row in enumerate(rows)]
    assert conditions._merged(table, rows, [row.conditions["seeds"] for row in rows]) == (
        "3<br>SRN-50-GAN (CIFAR-10): 2<br>SRN-70-GAN (CelebA): 4"
    )


def test_the_table_of_results_shows_what_was_made(reproduce: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n| Table 12 | other |\n| Table 1 | old |\nafter\n")
    each = reproduce.artefact("table", "1")
    for _ in range(2):
        reproduce.put_into(page, each, ("[Table 1](table-1.md)", "new"))
        assert page.read_text() == "before\n| Table 12 | other |\n| [Table 1](table-1.md) | new |\nafter\n"
    with pytest.raises(UserError, match=r"no row that begins with \| Table 2 \|"):
        reproduce.put_into(page, reproduce.artefact("table", "2"), None)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["--table or --figure", "1, 2, 3, 4, 5, 6, 7"]),
        (["--table=8"], ["got '8'", "1, 2, 3, 4, 5, 6, 7"]),
        (["--figure=12-99"], ["got '23'"]),
        (["--figure=12-13-14"], ["got '12-13-14'"]),
        (["--figure=-14"], ["got '-14'"]),
        (["--table=2", "--figure=22-18"], ["got '22-18'"]),
        (["--figure=5", "--seeds=0,x"], ["0,x", "whole numbers"]),
        (["--table=2", "--variant=tiny"], ["--variant", "'tiny'", "expected one of cifar10, compact", "small"]),
        (["--table=2", "--variant=srn30"], ["--variant", "'srn30'", "expected one of cifar10, compact"]),
        (["--table=2", "--set=train.step=3"], ["train.step", "unknown setting"]),
    ],
)
def test_what_is_wrong_is_one_sentence(
    reproduce: ModuleType, processes: InProcess, arguments: list[str], parts: list[str], tmp_path: Path
) -> None:
    processes.statuses = [1] * 99  # prevents training, however the options are read
    result = CliRunner().invoke(reproduce.main, [*arguments, "--folder", str(tmp_path), "--scale=cpu"])
    assert result.exit_code == 2
    assert all(part in result.output for part in parts), result.output


def test_a_page_without_the_row_is_refused_before_anything_is_trained(
    call: Callable[..., Result], processes: InProcess, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    for text, part in ((None, "No such file"), ("| Table 3 |", "no row that begins with | Table 2 |")):
        if text:
            page.write_text(text)
        result = call("--table=2", f"--into={page}")
        assert result.exit_code == 2
        assert part in result.output
        assert processes.commands == []


def test_numbers_of_figures_are_read_as_people_write_them(reproduce: ModuleType) -> None:
    assert reproduce.read_numbers("18-20,5,17,5", reproduce.KINDS["figure"].contents) == ["18", "19", "20", "5", "17"]


def test_means_and_verdicts(reproduce: ModuleType) -> None:
    results = importlib.import_module("reproducing.results")
    assert str(results.Spread.of([1.0, 3.0])) == "2 ± 1.4"
    assert str(results.Spread.of([1.0])) == "1"
    assert str(results.Spread.of([])) == "–"
    assert math.isclose(results.Spread.of([1.0, 3.0]).std, math.sqrt(2))

    def verdict(smaller: Sequence[float], larger: Sequence[float]) -> str:
        return str(results.verdict(results.Spread.of(smaller), results.Spread.of(larger)))

    assert verdict([1.0, 1.1], [2.0, 2.1]) == "as in the paper"
    assert verdict([2.0, 2.1], [1.0, 1.1]) == "reversed"
    assert verdict([1.0, 2.0], [1.5, 2.6]) == "undecided, as in the paper"
    assert verdict([1.5, 2.6], [1.0, 2.0]) == "undecided, reversed"
    assert verdict([1.0], [2.0]) == "undecided, as in the paper", "one seed has no spread to go by"


def test_seeds_of_different_protocols_have_no_mean(reproduce: ModuleType) -> None:
    results = importlib.import_module("reproducing.results")

    def measured(steps: int) -> SimpleNamespace:
        entry = {"hash": f"{steps}" * 64, "fields": {"steps": steps}}
        return SimpleNamespace(find=lambda pattern: ("nd", 1.0, entry))

    with pytest.raises(EvaluationError, match=r"nd: seeds .* steps \(1, 2\)"):
        results.over_seeds([measured(1), measured(2)], "nd")


def test_a_seed_without_a_value_has_no_part_in_a_mean(reproduce: ModuleType) -> None:
    """For example a complexity without correctly classified images, which is NaN in the report."""
    results = importlib.import_module("reproducing.results")
    entry = {"hash": "0" * 64, "fields": {}}

    def over_seeds(*values: float) -> object:
        return results.over_seeds(
            [SimpleNamespace(find=lambda _, value=value: ("k", value, entry)) for value in values], "k"
        )

    assert over_seeds(1.0, math.nan, 3.0).values == (1.0, 3.0)
    assert over_seeds(math.nan) is None


def test_a_loss_around_its_line(reproduce: ModuleType, tmp_path: Path) -> None:
    """A line has steadiness 0 at any slope; alternating deviations of ±1 have 1."""
    measured = importlib.import_module("reproducing.measured")

    def steadiness(loss: Callable[[int], float]) -> float:
        lines = [json.dumps({"step": step, "d_loss": loss(step)}) for step in range(400)]
        (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
        return float(measured.steadiness(measured.MeasuredRun(tmp_path, [])))

    assert steadiness(lambda step: 3 - 0.5 * step) == pytest.approx(0, abs=1e-9)
    assert steadiness(lambda step: 0.1 * step + (-1) ** step) == pytest.approx(1, rel=1e-3)
    (tmp_path / "metrics.jsonl").unlink()
    assert math.isnan(measured.steadiness(measured.MeasuredRun(tmp_path, [])))
