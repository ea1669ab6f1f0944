"""Writes the generator of a run in half precision, with its scores, to a file that gan-sample reads.

\b
Example: the file that comes with the package
    gan-eval --run runs/quickstart --metrics fid,is,gan_test
    python tools/export_generator.py --run runs/quickstart --out gan/measuring/demo.safetensors
    gan-sample --demo

\b
Another one: where its training images are from has to be said
    python tools/export_generator.py --run runs/mine --origin "CIFAR-10, as JPEG" --out mine.safetensors
    gan-sample --checkpoint mine.safetensors --num 100 --out samples

It is written only if its images agree with those of the checkpoint.
"""

from pathlib import Path

import click

from gan.build import checkpoint_config
from gan.command import Command
from gan.data.shapes import STYLES
from gan.errors import ConfigError
from gan.measuring.generator_file import write_generator
from gan.runs.checkpoint import Checkpoint, read_checkpoint

DRAWN = "drawn by this package, which uses no images or weights of others"


@click.command(cls=Command, help=__doc__, context_settings={"max_content_width": 120})
@click.option("--run", required=True, type=click.Path(path_type=Path), help="Run folder or checkpoint.")
@click.option("--report", type=click.Path(path_type=Path), help="Folder of its report. [default: the run's newest]")
@click.option("--origin", default="", help="Of the training images, and their terms. [default: known if drawn]")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File to write, NAME.safetensors.")
def main(run: Path, report: Path | None, origin: str, out: Path) -> None:
    """Write the newest averaged generator of a run, with its scores, into one file."""
    if out.suffix != ".safetensors":
        raise ConfigError(f"--out: got {out}, expected a name that ends with .safetensors, which gan-sample asks for")
    checkpoint = read_checkpoint(run)
    data = checkpoint_config(checkpoint).data
    if not origin and data.name not in STYLES:
        raise ConfigError(f"--origin: say where the images of {data.shown} are from and under which terms")
    written = write_generator(checkpoint, report or newest_report(checkpoint), origin=origin or DRAWN, out=out)
    click.echo(
        f"{out}: {written.num_bytes / 2**20:.2f} MiB; rounding changes pixels by {written.mean:.2g} grey levels on "
        f"average, {written.largest} at most"
    )


def newest_report(checkpoint: Checkpoint) -> Path:
    """Folder of the report of a checkpoint's step that was written last.

    Raises:
        ConfigError: there is none.
    """
    reports = checkpoint.path.parent.parent / "reports"
    files = list(reports.glob(f"{checkpoint.state['step']:08d}*/report.json"))
    if not files:
        raise ConfigError(f"{reports}: no report of {checkpoint.path.name}; measure it by gan-eval first")
    return max(files, key=lambda file: file.stat().st_mtime).parent


if __name__ == "__main__":
    main()
