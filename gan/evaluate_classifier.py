"""gan-eval-classifier: what is said to govern how a trained classifier generalizes, with its protocol."""

import hashlib
from pathlib import Path

import click
import torch

from evaluation import Report
from evaluation.generalization import MEASURES, check_measures, measure
from evaluation.images.reader import fingerprint
from gan import build
from gan.command import Command, choose_device, describe
from gan.config.classifier import ClassifierConfig
from gan.config.loading import override_config
from gan.errors import ConfigError
from gan.evaluate import compare_runs, one_sentence, refuse_changes
from gan.pixels import to_float
from gan.runs.checkpoint import Checkpoint, find_checkpoint, newest_run, read_checkpoint
from gan.runs.folder import check_images_of
from gan.runs.logger import JSONL
from gan.runtime.determinism import determinism
from gan.runtime.memory import keep_freed_memory
from gan.sample import fresh_folder

EXAMPLES = """
Examples:

  gan-eval-classifier                                     the newest classifier under ./runs
  gan-eval-classifier --run runs/mine --metrics accuracy,complexity,noise,local,global,spectra
  gan-eval-classifier --run runs/mine --set eval.split=test --set eval.num_points=1000
  gan-eval-classifier --compare runs/sn runs/srn50        newest reports side by side: table, plots, page
"""


@click.command(cls=Command, epilog=EXAMPLES)
@click.option("--metrics", help=f"Names separated by commas: {', '.join(MEASURES)}. [default: eval.metrics]")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="A checkpoint file.")
@click.option(
    "--run", type=click.Path(path_type=Path), help="A run folder: its newest checkpoint. [default: newest in ./runs]"
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder of the report. [default: reports/<step> in the run]"
)
@click.option(
    "--set", "overrides", multiple=True, metavar="eval.A=B", help="Changes a setting of eval; may be repeated."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--deterministic", is_flag=True, help="The same bits each time, on a GPU too; slower.")
@click.option("--compare", is_flag=True, help="Compare reports of the run folders, or report folders, that follow.")
@click.option("--skip-mixed", is_flag=True, help="With --compare: leave out values of different protocols.")
@click.option("--list", "list_names", is_flag=True, help="Print every metric.")
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path), metavar="[RUN ...]")
def main(
    metrics: str | None,
    checkpoint: Path | None,
    run: Path | None,
    out: Path | None,
    overrides: tuple[str, ...],
    device: str,
    deterministic: bool,
    compare: bool,
    skip_mixed: bool,
    list_names: bool,
    runs: tuple[Path, ...],
) -> None:
    """Measure a classifier: accuracy, margins, complexities, noise sensitivity, Lipschitz constants, spectra."""
    if list_names:
        click.echo(describe({"--metrics": MEASURES}))
        return
    if compare or runs:
        compare_runs(runs, out, compare, skip_mixed)
        return
    click.get_current_context().with_resource(determinism(deterministic))
    place = choose_device(device)
    if place.type == "cpu":
        keep_freed_memory()
    path = find_checkpoint(_chosen(checkpoint, run))
    click.echo(f"checkpoint: {path}")
    read = read_checkpoint(path)
    trained = build.classifier_config(read)
    config = override_config(trained, overrides, str(path))
    refuse_changes(config, trained, path)
    names = [name.strip() for name in (metrics or config.eval.metrics).split(",") if name.strip()]
    with one_sentence():
        check_measures(names)
        report = _measured(names, config, read, place)
        home = path.parent.parent
        folder = out or fresh_folder(home / "reports" / f"{report.protocol['subject']['step']:08d}")
        report.save(folder, training_log=home / JSONL if (home / JSONL).is_file() else None)
    click.echo(report.table())
    click.echo(f"report: {folder}")


def _chosen(checkpoint: Path | None, run: Path | None) -> Path:
    if checkpoint is not None and run is not None:
        raise ConfigError("--checkpoint and --run: give one of them")
    return checkpoint or run or newest_run(kind=ClassifierConfig.kind)


def _measured(names: list[str], config: ClassifierConfig, checkpoint: Checkpoint, device: torch.device) -> Report:
    """Measures of a checkpoint's network, on the images and labels that the configuration names.

    Raises:
        CheckpointError, DataError: they are not those of training, or of other classes.
    """
    wanted, data = config.eval, config.data
    state = build.load_classifier_state(checkpoint, config, device)
    images = build.load_labelled_images(config, wanted.split)
    if wanted.split == "train":
        check_images_of(checkpoint.path, state.data_fingerprint, images.fingerprint, data.root)
    build.check_classes(config, state, images)
    random = data.labels == "random" and wanted.split == "train"
    return measure(
        names,
        state.network,
        to_float(images.images),
        images.labels,
        settings=wanted,
        data_name=data.shown,
        split=wanted.split,
        data_fingerprint=fingerprint(images.images),
        label_kind=f"random, seed {data.seed}" if random else "given",
        network_protocol={"input": "p / 128 - 1", "normalized_weights": "as in training"},
        subject={
            "experiment": config.name,
            "identity": config.identity(),
            "classifier": {name: value for name, value in config.classifier.model_dump().items() if value is not None},
            "trained_on_labels": data.labels,
            "train_seed": config.train.seed,
            "step": state.step,
            "checkpoint": str(checkpoint.path),
            "checkpoint_sha256": hashlib.sha256(checkpoint.path.read_bytes()).hexdigest(),
        },
        class_names=images.classes,
    )


if __name__ == "__main__":
    main(prog_name="gan-eval-classifier")
