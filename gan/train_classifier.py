"""gan-train-classifier: trains an image classifier from a configuration."""

from typing import Any

import click

from gan.command import Command
from gan.command.options import TRAINING, TrainingOptions, with_options
from gan.command.training import train_command
from gan.config.classifier import ClassifierConfig

EXAMPLES = """
Examples:

  gan-train-classifier --config classifier_cifar100_resnet --with srn30   the paper's ResNet-110 with SRN-30, into runs/
  gan-train-classifier --config classifier_cifar10_small_resnet --run runs/mine     ResNet-20, minutes on a CPU
  gan-train-classifier --config classifier_cifar10_small_resnet --set data.labels=random   random labels
  gan-train-classifier --run runs/mine --resume                     continues bit for bit
  gan-train-classifier --config classifier_smoke --seeds 0,1,2      three runs, several in parallel on one device
  gan-train-classifier --config classifier_smoke --sweep train.learning_rate=0.1,0.01 --seeds 0-2   six runs
  gan-train-classifier --config classifier_smoke --set train.stop_accuracy=0.5 --set train.epochs=100   stops at 50%
  gan-eval-classifier --run runs/mine                               margins, complexities, spectra
  tensorboard --logdir runs                                         shows the curves
"""


@click.command(cls=Command, epilog=EXAMPLES)
@with_options(*TRAINING)
def main(**options: Any) -> None:
    """Train an image classifier, with or without weight normalization.

    The run folder holds its configuration, checkpoints, metrics.jsonl, TensorBoard events and reports.
    """
    train_command(ClassifierConfig, "gan-train-classifier", "gan.train_classifier", TrainingOptions(**options))


if __name__ == "__main__":
    main(prog_name="gan-train-classifier")
