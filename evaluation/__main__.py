"""python -m evaluation: measures metrics of folders of images, without a model or the gan package."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from evaluation.errors import EvaluationError
from evaluation.settings import Settings
from evaluation.settings.mistakes import explain
from evaluation.settings.presets import PROTOCOLS
from evaluation.settings.schema import leaves, places

EXAMPLES = """
Measures generated images against real ones. A set of images is a folder (plain, or one sub-folder per class) or an
.npz file (uint8 images or arr_0, and labels where there are any); for fid the reference may be an .npz file of
statistics (mu and sigma, as pytorch-fid, clean-fid and ADM publish them), whose images are taken where it holds both.
Every number is printed with the hash of the protocol that decides it; only numbers of equal hash may be compared.

\b
Examples:
  The published protocol: 10,000 real against 5,000 generated images for FID, 50,000 for IS
    python -m evaluation --generated samples/ --reference cifar10/train --metrics fid,is
  Whatever is there, with weights from a file
    python -m evaluation --generated samples/ --reference real.npz --metrics fid,is \\
      --num-real all --num-fid all --num-is all --inception-weights weights-inception-2015-12-05-6726825d.pth
  Without Inception: a small classifier learnt from the class sub-folders of the reference
    python -m evaluation --generated samples/ --reference train/ --test test/ --metrics fid,is,nd \\
      --extractor classifier --num-real all --num-fid all --num-is all --nd-steps 2000 --out report/
"""


OPTIONS = {
    "metrics": "Comma-separated names, see --list.",
    "extractor": "Comma-separated networks for features, see --list.",
    "inception_weights": "Weights file; else $INCEPTION_WEIGHTS.",
    "clip_weights": "Weights file; else $CLIP_WEIGHTS.",
    "classifier_weights": "Weights file for resnet; else $CLASSIFIER_WEIGHTS, else the bundled one.",
    "reference_statistics": "An .npz file of mu and sigma, for fid in place of the images of --reference.",
    "protocol": f"Numbers of images, out of {', '.join(PROTOCOLS)}.",
    "num_real": "Reference images for fid, or all; the protocol's if not given.",
    "num_fid": "Generated images for fid, or all; the protocol's if not given.",
    "num_is": "Generated images for is, or all; the protocol's if not given.",
    "is_splits": "Parts for the spread of is; the protocol's if not given.",
    "nd.steps": "Critic updates; fewer than the preset's are nd_short.",
    "nd.num_critics": "Critics, for the spread of nd; the preset's if not given.",
    "batch_size": "Images at a time; decides speed only.",
    "seed": "Draws the reference images and the critics.",
}
"""Help texts of the settings that have a command-line option."""
SHORT = {"is_splits": "--splits", "nd.num_critics": "--nd-critics"}


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds an option for each of OPTIONS to a command, with the setting's default."""
    defaults = {place: value for place, _, value in leaves(Settings())}
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


@click.command(help=EXAMPLES, context_settings={"max_content_width": 120})
@click.option("--generated", type=click.Path(path_type=Path), required=True, help="Generated images.")
@click.option("--reference", type=click.Path(path_type=Path), help="Real images, for fid; the classifier learns them.")
@click.option("--test", type=click.Path(path_type=Path), help="Real images the generator never saw, for nd.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for report.json, arrays.npz and plots.")
@_options
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="Any other setting; may be repeated.")
@click.option("--cache/--no-cache", default=True, help="Keep features of real images for the next time.")
@click.option("--device", default="cpu", show_default=True, help="Such as cpu, cuda or cuda:1.")
@click.option("--list", is_flag=True, is_eager=True, expose_value=False, callback=_print_names, help="Print all names.")
def main(
    generated: Path,
    reference: Path | None,
    test: Path | None,
    out: Path | None,
    changes: tuple[str, ...],
    cache: bool,
    device: str,
    **options: str | None,
) -> None:
    """Measures the metrics, prints the table and saves the report."""
    try:
        given = [f"{place.replace('__', '.')}={text}" for place, text in options.items() if text is not None]
        settings = _settings([*given, f"cache={cache}", *changes])
        from evaluation.folders import measure_folders

        report = measure_folders(generated, reference, test, device, settings)
        click.echo(report.table())
        if out is not None:
            click.echo(f"report: {report.save(out)}")
    except EvaluationError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)


def _settings(changes: Sequence[str]) -> Settings:
    """Parses settings such as "nd.steps=100". Later ones override earlier ones; "all" images become 0.

    Raises:
        EvaluationError: unknown settings, or values out of range.
    """
    known, nested = places(Settings), dict[str, Any]()
    for change in changes:
        place, equals, text = change.partition("=")
        if place not in known or not equals:
            raise EvaluationError(f"--set: got {change!r}, expected NAME=VALUE with a name out of {', '.join(known)}")
        section, _, name = place.rpartition(".")
        values = nested.setdefault(section, {}) if section else nested
        values[name] = "0" if text == "all" and name.startswith("num_") else text
    try:
        return Settings.model_validate_strings(nested)
    except ValidationError as error:
        raise EvaluationError(explain(Settings, error, known)) from None


if __name__ == "__main__":
    main(prog_name="python -m evaluation")
