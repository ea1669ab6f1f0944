"""What stands beside every number whatever it is of: the data, the time, the device."""

import math
from collections.abc import Sequence

from gan.config import Config
from gan.config.classifier import ClassifierConfig
from reproducing.measured import Measured
from reproducing.results import Spread


def title_of(config: Config | ClassifierConfig) -> str:
    """What the data are called."""
    data = config.data
    return data.title or (f"{data.name} {data.root}" if data.name == "folder" else data.name)


def time_of(runs: Sequence[Measured]) -> str:
    """Minutes of training and of evaluation, on average; of training over the runs that were trained by this tool."""
    training = Spread.of([run.training_seconds / 60 for run in runs if run.training_seconds]).mean
    evaluation = Spread.of([run.evaluation_seconds / 60 for run in runs]).mean
    return f"{'not noted' if math.isnan(training) else f'{training:.1f} min'} + {evaluation:.1f} min"


def devices_of(runs: Sequence[Measured]) -> str:
    """Where they trained."""
    return ", ".join(sorted({run.device for run in runs}))
