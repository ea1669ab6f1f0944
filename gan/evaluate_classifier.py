"""gan-eval-classifier: computes generalization measures of a trained classifier."""

from typing import Any

import click

from gan.command import Command
from gan.command.evaluation import evaluation_command
from gan.command.options import EVALUATION, EvaluationOptions, with_options
from gan.config.classifier import ClassifierConfig

EXAMPLES = """
Examples:

  gan-eval-classifier                                     the newest classifier under ./runs
  gan-eval-classifier --run runs/mine --metrics accuracy,complexity,noise,local,global,spectra
  gan-eval-classifier --run runs/mine --set eval.split=test --set eval.num_points=1000
  gan-eval-classifier --compare runs/sn runs/srn50        newest reports side by side: table, plots, page
"""


@click.command(cls=Command, epilog=EXAMPLES)
@with_options(*EVALUATION)
def main(**options: Any) -> None:
    """Measure a classifier: accuracy, margins, complexities, noise sensitivity, Lipschitz constants, spectra."""
    evaluation_command(ClassifierConfig, EvaluationOptions(**options))


if __name__ == "__main__":
    main(prog_name="gan-eval-classifier")
