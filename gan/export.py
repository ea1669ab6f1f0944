"""gan-export: writes the networks of a run as safetensors files, with a model card."""

from pathlib import Path

import click

from gan.command import Command
from gan.command.options import BEST, CHECKPOINT, FOLDER, IMPORT, check_found, check_source, with_options
from gan.errors import ConfigError

EXAMPLES = """
Examples:

  gan-export --run runs/mine --origin "my photos, CC0" --out exported
  gan-export --run runs/quickstart --half --out demo         the generator in half precision, as in gan-sample --demo
  gan-export --run runs/quickstart --program --out demo      also generator.pt2, which needs torch only
  gan-sample --checkpoint exported/generator.safetensors     draws from it
"""
DRAWN = "drawn by this package, which uses no images or weights of others"


@click.command(cls=Command, epilog=EXAMPLES)
@with_options(*CHECKPOINT, BEST, IMPORT)
@click.option("--report", type=FOLDER, help="Folder of a report with scores. [default: the run's newest, if any]")
@click.option("--origin", default="", help="Of the training images, and their terms. [default: known if drawn]")
@click.option("--half", is_flag=True, help="Round the generator's weights to half precision.")
@click.option("--program", is_flag=True, help="Also write the generator by torch.export, as generator.pt2.")
@click.option("--out", required=True, type=FOLDER, help="Folder to write, new or empty.")
def main(
    checkpoint: Path | None,
    run: Path | None,
    best: bool,
    imports: tuple[str, ...],
    report: Path | None,
    origin: str,
    half: bool,
    program: bool,
    out: Path,
) -> None:
    """Write generator.safetensors, discriminator.safetensors and README.md, a model card, into a folder."""
    check_source(checkpoint, run, best)
    check_found(checkpoint, run)
    from gan.measuring.exported import export
    from gan.measuring.generator_file import is_drawn, newest_report
    from gan.runs.checkpoint import read_checkpoint
    from gan.runs.choice import choose_checkpoint

    read = read_checkpoint(choose_checkpoint(checkpoint, run, best))
    if not origin and not is_drawn(read):
        raise ConfigError(
            '--origin: is missing: give source and terms of the training images: --origin "my photos, CC0"'
        )
    report = report or newest_report(read)
    click.echo(f"scores: {report or 'none, as the run has no report of these weights'}")
    for file in export(read, out, origin=origin or DRAWN, report=report, half=half, program=program):
        click.echo(f"{file}: {file.stat().st_size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main(prog_name="gan-export")
