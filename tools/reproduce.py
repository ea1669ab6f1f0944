"""Trains and evaluates the models of tables and figures in the SRN paper, and writes our values beside the paper's.

GANs: tables 2 to 4, figures 5 and 12 to 22. Classifiers: tables 1 and 5 to 7, figures 1 to 4 and 6 to 11.

python tools/reproduce.py --table 2 --scale cpu --seeds 0,1
python tools/reproduce.py --table 4 --figure 5 --figure 17 --scale gpu-hour --seeds 0,1,2
python tools/reproduce.py --figure 2,3 --scale cpu --seeds 0,1 --architecture resnet
python tools/reproduce.py --all --scale paper --dry-run
python tools/reproduce.py --table 3 --scale cpu --set data.name=folder --set data.root=data/cifar10-jpeg

Scales:
    paper: the paper's settings.
    gpu-hour: bf16; GANs for 10,000 iterations, classifiers for a tenth of the epochs. Meant for a table in about an
        hour on a large GPU, not measured yet.
    cpu: minutes a run; narrow GANs for 600 iterations, shallow classifiers with 2,500 training images for 20 epochs,
        without crops and flips for random labels.

If the published data are not available, --variant jpeg selects the configurations of a local copy, and --set changes a
setting of all runs; the tables name the data that were used. Changes that belong to a model of the paper, such as twice
the epochs for random labels, are applied after --set.

Runs and reports are identified by their settings, and interrupted runs resume, so nothing is computed twice.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import click
import torch
from reproducing.jobs import Jobs
from reproducing.pages.figures import figure_markdown
from reproducing.pages.tables import table_document, table_markdown
from reproducing.paper.classifiers import ARCHITECTURES
from reproducing.paper.content import BarFigure, Model, PaperTable
from reproducing.plan import FIGURES, TABLES, Artefact, Metrics, Plan, artefact
from reproducing.results import Seeds
from reproducing.scales import SCALES

from evaluation.errors import EvaluationError
from gan.command import Command
from gan.command.options import read_seeds
from gan.errors import ConfigError, UserError
from gan.runtime.device import choose_device
from gan.runtime.files import write_atomically


def write(each: Artefact, plan: Plan, errors: Mapping[str, str], folder: Path, scale: str) -> str:
    """Writes one table or figure; returns its Markdown."""
    seeds = {model: _seeds(plan, model, groups, errors) for model, groups in each.needs}
    content = each.content
    title = f"### {each.name.replace('-', ' ').capitalize()}, scale {scale}: {content.title}"
    if isinstance(content, PaperTable | BarFigure):
        lines = [(line, seeds[line.model]) for line in content.lines]
        document = table_document(content.columns, lines)
        text = json.dumps(document, indent=1, ensure_ascii=False, default=str)
        write_atomically(folder / f"{each.name}-{scale}.json", (text + "\n").encode())
    if isinstance(content, PaperTable):
        body = table_markdown(content, lines)
    else:
        panels = {title: {model: seeds[model] for model in models} for title, models in content.panels.items()}
        body = figure_markdown(content, panels, lambda letter: folder / f"{each.name}{letter}-{scale}.png")
    markdown = f"{title}\n\n{body}\n"
    write_atomically(folder / f"{each.name}-{scale}.md", markdown.encode())
    return markdown


def _seeds(plan: Plan, model: Model, groups: Iterable[Metrics], errors: Mapping[str, str]) -> Seeds:
    """Trained and evaluated runs of a model, and the reason why others are missing."""
    runs, groups = plan.runs_of(model), list(groups)
    if plan.is_left_out(model):
        return Seeds(runs[0].config, [], "left out by --architecture")
    measured = [found for found in (run.measured(groups) for run in runs) if found is not None]
    reason = next((errors[run.identity] for run in runs if run.identity in errors), "interrupted")
    return Seeds(runs[0].config, measured, reason)


def put_into(file: Path, name: str, markdown: str | None) -> None:
    """Replaces the text between two marks in a page by `markdown`; if it is None, only checks that the marks exist.

    Raises:
        UserError: the page lacks the marks.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    text = file.read_text(encoding="utf-8")
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise UserError(f"--into {file}: found no lines {begin.strip()} and {end}; write both into the page")
    if markdown is not None:
        write_atomically(file, f"{before}{begin}{markdown}{end}{after}".encode())


def _numbers(kind: str) -> Callable[[click.Context, click.Parameter, tuple[str, ...]], list[str]]:
    """Callback of an option that reads numbers of tables or figures."""
    known = TABLES if kind == "table" else FIGURES
    return lambda context, parameter, values: read_numbers(",".join(values), known)


def read_numbers(text: str, known: Iterable[str]) -> list[str]:
    """Numbers such as "5", "13,14" and "18-22", each once.

    Raises:
        click.BadParameter: a number is unknown.
    """
    found: list[str] = []
    for part in (part.strip() for part in text.split(",") if text):
        first, _, last = part.partition("-")
        is_range = first.isdecimal() and last.isdecimal() and int(first) <= int(last)
        found += [str(n) for n in range(int(first), int(last) + 1)] if is_range else [part]
    for number in found:
        if number not in known:
            raise click.BadParameter(f"got {number!r}, expected some of {', '.join(known)}")
    return list(dict.fromkeys(found))


EXAMPLES = """
Examples:

  python tools/reproduce.py --table 2 --scale cpu --seeds 0,1            GANs: Inception score and FID
  python tools/reproduce.py --figure 2,3 --scale cpu --seeds 0,1 --architecture resnet    classifiers: bars
  python tools/reproduce.py --table 1,5-7 --scale gpu-hour               classifiers: errors, complexities
  python tools/reproduce.py --all --scale paper --dry-run                list all runs with their state
"""


@click.command(cls=Command, context_settings={"show_default": True}, epilog=EXAMPLES)
@click.option("--table", "tables", multiple=True, callback=_numbers("table"), help=f"Tables: {', '.join(TABLES)}.")
@click.option("--figure", "figures", multiple=True, callback=_numbers("figure"), help=f"Figures: {', '.join(FIGURES)}.")
@click.option("--all", "everything", is_flag=True, help="Every table and figure.")
@click.option("--scale", type=click.Choice(list(SCALES)), default="paper", help="Size of the experiments.")
@click.option("--seeds", callback=read_seeds, default="0,1,2", help="Seeds; each model runs once per seed.")
@click.option(
    "--architecture",
    "architectures",
    type=click.Choice(list(ARCHITECTURES.values())),
    multiple=True,
    help="Only classifiers of this architecture; may be repeated. [default: all]",
)
@click.option("--variant", help="Variant of the configurations, such as jpeg. [default: by scale]")
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Change a setting of all runs.")
@click.option("--folder", type=click.Path(path_type=Path), default="reproduction", help="Folder of all results.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of tables and figures. [default: --folder]")
@click.option("--into", type=click.Path(path_type=Path, dir_okay=False), help="Page to update between its marks.")
@click.option("--at-once", type=click.IntRange(1), help="Parallel runs. [default: one per core, four per GPU]")
@click.option("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
@click.option("--dry-run", is_flag=True, help="Only list all runs and their missing parts.")
def main(
    *,
    tables: list[str],
    figures: list[str],
    everything: bool,
    scale: str,
    seeds: tuple[int, ...],
    architectures: tuple[str, ...],
    variant: str | None,
    overrides: tuple[str, ...],
    folder: Path,
    out: Path | None,
    into: Path | None,
    at_once: int | None,
    device: str,
    dry_run: bool,
) -> None:
    """Train and evaluate the models of tables and figures in the SRN paper; write our values beside the paper's.

    GANs: tables 2 to 4, figures 5 and 12 to 22. Classifiers: tables 1 and 5 to 7, figures 1 to 4 and 6 to 11.
    """
    wanted = [("table", number) for number in (TABLES if everything else tables)]
    wanted += [("figure", number) for number in (FIGURES if everything else figures)]
    if not wanted:
        raise ConfigError(f"--table or --figure: name one; tables {', '.join(TABLES)}, figures {', '.join(FIGURES)}")
    artefacts = [artefact(kind, number) for kind, number in wanted]
    if into is not None:
        for each in artefacts:
            put_into(into, f"{each.name}-{scale}", None)  # fails now, not after hours of training
    chosen = SCALES[scale] if variant is None else SCALES[scale]._replace(variant=variant)
    plan = Plan(artefacts, seeds, chosen, overrides, folder / "runs", architectures)
    if dry_run:
        click.echo(plan.describe())
        return
    errors = execute(plan, device, at_once)
    show(plan, artefacts, errors, out or folder, scale, into)
    if errors:
        raise SystemExit(1)


def execute(plan: Plan, device: str, at_once: int | None) -> Mapping[str, str]:
    """Trains and evaluates everything that a plan lacks; returns errors by run identity.

    Raises:
        SystemExit: interrupted, status 130.
    """
    place = choose_device(device)
    gpus = torch.cuda.device_count() if place.type == "cuda" else 0
    devices = [f"cuda:{i}" for i in range(gpus)] if gpus and device == "auto" else [str(place)]
    jobs = Jobs(at_once or (4 * len(devices) if gpus else os.cpu_count() or 1), devices)
    usable = jobs.usable(plan.groups)
    jobs.train(usable)
    jobs.measure(usable)
    if jobs.stopped:
        click.echo("interrupted; the same command resumes", err=True)
        raise SystemExit(130)
    return jobs.errors


def show(
    plan: Plan, artefacts: Iterable[Artefact], errors: Mapping[str, str], folder: Path, scale: str, page: Path | None
) -> None:
    """Writes and prints tables and figures, and inserts them into a page; file paths are then relative to the page."""
    folder.mkdir(parents=True, exist_ok=True)
    for each in artefacts:
        try:
            markdown = write(each, plan, errors, folder, scale)
        except EvaluationError as error:
            raise UserError(str(error)) from None
        click.echo(markdown)
        if page is not None:
            pictures = Path(os.path.relpath(folder, page.parent)).as_posix()
            put_into(page, f"{each.name}-{scale}", markdown.replace("](", f"]({pictures}/"))


if __name__ == "__main__":
    main()
