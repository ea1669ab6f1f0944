"""Generalization measures of a classifier's checkpoint."""

import hashlib

import torch

from evaluation import Report
from evaluation.generalization import check_measures, measure
from evaluation.images.checks import fingerprint
from gan import build_classifier
from gan.config.classifier import ClassifierConfig
from gan.errors import ConfigError
from gan.pixels import to_float
from gan.runs.checkpoint import Checkpoint
from gan.runs.folder import check_images_of
from gan.runtime.distributed import Processes


def measure_classifier(
    config: ClassifierConfig, metrics: str, checkpoint: Checkpoint, device: torch.device, processes: Processes
) -> Report:
    """Measures the network of a checkpoint on the configured images and labels.

    Raises:
        CheckpointError: the images of the training split are not those the network was trained on.
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
    if wanted.split == "train":
        check_images_of(checkpoint.path, state.data_fingerprint, images.fingerprint, data.root)
    build_classifier.check_classes(config, state, images)
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
