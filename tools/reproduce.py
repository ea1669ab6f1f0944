"""Trains and evaluates the models of tables and figures in the SRN paper, and writes our values beside the paper's.

GANs: tables 2 to 4, figures 5 and 12 to 22. Classifiers: tables 1 and 5 to 7, figures 1 to 4 and 6 to 11.

Claims without a table or figure at hand have pages of their own, with a verdict on each: --bssn those of Lin et al.
2021 ("Why Spectral Normalization Stabilizes GANs"), --srn-appendix those of the SRN paper's appendices B.1, B.2 and C,
and its "30 % of the original" stable rank (rank). They are about one set of SNDCGANs.

python tools/reproduce.py --table 2 --scale cpu --seeds 0,1
python tools/reproduce.py --table 4 --figure 5 --figure 17 --scale gpu-hour --seeds 0,1,2
python tools/reproduce.py --figure 2,3 --scale cpu --seeds 0,1 --architecture resnet
python tools/reproduce.py --bssn gradients --srn-appendix B1,B2,C --scale cpu
python tools/reproduce.py --all --scale paper --dry-run
python tools/reproduce.py --table 3 --scale cpu --set data.name=folder --set data.root=data/cifar10-jpeg

GANs are the configurations of configs/ and their variants; only grids of settings and untrained networks change more.
Scales:
    paper: the paper's settings.
    gpu-hour: bf16; GANs for 10,000 iterations (variant gpu_hour), classifiers for a tenth of the epochs. Meant for a
        table in about an hour on a large GPU, not measured yet.
    cpu: compact GANs (variants jpeg and compact; small64 for CelebA) for 20,000 iterations, 20 to 40 minutes a run on
        one core; SNDCGANs (variants jpeg and narrow), two to four minutes a run; shallow classifiers with 2,500
        training images for 20 epochs, minutes a run, without crops and flips for random labels. With --set
        train.steps=5000 --set train.lr_decay_start=2500, compact GANs take minutes, too, and show images.

If the published data are not available, --variant jpeg selects the configurations of a local copy, and --set changes a
setting of all runs; the pages name the data that were used. Changes that belong to a model of the paper, such as twice
the epochs for random labels, are applied after --set.

Runs and reports are identified by their settings, and interrupted runs resume, so nothing is computed twice. Runs made
by hand are found, too, if their settings are the same: put or link their folders into FOLDER/runs. --trained-only makes
the pages from what is there.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import click
import torch
from reproducing.jobs import Jobs
from reproducing.pages.page import Page, page
from reproducing.pages.pictures import pictures
from reproducing.pages.rows import document, rows_of
from reproducing.paper.classifiers import ARCHITECTURES
from reproducing.plan import KINDS, Artefact, Plan, artefact
from reproducing.scales import SCALES

from evaluation.errors import EvaluationError
from gan.command import Command
from gan.command.options import read_seeds
from gan.errors import ConfigError, UserError
from gan.runtime.device import choose_device
from gan.runtime.files import write_atomically


def stem_of(each: Artefact, scale: str, letter: str = "") -> str:
    """Stem of the file names of a table or figure, such as "figure-5a-cpu" for panel "a"."""
    return f"{each.name.lower().replace(' ', '-')}{letter}-{scale}"


def write(each: Artefact, plan: Plan, folder: Path, scale: str) -> Page | None:
    """Writes the page, values and pictures of one table or figure; returns the page, None if nothing was run."""
    rows = rows_of(each.content, {model: plan.seeds_of(model, groups) for model, groups in each.needs})
    if not rows:
        return None
    stem = stem_of(each, scale)
    drawn = pictures(each.content, rows, lambda letter: folder / f"{stem_of(each, scale, letter)}.png")
    found = page(f"{each.name}, scale {scale}: {each.content.title}", each.content, rows, drawn)
    values = f"\nAll seeds' values, with their protocols: [{stem}.json]({stem}.json)\n"
    write_atomically(folder / f"{stem}.md", (found.markdown + values).encode())
    text = json.dumps(document(rows), indent=1, ensure_ascii=False, default=str)
    write_atomically(folder / f"{stem}.json", (text + "\n").encode())
    return found


def put_into(file: Path, each: Artefact, cells: Sequence[str] | None) -> None:
    """Replaces the row of a table or figure in a page's table of results; None only checks that the row exists.

    Raises:
        UserError: the page has no such row.
    """
    lines = file.read_text(encoding="utf-8").splitlines()
    places = [n for n, line in enumerate(lines) if re.match(rf"\| \[?{each.name}\b", line)]
    if not places:
        raise UserError(f"--into {file}: found no row that begins with | {each.name} |; write it into the page's table")
    if cells is not None:
        lines[places[0]] = f"| {' | '.join(cells)} |"
        write_atomically(file, ("\n".join(lines) + "\n").encode())


Numbers = Callable[[click.Context, click.Parameter, tuple[str, ...]], list[str]]


def _numbers(kind: str) -> Numbers:
    """Callback of an option that reads numbers of tables or figures, or words of other artefacts."""
    return lambda context, parameter, values: read_numbers(",".join(values), KINDS[kind].contents)


def wanted_options(command: Callable[..., None]) -> Callable[..., None]:
    """Decorator: adds an option for each kind of artefact, and --all."""
    command = click.option("--all", "everything", is_flag=True, help="All of these.")(command)
    for kind, (_, contents, about) in reversed(list(KINDS.items())):
        option, text = f"--{kind.replace('_', '-')}", f"{about}: {', '.join(contents)}."
        command = click.option(option, kind, multiple=True, callback=_numbers(kind), help=text)(command)
    return command


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
  python tools/reproduce.py --bssn gradients --scale cpu                 gradients with and without normalization
  python tools/reproduce.py --table 2,4 --figure 5 --scale cpu --trained-only    pages of the finished runs
  python tools/reproduce.py --figure 5 --scale cpu --set discriminator.infeasible=floor    bounds of 1.5 or more
  python tools/reproduce.py --all --scale paper --dry-run                list all runs with their state
"""


@click.command(cls=Command, context_settings={"show_default": True}, epilog=EXAMPLES)
@wanted_options
@click.option("--scale", type=click.Choice(list(SCALES)), default="paper", help="Size of the experiments.")
@click.option("--seeds", callback=read_seeds, default="0,1,2", help="Seeds; each model runs once per seed.")
@click.option(
    "--architecture",
    "architectures",
    type=click.Choice(list(ARCHITECTURES.values())),
    multiple=True,
    help="Only classifiers of this architecture; may be repeated. [default: all]",
)
@click.option("--variant", help="Further variant of the configurations that it fits, such as jpeg.")
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Change a setting of all runs.")
@click.option("--folder", type=click.Path(path_type=Path), default="reproduction", help="Folder of all results.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of tables and figures. [default: --folder]")
@click.option("--into", type=click.Path(path_type=Path, dir_okay=False), help="Page whose table of results to update.")
@click.option("--trained-only", is_flag=True, help="Train nothing; evaluate and show the runs that are trained.")
@click.option("--at-once", type=click.IntRange(1), help="Parallel runs. [default: one per core, four per GPU]")
@click.option("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
@click.option("--dry-run", is_flag=True, help="Only list all runs and their missing parts.")
def main(
    *,
    scale: str,
    seeds: tuple[int, ...],
    architectures: tuple[str, ...],
    variant: str | None,
    overrides: tuple[str, ...],
    folder: Path,
    out: Path | None,
    into: Path | None,
    trained_only: bool,
    at_once: int | None,
    device: str,
    dry_run: bool,
    everything: bool,
    **chosen_numbers: list[str],
) -> None:
    """Train and evaluate the models of tables and figures in the SRN paper; write our values beside the paper's.

    GANs: tables 2 to 4, figures 5 and 12 to 22. Classifiers: tables 1 and 5 to 7, figures 1 to 4 and 6 to 11. Claims of
    the BSSN paper and of the SRN paper's appendices are judged by runs of their own.
    """
    artefacts = wanted(chosen_numbers, everything)
    if into:
        for each in artefacts:
            put_into(into, each, None)  # fails now, not after hours of training
    change = {"small": True} if variant == "small" else {"variant": variant or ""}
    chosen = SCALES[scale]._replace(**change)
    plan = Plan(artefacts, seeds, chosen, overrides, folder / "runs", architectures, trained_only)
    if dry_run:
        click.echo("\n".join([plan.describe(), *notes(artefacts)]))
        return
    errors = execute(plan, device, at_once)
    show(plan, artefacts, out or folder, scale, into)
    for error, count in Counter(errors.values()).items():
        click.echo(f"{count} run{'s' if count > 1 else ''} not trained or measured: {error}", err=True)
    if errors:
        raise SystemExit(1)


def wanted(numbers: Mapping[str, Iterable[str]], everything: bool) -> list[Artefact]:
    """Artefacts by their kinds and numbers or words.

    Raises:
        ConfigError: none is named.
    """
    found = [(kind, number) for kind in KINDS for number in (KINDS[kind].contents if everything else numbers[kind])]
    if not found:
        options = [f"--{kind.replace('_', '-')}: {', '.join(contents)}" for kind, (_, contents, _) in KINDS.items()]
        raise ConfigError(f"--table or --figure: name one of these: {'; '.join(options)}")
    return [artefact(kind, number) for kind, number in found]


def notes(artefacts: Iterable[Artefact]) -> list[str]:
    """Notes of tables and figures, each with the name of its own."""
    return [f"{each.name}: {each.content.note}" for each in artefacts if each.content.note]


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
    plan.refused = jobs.refused
    jobs.train(usable)
    jobs.measure(usable)
    if jobs.stopped:
        click.echo("interrupted; the same command resumes", err=True)
        raise SystemExit(130)
    return jobs.errors


def show(plan: Plan, artefacts: Iterable[Artefact], folder: Path, scale: str, index: Path | None) -> None:
    """Writes tables and figures, prints their summaries, and updates their rows in a page."""
    folder.mkdir(parents=True, exist_ok=True)
    for each in artefacts:
        try:
            made = write(each, plan, folder, scale)
        except EvaluationError as error:
            raise UserError(str(error)) from None
        file = folder / f"{stem_of(each, scale)}.md"
        click.echo(f"{file}: {made.summary}" if made else f"{each.name}: nothing was run")
        if made and index:
            link = f"[{each.name}]({Path(os.path.relpath(file, index.parent)).as_posix()})"
            put_into(index, each, (link, each.content.title, made.summary))


if __name__ == "__main__":
    main()
