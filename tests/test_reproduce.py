"""Tests of tools/reproduce.py on GANs: planned runs, no repeated work, the paper's values beside ours."""

import importlib
import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from click.testing import CliRunner, Result
from commands import done

from evaluation.errors import EvaluationError
from gan.config import available_configs, load_config
from gan.errors import UserError
from gan.evaluate import main as gan_eval
from gan.evaluate_classifier import main as gan_eval_classifier
from gan.launch.several import Ended, Planned
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
            assert run.config.train.adam_beta2 == 0.999
            assert (run.config.train.steps == 0) == model.untrained
            assert run.config.conditional == ("_cond_" in model.config)


def test_printed_numbers_belong_to_columns(reproduce: ModuleType) -> None:
    tables = importlib.import_module("reproducing.pages.tables")
    for table in reproduce.TABLES.values():
        for line in table.lines:
            assert set(line.printed) <= set(table.columns)
            assert all(tables._number(text) > 0 for text in line.printed.values())
            ours = line.model.conditions(line.model.load(line.model.config, line.model.variants, ()), [], [])
            assert {*table.protocol, *line.protocol} <= set(ours)


def test_lines_that_the_paper_quotes_say_so(reproduce: ModuleType) -> None:
    """A footnote of Table 2 marks two lines as quoted from Miyato et al."""
    tables = importlib.import_module("reproducing.pages.tables")
    table = reproduce.TABLES["2"]
    lines = [(line, tables.Seeds(None, [], "not now")) for line in table.lines]
    rows = [row for row in tables.table_markdown(table, lines).splitlines() if "| paper |" in row]
    assert [row.split("|")[1].strip() for row in rows if "Miyato" in row] == ["Ortho-GAN", "SN-GAN"]
    assert "Miyato" in rows[2], "the unconditional SN-GAN"


def test_every_claim_has_a_panel_with_both_its_models(reproduce: ModuleType) -> None:
    for figure in reproduce.FIGURES.values():
        panels = [{model.label for model in models} for models in figure.panels.values()]
        for claim in getattr(figure, "claims", ()):
            assert any({claim.smaller, claim.larger} <= labels for labels in panels), claim


def test_a_claim_is_checked_in_each_panel_on_its_own_models(reproduce: ModuleType) -> None:
    """Conditional and unconditional models have equal labels but different runs."""
    claims, content = (importlib.import_module(f"reproducing.{name}") for name in ("pages.claims", "paper.content"))
    claimed = (
        content.Claim("less", lambda run: run.value, "SN-GAN", "WGAN-GP"),
        content.Claim("more", lambda run: run.value, "Ortho-GAN", "WGAN-GP"),
    )

    def seeds(*models: tuple[str, float]) -> dict[object, SimpleNamespace]:
        return {
            content.GanModel(label, "c"): SimpleNamespace(runs=[SimpleNamespace(value=value)])
            for label, value in models
        }

    panels = {
        "unconditional": seeds(("SN-GAN", 1.0), ("WGAN-GP", 2.0)),
        "conditional": seeds(("SN-GAN", 3.0), ("WGAN-GP", 2.0), ("Ortho-GAN", 4.0)),
    }
    table, tally = claims.claims_markdown(claimed, panels)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert rows[0][:2] == ["panel", "the paper says"]
    assert tally == "- less: 1 of 2 as in the paper, 0 beyond the spread."
    assert [(row[0], row[1], row[3], row[-1].partition(",")[0]) for row in rows[2:]] == [
        ("unconditional", "less", "1", "as in the paper"),
        ("conditional", "less", "3", "the other way round"),
        ("conditional", "more", "4", "the other way round"),
    ]


@pytest.mark.parametrize(
    ("overrides", "title"),
    [
        ((), "CIFAR-10 (JPEG)"),
        (("data.name=shapes",), "shapes"),
        (("data.root=other.zip",), "folder other.zip"),
        (("data.root=other.zip", "data.title=Mine"), "Mine"),
    ],
)
def test_other_data_do_not_keep_the_title(reproduce: ModuleType, overrides: tuple[str, ...], title: str) -> None:
    model = reproduce.TABLES["2"].lines[2].model
    runs, conditions = (importlib.import_module(f"reproducing.{name}") for name in ("runs", "pages.conditions"))
    run = runs.ModelRun.of(model, 0, reproduce.SCALES["cpu"], overrides, Path("runs"))
    assert conditions.describe_data(run.config) == title


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
    (theirs,) = plan.runs_of(reproduce.TABLES["3"].lines[0].model)
    (ours,) = plan.runs_of(reproduce.TABLES["2"].lines[2].model)
    assert (theirs.config.name, ours.config.name) == ("cifar100_sn-small", "cifar10_sn-jpeg-small")
    ours.folder.mkdir()
    assert theirs.folder == ours.folder


@pytest.mark.slow
def test_a_table_and_figures_are_made_once(
    call: Callable[..., Result], processes: InProcess, reproduce: ModuleType, tmp_path: Path
) -> None:
    first = call("--table=4", "--figure=13,17,20")
    assert first.exit_code == 1, "CelebA's two configurations want images of 64x64"
    out = tmp_path / "out"
    conditions, rows = tables_of((out / "table-4-cpu.md").read_text())
    shown = {row["conditions"]: row for row in conditions}
    assert shown["data"] == {"conditions": "data", "the paper's": "as the section says", "ours": "shapes"}
    assert shown["extractor"]["ours"] == "1 critic of 2 updates"
    assert shown["iterations"]["ours"] == "4"
    assert shown["seeds"]["ours"] == "2"
    assert shown["images"]["ours"] == "ND of 20 generated, 300 real"
    assert "batch 2, Adam 0.0002, 0, 0.999, fp32" in shown["networks"]["ours"]
    document = json.loads((out / "table-4-cpu.json").read_text())
    values = document[0]["ours"]["ND"]["values"]
    paper, ours = rows[1:3]
    assert (paper["model"], paper["ND ↑"]) == ("SN-GAN", "10.69")
    assert ours["ND ↑"].startswith(f"{sum(values) / 2:.4g} ± ")
    assert shown["protocol"]["ours"] == f"`{document[0]['ours']['ND']['protocol']}`"
    assert rows[7][""].startswith("not run: data.root: "), "the reason, in the table itself"
    for name in ("figure-13a-cpu.png", "figure-13b-cpu.png", "figure-17-cpu.png", "figure-20d-cpu.png"):
        assert (out / name).stat().st_size > 1000
    losses = (out / "figure-17-cpu.md").read_text()
    for panel in ("unconditional", "conditional"):
        assert f"| {panel} | SRN-70-GAN's loss is steadier than SN-GAN's | SRN-70-GAN |" in losses
    noted = json.loads(next(out.glob("runs/cifar10_sn-jpeg-small-seed0-*/reproduce.json")).read_text())
    assert noted["training"] == [1.5]

    before = len(processes.commands)
    again = call("--table=4", "--figure=13,17,20")
    assert {run.folder.name.partition("-seed")[0] for run in processes.commands[before:]} <= {
        *("celeba_sn-small64", "celeba_srn70-small64")
    }, "only what could not be done is tried again"
    assert again.output.partition("### ")[2] == first.output.partition("### ")[2]


def test_what_is_interrupted_goes_on(call: Callable[..., Result], processes: InProcess, tmp_path: Path) -> None:
    processes.statuses = [0, 143, -1]
    assert call("--figure=17").exit_code == 130
    assert len(processes.commands) == 12
    assert not list((tmp_path / "out").glob("figure*"))
    done(call("--figure=17"))
    again = processes.commands[12:]
    assert "](figure-17-cpu.png)" in (tmp_path / "out" / "figure-17-cpu.md").read_text()
    assert all("--resume" in run.arguments for run in again)
    shutil.rmtree(next((tmp_path / "out" / "runs").glob("cifar10_srn50-jpeg-small-seed1-*")))
    before = len(processes.commands)
    page = tmp_path / "page.md"
    page.write_text("<!-- figure-17-cpu -->\n<!-- end of figure-17-cpu -->")
    done(call("--figure=17", f"--into={page}"))
    assert "](out/figure-17-cpu.png)" in page.read_text(), "where the picture is, as seen from the page"
    assert [run.folder.name.rpartition("-")[0] for run in processes.commands[before:]] == [
        "cifar10_srn50-jpeg-small-seed1"
    ]


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
    assert call("--figure=22").exit_code == 1
    text = (tmp_path / "out" / "figure-22-cpu.md").read_text()
    assert "SRN-70-GAN (cifar100_sn-small-srn70): not run: gan.train ended with status -9" in text
    assert "SN-GAN (cifar100_sn-small): not run: gan.train ended with status 1" in text


def test_what_cannot_be_measured_is_not_trained(
    call: Callable[..., Result], processes: InProcess, tmp_path: Path
) -> None:
    assert call("--table=3", "--set=eval.num_real=100").exit_code == 1
    assert processes.commands == []
    assert (
        "not run: metric is: extractor pixels returns no class probabilities"
        in (tmp_path / "out" / "table-3-cpu.md").read_text()
    )


def test_a_dry_run_lists_what_would_run(call: Callable[..., Result], processes: InProcess) -> None:
    result = done(call("--figure=13", "--table=4", "--dry-run"))
    assert processes.commands == []
    lines = [line.split() for line in result.output.splitlines()]
    assert lines[2][0].startswith("cifar10_sn-jpeg-small-seed0-")
    assert lines[2][1:] == ["to", "do", "nd;", "elhist"], "one run, of Table 4 and of Figure 13"
    assert lines[-1] == ["16", "runs,", "16", "to", "train"]


def test_equal_conditions_stand_once(reproduce: ModuleType) -> None:
    """A row shows only conditions that vary between the rows of its side."""
    conditions = importlib.import_module("reproducing.pages.conditions")
    ours = [{"data": "shapes", "seeds": "2", "device": ""}, {"data": "shapes", "seeds": "3", "device": ""}]
    paper = [{"data": "CIFAR-10"}, {"data": "CIFAR-100"}]
    found = conditions.Conditions({"paper": paper, "ours": ours})
    (rows,) = tables_of(found.markdown())
    assert [list(row.values()) for row in rows] == [["data", "see the rows", "shapes"], ["seeds", "", "see the rows"]]
    assert [found.cell("ours", row) for row in ours] == ["seeds: 2", "seeds: 3"]
    assert [found.cell("paper", row) for row in paper] == ["data: CIFAR-10", "data: CIFAR-100"]


def test_a_page_shows_what_was_made(reproduce: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table-2-cpu -->\nold\n<!-- end of table-2-cpu -->\nafter\n")
    for _ in range(2):
        reproduce.put_into(page, "table-2-cpu", "new\n")
        assert page.read_text() == "before\n<!-- table-2-cpu -->\nnew\n<!-- end of table-2-cpu -->\nafter\n"
    with pytest.raises(UserError, match="no lines <!-- table-3-cpu -->"):
        reproduce.put_into(page, "table-3-cpu", "new\n")


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
        (["--table=2", "--variant=tiny"], ["--variant", "'tiny'", "expected one of bsn", "small"]),
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


def test_a_page_without_marks_is_refused_before_anything_is_trained(
    call: Callable[..., Result], processes: InProcess, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    for text, part in ((None, "No such file"), ("<!-- table-2-cpu -->", "no lines <!-- table-2-cpu -->")):
        if text:
            page.write_text(text)
        result = call("--table=2", f"--into={page}")
        assert result.exit_code == 2
        assert part in result.output
        assert processes.commands == []


def test_numbers_of_figures_are_read_as_people_write_them(reproduce: ModuleType) -> None:
    assert reproduce.read_numbers("18-20,5,17,5", reproduce.FIGURES) == ["18", "19", "20", "5", "17"]


def test_means_and_verdicts(reproduce: ModuleType) -> None:
    results = importlib.import_module("reproducing.results")
    assert str(results.Spread.of([1.0, 3.0])) == "2 ± 1.4"
    assert str(results.Spread.of([1.0])) == "1"
    assert str(results.Spread.of([])) == "–"
    assert math.isclose(results.Spread.of([1.0, 3.0]).std, math.sqrt(2))
    assert results.verdict([1.0, 1.1], [2.0, 2.1]) == "as in the paper"
    assert results.verdict([2.0, 2.1], [1.0, 1.1]) == "the other way round"
    assert results.verdict([1.0, 2.0], [1.5, 2.6]) == "as in the paper, within the spread"
    assert results.verdict([1.0], [2.0]) == "as in the paper, within the spread", "one seed has no spread to go by"
    assert results.verdict([], [2.0]) == "not measured"
    assert results.verdict([1.0, 2.0], [2.0, 1.0]) == "equal"


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
