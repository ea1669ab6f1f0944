"""python -m evaluation: metrics for folders of images, without a model and without gan."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch

from evaluation.context import Context, Settings
from evaluation.errors import EvaluationError
from evaluation.extractors import EXTRACTORS, Sources, build_extractors
from evaluation.images.cache import Cache, default_folder
from evaluation.images.generated import match_classes, name_classes, read_generated
from evaluation.images.reader import read_images
from evaluation.metrics import METRICS
from evaluation.presets import PROTOCOLS
from evaluation.runner import check_metrics, evaluate
from evaluation.runtime.files import array_names
from evaluation.statistics.moments_file import read_statistics

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


def _switch(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError
    return text == "true"


OF_IMAGES = [name for name, metric in METRICS.items() if not metric.critic]
INTEGER: tuple[Callable[[str], Any], str] = (int, "a whole number")
OTHERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "num_intra": INTEGER,
    "floor": (_switch, "true or false"),
    "kid_subsets": INTEGER,
    "kid_subset_size": INTEGER,
    "pr_neighbours": INTEGER,
    "dc_neighbours": INTEGER,
    "nd_preset": (str, "a name"),
    "nd_samples": INTEGER,
    "nd_holdout": (float, "a number"),
}


class Count(click.ParamType):  # type: ignore[type-arg, unused-ignore]  # not generic before click 8.3
    """A positive number of images, or "all"; "all" becomes 0."""

    name = "N|all"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if value == "all":
            return 0
        if str(value).isdecimal() and int(value) > 0:
            return int(value)
        return self.fail(f"got {value!r}, expected a positive number or all", param, ctx)


@click.command(help=EXAMPLES, context_settings={"max_content_width": 120, "show_default": True})
@click.option("--generated", type=click.Path(path_type=Path), required=True, help="Generated images.")
@click.option("--reference", type=click.Path(path_type=Path), help="Real images, for fid; the classifier learns them.")
@click.option(
    "--reference-statistics",
    type=click.Path(path_type=Path),
    help="An .npz file of mu and sigma, for fid in place of the images of --reference.",
)
@click.option("--test", type=click.Path(path_type=Path), help="Real images the generator never saw, for nd.")
@click.option("--metrics", default="fid,is", help=f"Comma-separated, out of {', '.join(OF_IMAGES)}.")
@click.option(
    "--extractor", default="inception", help=f"Comma-separated networks for features: {', '.join(EXTRACTORS)}."
)
@click.option("--inception-weights", type=click.Path(path_type=Path), help="Weights file; else $INCEPTION_WEIGHTS.")
@click.option("--clip-weights", type=click.Path(path_type=Path), help="Weights file; else $CLIP_WEIGHTS.")
@click.option(
    "--classifier-weights",
    type=click.Path(path_type=Path),
    help="Weights file for resnet; else $CLASSIFIER_WEIGHTS, else the bundled one.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for report.json, arrays.npz and plots.")
@click.option("--protocol", type=click.Choice(list(PROTOCOLS)), default="srn2020", help="Numbers of images.")
@click.option("--num-real", type=Count(), help="Reference images for fid; the protocol's if not given.")
@click.option("--num-fid", type=Count(), help="Generated images for fid; the protocol's if not given.")
@click.option("--num-is", type=Count(), help="Generated images for is; the protocol's if not given.")
@click.option("--splits", type=click.IntRange(min=1), help="Parts for the spread of is; the protocol's if not given.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="NAME=VALUE",
    help=f"Other settings: {', '.join(OTHERS)}; may be repeated.",
)
@click.option("--nd-steps", type=click.IntRange(min=1), help="Critic updates; fewer than the preset's are nd_short.")
@click.option(
    "--nd-critics", type=click.IntRange(min=1), help="Critics, for the spread of nd; the preset's if not given."
)
@click.option("--batch-size", type=click.IntRange(min=1), default=50, help="Images at a time; decides speed only.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Draws the reference images and the critics.")
@click.option("--cache/--no-cache", default=True, help="Keep features of real images for the next time.")
@click.option("--device", default="cpu", help="Such as cpu, cuda or cuda:1.")
def main(
    generated: Path,
    reference: Path | None,
    reference_statistics: Path | None,
    test: Path | None,
    metrics: str,
    extractor: str,
    inception_weights: Path | None,
    clip_weights: Path | None,
    classifier_weights: Path | None,
    out: Path | None,
    device: str,
    protocol: str,
    num_real: int | None,
    num_fid: int | None,
    num_is: int | None,
    splits: int | None,
    changes: tuple[str, ...],
    nd_steps: int | None,
    nd_critics: int | None,
    batch_size: int,
    seed: int,
    cache: bool,
) -> None:
    try:
        names = [name.strip() for name in metrics.split(",") if name.strip()]
        check_metrics(names)
        _check_no_critic(names)
        settings = Settings.of(
            protocol,
            num_real=num_real,
            num_fid=num_fid,
            num_is=num_is,
            is_splits=splits,
            nd_steps=nd_steps,
            nd_critics=nd_critics,
            batch_size=batch_size,
            seed=seed,
            **_parsed(changes),
        )
        store = Cache(default_folder()) if cache else None
        place, labelled = _device(device), any(METRICS[name].labels for name in names)
        context = _context(generated, reference, reference_statistics, test, place, settings, store, labelled)
        if any(METRICS[name].extractor for name in names):
            sources = _sources(context, inception_weights, clip_weights, classifier_weights)
            extractors = build_extractors(extractor, sources)
            context = context.of(context.generated, context.generated_labels, extractor=extractors)
        report = evaluate(names, context)
        click.echo(report.table())
        if out is not None:
            click.echo(f"report: {report.save(out)}")
    except EvaluationError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)


def _check_no_critic(names: list[str]) -> None:
    for name in names:
        if METRICS[name].critic:
            raise EvaluationError(
                f"metric {name}: needs a discriminator, which files of images do not hold; leave it out here, "
                "or measure it from Python by Context(critic=...)"
            )


def _parsed(changes: tuple[str, ...]) -> dict[str, Any]:
    """ "kid_subset_size=100" -> {"kid_subset_size": 100}, of the type the setting has."""
    parsed: dict[str, Any] = {}
    for change in changes:
        name, _, text = change.partition("=")
        if name not in OTHERS:
            raise EvaluationError(f"--set: got {change!r}, expected NAME=VALUE with a name out of {', '.join(OTHERS)}")
        kind, expected = OTHERS[name]
        try:
            parsed[name] = kind(text)
        except ValueError:
            raise EvaluationError(f"--set {name}: got {text!r}, expected {expected}") from None
    return parsed


def _context(
    generated: Path,
    reference: Path | None,
    reference_statistics: Path | None,
    test: Path | None,
    device: torch.device,
    settings: Settings,
    cache: Cache | None,
    labelled: bool,
) -> Context:
    images, labels, class_names, protocol = read_generated(generated, seed=settings.seed)
    if reference is not None and reference_statistics is None and _holds_statistics_only(reference):
        reference, reference_statistics = None, reference
    statistics = None if reference_statistics is None else read_statistics(reference_statistics)
    real, real_labels, real_names = (None, None, ()) if reference is None else read_images(reference)
    held_out, held_out_labels, held_out_names = (None, None, ()) if test is None else read_images(test)
    classes = name_classes(real_labels, real_names)
    return Context(
        generated=images,
        generated_labels=match_classes(labels, class_names, classes, generated, needed=labelled),
        reference=real,
        reference_labels=real_labels,
        test=held_out,
        test_labels=match_classes(held_out_labels, held_out_names, classes, str(test), needed=labelled),
        statistics=statistics,
        settings=settings,
        cache=cache,
        class_names=classes or name_classes(labels, class_names),
        device=device,
        protocol=protocol,
        subject={
            "generated": str(generated),
            "reference": str(reference),
            "reference_statistics": str(reference_statistics),
            "test": str(test),
        },
        title=f"{generated} against {reference or reference_statistics or test}",
        reference_name=str(reference or reference_statistics or ""),
        test_name=str(test or ""),
    )


def _holds_statistics_only(reference: Path) -> bool:
    arrays = array_names(reference)
    return {"mu", "sigma"} <= arrays and not {"images", "arr_0"} & arrays


def _sources(
    context: Context, inception_weights: Path | None, clip_weights: Path | None, classifier_weights: Path | None
) -> Sources:
    return Sources(
        device=context.device,
        weights=inception_weights,
        clip_weights=clip_weights,
        classifier_weights=classifier_weights,
        images=context.reference,
        labels=context.reference_labels,
        test_images=context.test,
        test_labels=context.test_labels,
    )


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise EvaluationError(f"--device: got {name!r}, expected such as cpu, cuda or cuda:1") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise EvaluationError(
            f"--device: got {name}, but PyTorch sees {torch.cuda.device_count()} CUDA devices; use cpu"
        )
    return device


if __name__ == "__main__":
    main(prog_name="python -m evaluation")
