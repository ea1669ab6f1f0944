"""The tables and figures of the SRN paper's experiments, trained and measured anew, with the paper's beside ours.

GANs: tables 2 to 4, figures 5 and 12 to 22. Classifiers: tables 1 and 5 to 7, figures 1 to 4 and 6 to 11.

python tools/reproduce.py --table 2 --scale cpu --seeds 0,1
python tools/reproduce.py --table 4 --figure 5 --figure 17 --scale gpu-hour --seeds 0,1,2
python tools/reproduce.py --figure 2,3 --scale cpu --seeds 0,1 --architecture resnet
python tools/reproduce.py --all --scale paper --dry-run
python tools/reproduce.py --table 3 --scale cpu --set data.name=folder --set data.root=data/cifar10-jpeg

Scales: paper, the configurations of the paper's setting; gpu-hour, the same with 10,000 iterations of GANs, or a tenth
of classifiers' epochs, in bf16, meant for a table in about an hour of a large GPU (not measured yet); cpu, narrow
networks and 600 iterations, or shallow classifiers, 2,500 training images and 20 epochs, minutes a run. There random
labels are trained on without crops and flips. Where the published data cannot be had, --variant jpeg takes the
configurations of a local copy, and --set changes any setting of all runs; the tables name what was used.
What a model of the paper changes of its recipe, such as twice the epochs for random labels, it changes of what --set
says.

Nothing is done twice: runs and reports are found again by their settings, and what was interrupted goes on.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click
import torch
from reproducing.catalogue import FIGURES, TABLES
from reproducing.content import AnyModel, Bars, Line, Table
from reproducing.estimate import Estimates
from reproducing.figures import figure_markdown
from reproducing.jobs import Jobs
from reproducing.paper_classifiers import ARCHITECTURES
from reproducing.plan import Artefact, Metrics, Plan, artefact, minutes
from reproducing.results import Seeds
from reproducing.scales import SCALES
from reproducing.tables import table_document, table_markdown

from evaluation.errors import EvaluationError
from evaluation.reporting.tables import text_table
from gan.command import Command, choose_device, read_seeds
from gan.errors import ConfigError, UserError
from gan.runtime.files import write_atomically


def write(each: Artefact, plan: Plan, errors: Mapping[str, str], folder: Path, scale: str) -> str:
    """Writes one table or figure; returns its Markdown."""
    seeds = {model: _seeds(plan, model, groups, errors) for model, groups in each.needs}
    content = each.content
    title = f"### {each.name.replace('-', ' ').capitalize()}, scale {scale}: {content.title}"
    if isinstance(content, Table | Bars):
        lines: list[tuple[Line, Seeds]] = [(line, seeds[line.model]) for line in content.lines]
        document: list[dict[str, Any]] = table_document(content.columns, lines)
        text = json.dumps(document, indent=1, ensure_ascii=False, default=str)
        write_atomically(folder / f"{each.name}-{scale}.json", (text + "\n").encode())
    if isinstance(content, Table):
        body = table_markdown(content, lines)
    else:
        panels = {title: {model: seeds[model] for model in models} for title, models in content.panels.items()}
        body = figure_markdown(content, panels, lambda letter: folder / f"{each.name}{letter}-{scale}.png")
    markdown = f"{title}\n\n{body}\n"
    write_atomically(folder / f"{each.name}-{scale}.md", markdown.encode())
    return markdown


def _seeds(plan: Plan, model: AnyModel, groups: Iterable[Metrics], errors: Mapping[str, str]) -> Seeds:
    runs, groups = plan.runs_of(model), list(groups)
    if plan.is_left_out(model):
        return Seeds(runs[0].config, [], "left out by --architecture")
    measured = [found for found in (run.measured(groups) for run in runs) if found is not None]
    reason = next((errors[run.identity] for run in runs if run.identity in errors), "interrupted")
    return Seeds(runs[0].config, measured, reason)


def put_into(file: Path, name: str, markdown: str | None) -> None:
    """Replaces what stands between two marks in a page by a table or figure; None: only looks for the marks.

    Raises:
        UserError: the page has no such marks.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    text = file.read_text(encoding="utf-8")
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise UserError(f"--into {file}: no lines {begin.strip()} and {end} there; write them where it is to stand")
    if markdown is not None:
        write_atomically(file, f"{before}{begin}{markdown}{end}{after}".encode())


def _numbers(kind: str) -> Any:
    """A callback for "5", "13,14" and "18-22"."""
    known = TABLES if kind == "table" else FIGURES

    def read(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> list[str]:
        found: list[str] = []
        for part in (part.strip() for value in values for part in value.split(",")):
            first, _, last = part.partition("-")
            is_range = first.isdecimal() and last.isdecimal() and int(first) <= int(last)
            numbers = [str(n) for n in range(int(first), int(last) + 1)] if is_range else [part]
            for number in numbers:
                if number not in known:
                    raise click.BadParameter(f"got {number!r}, expected some of {', '.join(known)}")
            found += numbers
        return list(dict.fromkeys(found))

    return read


EXAMPLES = """
Examples:

  python tools/reproduce.py --table 2 --scale cpu --seeds 0,1            GANs: Inception score and FID
  python tools/reproduce.py --figure 2,3 --scale cpu --seeds 0,1 --architecture resnet    classifiers: bars
  python tools/reproduce.py --table 1,5-7 --scale gpu-hour               classifiers: errors, complexities
  python tools/reproduce.py --all --scale paper --dry-run                what there would be to do, and how long
"""


@click.command(cls=Command, context_settings={"show_default": True}, epilog=EXAMPLES)
@click.option("--table", "tables", multiple=True, callback=_numbers("table"), help=f"Some of {', '.join(TABLES)}.")
@click.option("--figure", "figures", multiple=True, callback=_numbers("figure"), help=f"Some of {', '.join(FIGURES)}.")
@click.option("--all", "everything", is_flag=True, help="Every table and figure.")
@click.option("--scale", type=click.Choice(list(SCALES)), default="paper", help="How much of the paper's work.")
@click.option("--seeds", callback=read_seeds, default="0,1,2", help="One run for each; mean and spread.")
@click.option(
    "--architecture",
    "architectures",
    type=click.Choice(list(ARCHITECTURES.values())),
    multiple=True,
    help="Of classifiers: only these; may be repeated. [default: all]",
)
@click.option("--variant", help="Of the configurations, such as jpeg. [default: the scale's]")
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Changes a setting of all runs.")
@click.option("--folder", type=click.Path(path_type=Path), default="reproduction", help="Of runs, tables, figures.")
@click.option("--out", type=click.Path(path_type=Path), help="Of tables and figures. [default: --folder]")
@click.option("--into", type=click.Path(path_type=Path, dir_okay=False), help="A page that shows them between marks.")
@click.option("--at-once", type=click.IntRange(1), help="Runs. [default: one per core, or four per GPU]")
@click.option("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
@click.option("--dry-run", is_flag=True, help="Print the plan and an estimate of its time, do nothing.")
def main(
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
    """Train and measure what tables and figures of the SRN paper need, and write them with ours beside the paper's.

    GANs: tables 2 to 4, figures 5 and 12 to 22. Classifiers: tables 1 and 5 to 7, figures 1 to 4 and 6 to 11.
    """
    wanted = [("table", number) for number in (TABLES if everything else tables)]
    wanted += [("figure", number) for number in (FIGURES if everything else figures)]
    if not wanted:
        raise ConfigError(f"--table or --figure: name one; tables {', '.join(TABLES)}, figures {', '.join(FIGURES)}")
    artefacts = [artefact(kind, number) for kind, number in wanted]
    if into is not None:
        for each in artefacts:
            put_into(into, f"{each.name}-{scale}", None)  # now, not after hours of training
    chosen = SCALES[scale] if variant is None else SCALES[scale]._replace(variant=variant)
    plan = Plan(artefacts, seeds, chosen, overrides, folder / "runs", architectures)
    place = choose_device(device)
    gpus = torch.cuda.device_count() if place.type == "cuda" else 0
    devices = [f"cuda:{i}" for i in range(gpus)] if gpus and device == "auto" else [str(place)]
    at_once = at_once or (4 * len(devices) if gpus else os.cpu_count() or 1)
    if dry_run:
        _show(plan, Estimates(plan.groups, place), at_once)
        return
    jobs = Jobs(at_once, devices)
    usable = jobs.usable(plan.groups)
    jobs.train(usable)
    jobs.measure(usable)
    if jobs.stopped:
        click.echo("interrupted; the same command goes on", err=True)
        raise SystemExit(130)
    target = out or folder
    target.mkdir(parents=True, exist_ok=True)
    for each in artefacts:
        try:
            markdown = write(each, plan, jobs.errors, target, scale)
        except EvaluationError as error:
            raise UserError(str(error)) from None
        click.echo(markdown)
        if into is not None:
            place_of_pictures = Path(os.path.relpath(target, into.parent)).as_posix()
            put_into(into, f"{each.name}-{scale}", markdown.replace("](", f"]({place_of_pictures}/"))
    if jobs.errors:
        raise SystemExit(1)


def _show(plan: Plan, estimates: Estimates, at_once: int) -> None:
    click.echo("\n".join(text_table(plan.rows(estimates))))
    click.echo(
        '"over": the time of generated images, or of forward passes, where nothing like it has been measured here'
    )
    training, evaluation = (seconds / at_once for seconds in plan.seconds(estimates))
    work = f"{minutes(training)} of training and {minutes(evaluation)} of evaluation"
    click.echo(f"{len(plan.groups)} runs, {work} if {at_once} at once do not slow each other")


if __name__ == "__main__":
    main()
