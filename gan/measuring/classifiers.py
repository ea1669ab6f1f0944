"""Generalization measures of a classifier's checkpoint."""

from collections.abc import Mapping
from typing import Any

import torch

from evaluation import Report
from evaluation.generalization import check_measures, measure
from evaluation.images.checks import fingerprint
from gan import build_classifier
from gan.config.classifier import ClassifierConfig
from gan.data.pixels import to_float
from gan.errors import ConfigError
from gan.runs.checkpoint import Checkpoint
from gan.runs.recorded import ANYWAY, OTHER, RecordedImages, notes_of, recorded_fingerprints
from gan.runtime.distributed import Processes
from gan.training.state import ClassifierState


def measure_classifier(
    config: ClassifierConfig, metrics: str, checkpoint: Checkpoint, device: torch.device, processes: Processes
) -> Report:
    """Measures the network of a checkpoint on the configured images and labels.

    Raises:
        CheckpointError: the images are not those with which the run began, and eval.other_images is not set.
        DataError: the images have other classes than those of training.
        ConfigError: several processes.
    """
    if processes.count > 1:
        raise ConfigError(
            f"gan-eval-classifier: measures in one process, got {processes.count}; start it without torchrun"
        )
    names = [name.strip() for name in metrics.split(",") if name.strip()]
    check_measures(names)
    wanted, data = config.eval, config.data
    state = build_classifier.load_classifier_state(checkpoint, config, device)
    images = build_classifier.load_labelled_images(config, wanted.split)
    recorded = RecordedImages.of(recorded_fingerprints(state), checkpoint.path, checkpoint.path.parent.parent)
    found = recorded.compare(wanted.split, images.fingerprint, data.root, accept=wanted.other_images, advice=ANYWAY)
    build_classifier.check_classes(config, state, images)
    random = data.labels == "random" and wanted.split == "train"
    return measure(
        names,
        state.network,
        to_float(images.images),
        images.labels,
        settings=wanted,
        data_name=data.name,
        title=f"{data.shown}, {wanted.split}, {len(images):,} images",
        split=wanted.split,
        data_fingerprint=fingerprint(images.images),
        label_kind=f"random, seed {data.seed}" if random else "given",
        network_protocol={
            "input": "p / 128 - 1",
            "normalized_weights": "as in training",
            **({"other_images": [wanted.split]} if found == OTHER else {}),
        },
        subject=_subject(config, state, checkpoint, {wanted.split: found}),
        class_names=images.classes,
    )


def _subject(
    config: ClassifierConfig, state: ClassifierState, checkpoint: Checkpoint, compared: Mapping[str, str]
) -> dict[str, Any]:
    """Describes the measured network.

    Args:
        compared: result of the comparison with the images of training, by split.
    """
    return {
        "experiment": config.name,
        "identity": config.identity(),
        "classifier": {name: value for name, value in config.classifier.model_dump().items() if value is not None},
        "trained_on_labels": config.data.labels,
        "train_seed": config.train.seed,
        "step": state.step,
        "images": dict(compared),
        "notes": notes_of(compared),
        "checkpoint": str(checkpoint.path),
        "checkpoint_sha256": checkpoint.sha256,
    }
