"""How long runs will take: by what like runs took, or by a few iterations and images tried here."""

import statistics
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from benchmarks.sizes import make_trainer

from evaluation.presets import check_settings
from gan.config import Config
from gan.evaluate import evaluation_settings
from gan.memory import keep_freed_memory
from gan.sample import generate
from reproducing.measured import read_seconds
from reproducing.runs import Run

TRIED = 3  # times, of which the first does not count
CLASSES = 10  # of the random images that iterations are tried on


class Costs(NamedTuple):
    """Seconds of one iteration, and of one generated image."""

    step: float
    image: float


class Estimates:
    """Seconds of training and of evaluation of runs.

    Args:
        runs: those that are planned; what is noted of them counts for all that are like them.
        device: where they will train; there is tried what is not known, on one thread, as several runs at once have.
    """

    def __init__(self, runs: Iterable[Run], device: torch.device) -> None:
        self.device = device
        self._per_step: dict[str, float] = {}
        self._reports: dict[tuple[str, str], list[float]] = {}
        self._tried: dict[str, Costs] = {}
        for run in runs:
            noted = read_seconds(run.folder)
            if run.step and "training" in noted:
                self._per_step[_work(run.config)] = sum(noted["training"]) / run.step
            for name, seconds in noted.items():
                self._reports.setdefault((_work(run.config), name), []).append(sum(seconds))

    def training(self, run: Run) -> float:
        """Of the steps that a run lacks."""
        missing = max(0, run.config.train.steps - (run.step or 0))
        per_step = self._per_step.get(_work(run.config)) if missing else 0.0
        return missing * (self._costs(run.config).step if per_step is None else per_step)

    def evaluation(self, run: Run, metrics: tuple[str, ...]) -> tuple[float, bool]:
        """Of some metrics, and whether that is all: before a like run is measured, generated images' time alone is."""
        found = self._reports.get((_work(run.config), run.report(metrics).name))
        if found:
            return statistics.fmean(found), True
        return num_generated(run.config, metrics) * self._costs(run.config).image, False

    def _costs(self, config: Config) -> Costs:
        work = _work(config)
        if work not in self._tried:
            self._tried[work] = _tried(config, self.device)
        return self._tried[work]


def num_generated(config: Config, metrics: Iterable[str]) -> int:
    """Images that some metrics need; IS and FID share theirs."""
    settings = evaluation_settings(config)
    critics = check_settings(
        settings.nd_preset, steps=settings.nd_steps, samples=settings.nd_samples, num_critics=settings.nd_critics
    )
    shared = {"is": settings.num_is, "fid": settings.num_fid, "intra_fid": CLASSES * settings.num_intra}
    seen = critics.num_critics * critics.steps * critics.batch_size + critics.samples
    counts = {"nd": seen, "elhist": 2 * settings.lipschitz_pairs}
    metrics = list(metrics)
    return max((shared.get(name, 0) for name in metrics), default=0) + sum(counts.get(name, 0) for name in metrics)


def _work(config: Config) -> str:
    """Equal for configurations of which an iteration costs the same, but for the normalization's few per cent."""
    train, name = config.train, config.discriminator.normalization
    penalty = name if name in ("wgan_gp", "ortho") else ""
    parts = (config.conditional, config.data.image_size, config.generator, config.discriminator.name)
    return repr((parts, config.discriminator.channels, penalty, train.batch_size, train.d_steps, train.precision))


def _tried(config: Config, device: torch.device) -> Costs:
    if device.type == "cpu":
        keep_freed_memory()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    trainer = make_trainer(config, str(device), CLASSES if config.conditional else 0)
    latents = torch.randn(config.eval.batch_size, config.generator.z_dim)
    labels = torch.zeros(len(latents), dtype=torch.int64) if config.conditional else None

    def iterate() -> None:
        trainer.train_step()
        trainer.take_scalars()  # waits for a GPU

    def sample() -> None:
        generate(trainer.state.generator, latents, labels, batch_size=len(latents), device=device)

    costs = Costs(_seconds(iterate), _seconds(sample) / len(latents))
    torch.set_num_threads(threads)
    return costs


def _seconds(run: Callable[[], None]) -> float:
    """Of one call, the mean of all but the first."""
    seconds = []
    for _ in range(TRIED):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.fmean(seconds[1:])
