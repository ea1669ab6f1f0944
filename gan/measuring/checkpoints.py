"""Evaluates a checkpoint of a GAN or a classifier, or a folder of images, and saves the report."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from evaluation import EXTRACTORS, METRICS, Report
from evaluation.generalization import MEASURES
from evaluation.reporting.compare_folders import compare_folders
from gan.config import Config
from gan.config.loading import Experiment, differences, override_config, validated
from gan.config.stored import AnyConfig
from gan.errors import ConfigError
from gan.measuring.checks import check_evaluation, check_imports, check_place, parse_metrics, user_errors
from gan.measuring.classifiers import measure_classifier
from gan.measuring.gans import Evaluation, finish_gan, measure_gan
from gan.measuring.named import measure_against
from gan.runs.checkpoint import Checkpoint
from gan.runs.choice import fresh_folder
from gan.runs.finding import JSONL
from gan.runtime.distributed import Processes


class Measuring(NamedTuple):
    """Evaluation of one kind of run.

    Attributes:
        registries: names that options and settings accept.
        measure: returns the report of a checkpoint. Arguments: configuration, names of metrics separated by commas,
            checkpoint, device, processes.
        finish: called with the checkpoint and the folder of its report after the report is written.
    """

    registries: Mapping[str, Iterable[str]]
    measure: Callable[[Any, str, Checkpoint, torch.device, Processes], Report]
    finish: Callable[[Path, Path], None] = lambda checkpoint, report: None


KINDS = {
    "gan": Measuring({"--metrics": METRICS, "eval.extractor": EXTRACTORS}, measure_gan, finish_gan),
    "classifier": Measuring({"--metrics": MEASURES}, measure_classifier),
}
"""Maps the `kind` of a configuration to its evaluation."""


def measure_checkpoint(
    kind: type[AnyConfig],
    read: Checkpoint,
    metrics: str | None,
    overrides: Sequence[str],
    device: torch.device,
    processes: Processes,
    out: Path | None,
) -> tuple[Report, Path]:
    """Measures a checkpoint; returns the report and its folder, by default reports/<step> in the run.

    Raises:
        UserError: the checkpoint, the data, the settings or the folder of the report cannot be used.
    """
    trained = validated(kind, read.config, str(read.path))
    config = override_config(trained, overrides, str(read.path))
    refuse_changes(config, trained, read.path)
    check_imports(read)
    measuring, run = KINDS[kind.kind], read.path.parent.parent
    processes.first(lambda: check_place(out or run / "reports"))
    with user_errors():
        report = measuring.measure(config, metrics or config.eval.metrics, read, device, processes)

    def save() -> Path:
        log = run / JSONL
        folder = out or fresh_folder(run / "reports" / f"{report.protocol['subject']['step']:08d}")
        with user_errors():
            report.save(folder, training_log=log if log.is_file() else None)
        measuring.finish(read.path, folder)
        return folder

    return report, processes.first(save)


def measure_generated(
    images: Path,
    config: Config,
    metrics: str | None,
    device: torch.device,
    processes: Processes,
    out: Path | None,
    real: tuple[Path | None, Path | None] = (None, None),
) -> tuple[Report, Path]:
    """Measures a folder of images with the protocol of a configuration; returns the report and its folder.

    Args:
        real: reference and test images, see `measure_against`; without a reference, those of the configuration.

    Raises:
        UserError: the images, the data, the settings or the folder of the report cannot be used.
    """
    names = parse_metrics(metrics or config.eval.metrics)
    check_evaluation(config)
    processes.first(lambda: check_place(out or Path("reports")))
    reference, test = real
    with user_errors():
        if reference is None:
            report = Evaluation(config, device, processes).of_folder(names, images)
        else:
            report = measure_against(images, reference, test, ",".join(names), config, device)

    def save() -> Path:
        folder = out or fresh_folder(Path("reports") / images.name)
        with user_errors():
            report.save(folder)
        return folder

    return report, processes.first(save)


def compare(runs: Sequence[Path], folder: Path, *, skip_mixed: bool) -> str:
    """Compares reports of several runs, writes a page into `folder` and returns the table.

    Raises:
        UserError: a folder holds no report, or values of different protocols would be compared.
    """
    with user_errors():
        return compare_folders(runs, folder, skip_mixed=skip_mixed).table()


def refuse_changes(config: Experiment, trained: Experiment, path: Path) -> None:
    """Raises ConfigError if --set changes a setting that affects training."""
    changed = differences(config, trained)
    if changed:
        raise ConfigError(
            f"--set: cannot change settings that {path} was trained with (now, then): {'; '.join(changed)}; "
            "change only eval.* or data.root"
        )
