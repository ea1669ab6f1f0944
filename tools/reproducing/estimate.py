"""How long runs will take, by what like runs took, or by a few iterations tried here."""

import statistics
import time
from collections.abc import Iterable

import torch

from gan import build
from gan.config import Config
from gan.data import ImageData
from gan.memory import keep_freed_memory
from gan.trainer import Trainer
from reproducing.measured import read_seconds
from reproducing.runs import Run

TRIED = 3  # iterations, of which the first does not count
CLASSES = 10  # of the random images that iterations are tried on
IMAGES = 256


class Estimates:
    """Seconds of training and of evaluation of runs.

    Args:
        runs: those that are planned; what is noted of them counts for all that are like them.
        device: where they will train; there iterations are tried, on one thread, as several runs at once have.
    """

    def __init__(self, runs: Iterable[Run], device: torch.device) -> None:
        self.device = device
        self._per_step: dict[str, float] = {}
        self._reports: dict[tuple[str, str], list[float]] = {}
        for run in runs:
            noted = read_seconds(run.folder)
            if run.step and "training" in noted:
                self._per_step[_work(run.config)] = sum(noted["training"]) / run.step
            for name, seconds in noted.items():
                self._reports.setdefault((_work(run.config), name), []).append(sum(seconds))

    def training(self, run: Run) -> float:
        """Of the steps that a run lacks."""
        missing = max(0, run.config.train.steps - (run.step or 0))
        if not missing:
            return 0.0
        work = _work(run.config)
        if work not in self._per_step:
            self._per_step[work] = _tried(run.config, self.device)
        return missing * self._per_step[work]

    def evaluation(self, run: Run, metrics: tuple[str, ...]) -> float | None:
        """Of some metrics; None before a like run was measured."""
        found = self._reports.get((_work(run.config), run.report(metrics).name))
        return statistics.fmean(found) if found else None


def _work(config: Config) -> str:
    """Equal for configurations of which an iteration costs the same, but for the normalization's few per cent."""
    train, penalty = config.train, config.discriminator.normalization in ("wgan_gp", "ortho")
    parts = (config.conditional, config.data.image_size, config.generator, config.discriminator.name)
    return repr((parts, config.discriminator.channels, penalty, train.batch_size, train.d_steps, train.precision))


def _tried(config: Config, device: torch.device) -> float:
    """Seconds of one iteration on random images."""
    if device.type == "cpu":
        keep_freed_memory()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    trainer = _trainer(config, device)
    seconds = []
    for _ in range(TRIED):
        start = time.perf_counter()
        trainer.train_step()
        trainer.take_scalars()  # waits for a GPU
        seconds.append(time.perf_counter() - start)
    torch.set_num_threads(threads)
    return statistics.fmean(seconds[1:])


def _trainer(config: Config, device: torch.device) -> Trainer:
    size = config.data.image_size
    images = torch.randint(0, 256, (IMAGES, 3, size, size), dtype=torch.uint8)
    classes = tuple(map(str, range(CLASSES)))
    data = ImageData(images, torch.arange(IMAGES) % CLASSES, classes, "random", "train")
    return Trainer(
        build.build_state(config, device, CLASSES if config.conditional else 0),
        build.build_batches(config, data, device),
        build.build_loss(config),
        config.train,
        z_dim=config.generator.z_dim,
        batched=device.type == "cuda",
    )
