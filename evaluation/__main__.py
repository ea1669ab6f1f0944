"""python -m evaluation: measures metrics of folders of images, without a model or the gan package."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from evaluation.errors import EvaluationError
from evaluation.runtime.command import CheckedCommand
from evaluation.runtime.terminal import prepare_terminal
from evaluation.settings import Settings
from evaluation.settings.mistakes import explain
from evaluation.settings.presets import PROTOCOLS, RESIZES, STANDALONE
from evaluation.settings.schema import leaves, places

EXAMPLES = """
Measures generated images against real ones. A set of images is a folder, .zip or .tar archive with or without one
sub-folder per class, a packed data set, or an .npz file with uint8 images (or arr_0) and optional labels. Of a set with
train/ and test/, --reference takes train and --test takes test; real.zip:test names a split.
For fid the reference may be an .npz file of statistics (mu and sigma, as published by pytorch-fid, clean-fid and ADM);
if it also holds images, the images are used.
Every number is printed with the hash of its protocol; only numbers with equal hashes may be compared.

\b
Examples:
  All images of both folders, with weights from a file
    python -m evaluation --generated samples/ --reference real/ --metrics fid,is \\
      --inception-weights weights-inception-2015-12-05-6726825d.pth
  A published protocol: 10,000 real against 5,000 generated images for FID, 50,000 for IS
    python -m evaluation --generated samples/ --reference cifar10/train --metrics fid,is --protocol srn2020
  Statistics of the real images in a file, and FID against them
    python -m evaluation --reference real/ --write-statistics real.npz
    python -m evaluation --generated samples/ --reference real.npz --metrics fid
  Without Inception: a small classifier trained on the class sub-folders of the reference
    python -m evaluation --generated samples/ --reference train/ --test test/ --metrics fid,is,nd \\
      --extractor classifier --nd-steps 2000 --out report/
"""


OPTIONS = {
    "metrics": "Comma-separated metrics; see --list.",
    "extractor": "Comma-separated feature extractors; see --list.",
    "inception_weights": "Weights file; default: $INCEPTION_WEIGHTS.",
    "clip_weights": "Weights file; default: $CLIP_WEIGHTS.",
    "classifier_weights": "Weights file for resnet; default: $CLASSIFIER_WEIGHTS, else the bundled one.",
    "reference_statistics": "An .npz file with mu and sigma, used by fid instead of the images of --reference.",
    "protocol": f"Numbers of images: {', '.join(PROTOCOLS)}; all: those that are there, others: published numbers.",
    "num_real": "Reference images for fid, or all; default: the protocol's number.",
    "num_fid": "Generated images for fid, or all; default: the protocol's number.",
    "num_is": "Generated images for is, or all; default: the protocol's number.",
    "is_splits": "Splits for the standard deviation of is; default: the protocol's number.",
    "nd.steps": "Critic updates; with fewer than the preset's, keys begin with nd_short.",
    "nd.num_critics": "Critics for the standard deviation of nd; default: the preset's number.",
    "resize": f"Filter that resizes the largest centred square of every image, or pad: {', '.join(RESIZES)}.",
    "image_size": "Height and width after --resize in pixels.",
    "batch_size": "Images per forward pass; affects speed only.",
    "seed": "Random seed of the drawn reference images and of the critics.",
}
"""Help texts of the settings that have a command-line option."""
SHORT = {"is_splits": "--splits", "nd.num_critics": "--nd-critics"}


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds an option for each of OPTIONS to a command, with the setting's default."""
    defaults = {place: value for place, _, value in leaves(Settings(protocol=STANDALONE))}
    for place, text in reversed(OPTIONS.items()):
        option = SHORT.get(place, "--" + place.replace(".", "-").replace("_", "-"))
        default = str(defaults[place]) if defaults[place] not in (None, "") else None
        command = click.option(option, place.replace(".", "__"), help=text, default=default, show_default=True)(command)
    return command


def _print_names(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    """Prints all names and exits: the click callback of --list."""
    if wanted:
        from evaluation.folders import registries

        for name, names in registries().items():
            click.echo(f"{name}: {', '.join(names)}")
        context.exit()


@click.command(cls=CheckedCommand, help=EXAMPLES, context_settings={"max_content_width": 120})
@click.option("--generated", type=click.Path(path_type=Path), help="Generated images.")
@click.option(
    "--reference", type=click.Path(path_type=Path), help="Real images, for fid and for training the classifier."
)
@click.option("--test", type=click.Path(path_type=Path), help="Real images not used in training, for nd.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for report.json, arrays.npz and plots.")
@click.option(
    "--write-statistics",
    type=click.Path(path_type=Path),
    help="Write mu and sigma of --reference to this .npz file for FID, and measure nothing.",
)
@_options
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="Sets any other setting; may be repeated.")
@click.option("--cache/--no-cache", default=True, help="Keep features of real images on disk.")
@click.option("--device", default="cpu", show_default=True, help="Device, such as cpu, cuda or cuda:1.")
@click.option(
    "--list", is_flag=True, is_eager=True, expose_value=False, callback=_print_names, help="Print all names and exit."
)
def main(
    generated: Path | None,
    reference: Path | None,
    test: Path | None,
    out: Path | None,
    write_statistics: Path | None,
    changes: tuple[str, ...],
    cache: bool,
    device: str,
    **options: str | None,
) -> None:
    """Measures the metrics, prints the table and saves the report."""
    prepare_terminal()
    try:
        given = [f"{place.replace('__', '.')}={text}" for place, text in options.items() if text is not None]
        settings = _settings([*given, f"cache={cache}", *changes])
        if write_statistics is not None:
            _write(write_statistics, generated or test or out, reference, device, settings)
            return
        if generated is None:
            raise EvaluationError("--generated: missing; give the generated images, or --write-statistics FILE")
        from evaluation.folders import measure_folders
        from evaluation.runtime.files import check_writable

        if out is not None:
            check_writable(out)
        report = measure_folders(generated, reference, test, device, settings)
        click.echo(report.table())
        if out is not None:
            click.echo(f"report: {report.save(out)}")
    except (EvaluationError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # as of `| head`; click ends the program
            raise
        path = getattr(error, "filename", None)
        click.echo(f"error: {path}: {error.strerror}" if path else f"error: {error}", err=True)  # type: ignore[union-attr]
        sys.exit(2)


def _write(file: Path, other: Path | None, reference: Path | None, device: str, settings: Settings) -> None:
    """Writes the statistics of the reference and prints a line about them."""
    if other is not None or reference is None:
        raise EvaluationError("--write-statistics: needs --reference, and no --generated, --test or --out")
    from evaluation.folders import write_folder_statistics

    origin = write_folder_statistics(reference, device, settings, file)
    click.echo(
        f"{file}: statistics of {origin.num_images:,} images ({origin.reference}) by extractor {origin.extractor}"
    )


def _settings(changes: Sequence[str]) -> Settings:
    """Parses settings such as "nd.steps=100". Later ones override earlier ones; "all" images become 0.

    Raises:
        EvaluationError: unknown settings, or values out of range.
    """
    known, nested = places(Settings), dict[str, Any]()
    for change in changes:
        place, equals, text = change.partition("=")
        if place not in known or not equals:
            raise EvaluationError(f"--set: got {change!r}, expected NAME=VALUE with a name from {', '.join(known)}")
        section, _, name = place.rpartition(".")
        values = nested.setdefault(section, {}) if section else nested
        values[name] = "0" if text == "all" and name.startswith("num_") else text
    try:
        return Settings.model_validate_strings(nested)
    except ValidationError as error:
        raise EvaluationError(explain(Settings, error, known)) from None


if __name__ == "__main__":
    main(prog_name="python -m evaluation")
