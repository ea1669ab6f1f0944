"""gan-plot: draws figures of training runs."""

from pathlib import Path

import click

from gan.command import Command
from gan.command.options import FOLDER
from gan.errors import ConfigError

EXAMPLES = """
Examples:

  gan-plot gradients runs/mine                           one run, into gradients.png
  gan-plot gradients runs/none runs/sn runs/srn --out gradients/normalizations.png
  gan-plot gradients runs/sn-seed0 runs/sn-seed1 runs/sn-seed2   seeds of one configuration: their median and range
"""


@click.command(cls=Command, epilog=EXAMPLES)
@click.argument("figure", type=click.Choice(["gradients"]))
@click.argument("runs", nargs=-1, required=True, type=FOLDER, metavar="RUN [RUN ...]")
@click.option("--out", type=FOLDER, help="PNG file; one that exists is replaced. [default: gradients.png]")
def main(figure: str, runs: tuple[Path, ...], out: Path | None) -> None:
    """Draw a figure of training runs, as a PNG file.

    gradients: norm of the gradient of the discriminator's loss, whole and by layer, gradient of its logits in the
    images, shares of images without gradient, and spectral norms, over the steps. The runs are trained with --set
    train.gradients_every=N. Those that differ only in their seed share a curve.
    """
    file = Path(f"{figure}.png") if out is None else out
    if file.suffix != ".png":
        raise ConfigError(f"--out {file}: expected a name that ends with .png")
    from evaluation.errors import EvaluationError
    from evaluation.reporting.plots import gradients_figure, save_figure
    from gan.runs.gradients import read_gradients, seeds_together

    groups = seeds_together(list(dict.fromkeys(runs)))
    curves = {label: [read_gradients(run) for run in several] for label, several in groups.items()}
    try:
        save_figure(gradients_figure(curves), file)
    except EvaluationError as error:
        raise ConfigError(str(error)) from None
    click.echo(f"figure: {file}")


if __name__ == "__main__":
    main(prog_name="gan-plot")
