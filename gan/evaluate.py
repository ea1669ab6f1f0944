"""gan-eval: computes metrics of a checkpoint, a run or a folder of generated images."""

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from gan.command import Command
from gan.command.evaluation import evaluation_command
from gan.command.options import BEST, EVALUATION, FOLDER, VARIANTS, EvaluationOptions, with_options
from gan.config import Config
from gan.errors import ConfigError

EXAMPLES = """
Examples:

  gan-eval --metrics fid,is,nd                        the newest checkpoint under ./runs
  gan-eval runs/mine --metrics fid,is                 of this run
  gan-eval --metrics fid,is --run runs/mine --inception-weights weights-inception-2015-12-05-6726825d.pth
  gan-eval --metrics fid,is,nd --run runs/shapes --set eval.extractor=classifier --set eval.nd.steps=2000
  gan-eval --metrics fid --checkpoint runs/mine/checkpoints/step-00050000.pt --set eval.num_fid=50000
  gan-eval --compare runs/sn runs/srn70               newest reports side by side: table, plots, page
  gan-eval --index runs/                              page of all runs, running ones too: runs/index.html
  gan-eval --metrics fid,is --generated samples/ --config cifar10_srn70 --set eval.num_fid=1000 --set eval.num_is=1000
  gan-eval --metrics fid --generated samples.zip --reference cifar10:train --set data.root=data
  gan-eval --write-statistics cifar10.npz --reference cifar10:train     mu and sigma, for eval.reference_statistics
"""


@click.command(cls=Command, epilog=EXAMPLES)
@with_options(*EVALUATION, BEST)
@click.option("--generated", type=FOLDER, help="Generated images; needs --config or --reference.")
@click.option("--config", "config_name", help="Without a run: configuration of the real images and the protocol.")
@click.option(
    "--reference",
    type=FOLDER,
    help="Without a run: real images in place of --config's: a data set such as cifar10:train, a folder or archive.",
)
@click.option("--test", type=FOLDER, help="With --reference: real images not used in training, such as cifar10:test.")
@click.option(
    "--write-statistics",
    type=FOLDER,
    help="Write mu and sigma of the real images to this .npz file for FID, and measure nothing.",
)
@with_options(VARIANTS)
@click.option("--inception-weights", type=FOLDER, help="File of the Inception weights.")
@click.option(
    "--index",
    "runs_folder",
    type=FOLDER,
    metavar="FOLDER",
    help="Write index.html of all runs below FOLDER, into --out.",
)
def main(runs_folder: Path | None, **options: Any) -> None:
    """Measure generated images; every number is stored with its protocol."""
    if runs_folder is None:
        evaluation_command(Config, EvaluationOptions(**options))
    else:
        _index(runs_folder, options["out"] or runs_folder)


def _index(folder: Path, out: Path) -> None:
    """Writes a page of all runs below a folder, and prints what is missing of them."""
    context = click.get_current_context()
    given = [
        option.human_readable_name if isinstance(option, click.Argument) else option.opts[0]
        for option in context.command.params
        if option.name not in ("runs_folder", "out")
        and context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
    ]
    if given:
        raise ConfigError(f"--index: measures nothing; leave out {', '.join(given)}")
    from gan.runs.index import find_runs

    runs = find_runs(folder)
    from evaluation.reporting.index import index_page
    from evaluation.runtime.files import write_text

    page = index_page(f"{folder.resolve().name}: all runs", runs, out)
    try:
        write_text(out / "index.html", page)
    except OSError as error:
        raise ConfigError(
            f"--out {out}: cannot be written ({error.strerror or error}); choose another folder"
        ) from None
    for run in runs:
        for note in run.notes:
            click.echo(f"{run.name}: {note}", err=True)
    click.echo(f"index of {len(runs)} run{'s' * (len(runs) != 1)}: {out / 'index.html'}")


if __name__ == "__main__":
    main(prog_name="gan-eval")
