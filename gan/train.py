"""gan-train: trains a GAN from a configuration."""

from typing import Any

import click

from gan.command import Command
from gan.command.options import PROFILE, START, TRAINING, TrainingOptions, with_options
from gan.command.training import train_command
from gan.config import Config

EXAMPLES = """
Examples:

  gan-train --config cifar10_srn70.yaml                    the paper's SRN-70 on CIFAR-10, into runs/
  gan-train --config shapes_srn70 --run runs/mine          a data set of drawn shapes, which needs no download
  gan-train --config smoke --set train.steps=20            settings changed from the command line
  gan-train --run runs/mine --resume                       continues bit for bit
  gan-train --run runs/mine --resume --set train.steps=100000   prolongs it, before its learning rate decays
  gan-train --config celeba_sn --from runs/mine            begins with the networks of another run
  gan-train --config cifar10_srn70 --resume --max-minutes 55   for jobs with a time limit; repeat until done
  gan-train --config celeba_sn --with srn70 --dry-run      builds the networks without training
  gan-train --config cifar10_sn --config cifar10_srn70 --seeds 0,1,2   six runs, several in parallel on one device
  gan-train --config smoke --sweep train.learning_rate=1e-4,2e-4 --sweep train.d_steps=1,5 --dry-run   lists four runs
  tensorboard --logdir runs                                shows the curves
"""


@click.command(cls=Command, epilog=EXAMPLES)
@with_options(*TRAINING, START, PROFILE)
def main(**options: Any) -> None:
    """Train a GAN whose discriminator's weights are normalized.

    The run folder holds its configuration, checkpoints, metrics.jsonl, TensorBoard events, sample grids and reports.
    """
    train_command(Config, "gan-train", "gan.train", TrainingOptions(**options))


if __name__ == "__main__":
    main(prog_name="gan-train")
