"""Converts a ResNet trained by gan-train-classifier into a feature extractor for GAN evaluation.

\b
Example: train the classifier, make the extractor, evaluate a GAN with it
    gan-train-classifier --config classifier_cifar10_jpeg_resnet20 --run runs/resnet20
    python tools/make_extractor.py --run runs/resnet20 --out own.safetensors
    gan-eval --metrics fid,is --run runs/mine --set eval.extractor=resnet --set eval.classifier_weights=own.safetensors

The file holds float16 weights with normalization and batch norm folded in. It is written only if the float16 network
agrees with the classifier on random images and on the test split.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from evaluation.errors import EvaluationError
from evaluation.extractors.resnet import ResNetExtractor, Weights, write_weights
from evaluation.runtime.isolation import isolated
from gan.build_classifier import classifier_config, load_classifier_state, load_labelled_images
from gan.command import Command
from gan.config.classifier import ClassifierConfig
from gan.data import ImageData
from gan.data.pixels import to_float
from gan.errors import ConfigError
from gan.models.classifiers import ResNet
from gan.normalization import bake
from gan.runs.checkpoint import read_checkpoint
from gan.training.state import ClassifierState

BATCH_SIZE = 200
RANDOM_IMAGES = 200
TOLERANCE = 0.01  # maximum difference of logits, relative to the largest logit
CHANGED = 0.002  # maximum share of changed predictions on the test images; float16 breaks some ties differently


class Agreement(NamedTuple):
    """Comparison of the exported network's logits and predictions with the classifier's.

    deviation: largest absolute difference of logits.
    largest: largest absolute logit of the classifier.
    changed: number of predictions that differ.
    right, right_before: numbers of right predictions of the exported network and of the classifier.
    """

    deviation: float
    largest: float
    changed: int
    right: int
    right_before: int


class Exported(NamedTuple):
    """An exported extractor.

    num_bytes: size of its file.
    on_test: agreement on all `num_test` test images.
    """

    name: str
    fingerprint: str
    num_bytes: int
    num_test: int
    on_test: Agreement


def export(network: nn.Module, test: ImageData, *, record: dict[str, str | int | float], out: Path) -> Exported:
    """Writes an extractor's file if its float16 network agrees with `network`.

    Args:
        network: `gan.models.classifiers.ResNet`, normalized or not; it is not changed.
        test: test images, of the size that the network was trained on.
        record: plain values for reports, to which the test accuracy is added.

    Raises:
        ConfigError: the network is not a ResNet, or its predictions change too much in float16.
        EvaluationError: weights are out of float16's range, or reports cannot show the record.
        OSError: the file cannot be written.
    """
    if not isinstance(network, ResNet):
        raise ConfigError(
            f"the classifier is a {type(network).__name__}, expected a ResNet; train one with classifier.name=resnet"
        )
    plain = bake(network).cpu().eval()
    assert isinstance(plain, ResNet)
    weights = rounded(plain, test.image_size)
    extractor = ResNetExtractor(weights)
    random = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (RANDOM_IMAGES, *test.images.shape[1:]), dtype=torch.uint8, generator=random)
    _check_logits(compared(plain, extractor, noise, torch.zeros(len(noise), dtype=torch.int64)), "random images")
    on_test = compared(plain, extractor, test.images, test.labels)
    _check_logits(on_test, "the test images")
    if on_test.changed > max(1, CHANGED * len(test)):
        raise ConfigError(
            f"in float16 {on_test.changed} of {len(test)} predictions on the test images change, expected at most "
            f"{CHANGED:.1%}; train for longer, or with weight decay"
        )
    found = {"test_images": len(test), "test_accuracy": on_test.right / len(test)}
    write_weights(out, replace(weights, record={**record, **found}))
    return Exported(extractor.name, extractor.fingerprint, out.stat().st_size, len(test), on_test)


def rounded(network: ResNet, image_size: int) -> Weights:
    """Extractor weights of a network in eval mode without normalization: batch norms folded, in float16.

    Raises:
        EvaluationError: weights are out of float16's range.
    """
    return Weights(
        depth=2 * len(network.blocks) + 2,
        channels=network.conv.out_channels,
        num_classes=network.linear.out_features,
        image_size=image_size,
        state={name: tensor.half().contiguous() for name, tensor in folded(network).items()},
    )


def folded(network: ResNet) -> dict[str, Tensor]:
    """Float32 weights with batch norms folded in, by the names of `evaluation.extractors.resnet.shapes`."""
    state: dict[str, Tensor] = {}

    def fold(name: str, convolution: Any, norm: Any) -> None:
        both = fuse_conv_bn_eval(convolution, norm)
        state[f"{name}.weight"], state[f"{name}.bias"] = both.weight.detach(), both.bias.detach()

    fold("conv", network.conv, network.bn)
    block: Any
    for index, block in enumerate(network.blocks):
        fold(f"blocks.{index}.conv1", block.conv1, block.bn1)
        fold(f"blocks.{index}.conv2", block.conv2, block.bn2)
        if len(block.shortcut):
            fold(f"blocks.{index}.shortcut", *block.shortcut)
    state["linear.weight"], state["linear.bias"] = network.linear.weight.detach(), network.linear.bias.detach()
    return state


def compared(network: nn.Module, extractor: ResNetExtractor, images: Tensor, labels: Tensor) -> Agreement:
    """Compares both networks on uint8 images."""
    deviation, largest, changed, right, right_before = 0.0, 0.0, 0, 0, 0
    with isolated(), torch.inference_mode():
        for batch, truth in zip(images.split(BATCH_SIZE), labels.split(BATCH_SIZE), strict=True):
            before, (_, after) = network(to_float(batch)), extractor(batch)
            deviation = max(deviation, float((after - before).abs().max()))
            largest = max(largest, float(before.abs().max()))
            answers, answers_before = after.argmax(1), before.argmax(1)
            changed += int((answers != answers_before).sum())
            right, right_before = (
                right + int((answers == truth).sum()),
                right_before + int((answers_before == truth).sum()),
            )
    return Agreement(deviation, largest, changed, right, right_before)


def _check_logits(found: Agreement, images: str) -> None:
    if not found.deviation <= TOLERANCE * found.largest:
        raise ConfigError(
            f"in float16 logits of {images} change by up to {found.deviation:.2g}, where the largest is "
            f"{found.largest:.2g}, expected at most {TOLERANCE:.0%} of it; train for longer, or with weight decay"
        )


def describe(config: ClassifierConfig, state: ClassifierState) -> dict[str, str | int | float]:
    """Description of the extractor's training for reports."""
    return {
        "data": config.data.shown,
        "data_fingerprint": state.data_fingerprint,
        "labels": config.data.labels,
        "experiment": config.name,
        "identity": config.identity(),
        "normalization": config.classifier.normalization,
        "seed": config.train.seed,
        "steps": state.step,
    }


@click.command(cls=Command, help=__doc__, context_settings={"max_content_width": 120})
@click.option("--run", required=True, type=click.Path(path_type=Path), help="Run folder or checkpoint of a classifier.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Extractor file to write.")
@click.option("--data-root", default="", help="Folder or archive of the data. [default: data.root of the run]")
def main(run: Path, out: Path, data_root: str) -> None:
    """Write a trained classifier as a feature extractor, and compare it with the original."""
    checkpoint = read_checkpoint(run)
    config = classifier_config(checkpoint)
    state = load_classifier_state(checkpoint, config)
    placed = config.data.model_copy(update={"root": data_root or config.data.root})
    test = load_labelled_images(config.model_copy(update={"data": placed}), "test")
    if state.class_names and test.classes != state.class_names:
        raise ConfigError(
            f"the test images at {placed.root} have the classes {', '.join(test.classes)}, expected those of training: "
            f"{', '.join(state.class_names)}; set --data-root to the right data"
        )
    try:
        made = export(state.network.eval(), test, record=describe(config, state), out=out)
    except EvaluationError as error:
        raise ConfigError(f"{checkpoint.path}: {error}") from None
    found, count = made.on_test, made.num_test
    click.echo(f"{made.name}: {out}, {made.num_bytes / 2**20:.2f} MiB, weights {made.fingerprint}")
    click.echo(
        f"test accuracy {found.right / count:.2%} on {count:,} images, {found.right_before / count:.2%} before "
        f"rounding to float16; {found.changed} predictions changed, and logits by at most {found.deviation:.2g} of "
        f"{found.largest:.3g}"
    )


if __name__ == "__main__":
    main()
