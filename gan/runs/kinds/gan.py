"""Runs of gan-train."""

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor

from gan import build
from gan.config import Config
from gan.data import ImageData
from gan.measuring.checks import check_evaluation, registries
from gan.measuring.evaluator import evaluator
from gan.noise import attempt_seed
from gan.pixels import image_grid
from gan.runs.checkpoint import Checkpoint
from gan.runs.folder import steps_to_go_back_to
from gan.runs.kinds import Run, State
from gan.runs.logger import GAN, evaluated
from gan.runs.summary import summarize
from gan.runtime.distributed import Processes
from gan.runtime.profiling import traced
from gan.sampling import GRID_ROWS, fixed_samples
from gan.training.graph import choose_step
from gan.training.health import spread
from gan.training.log import Log
from gan.training.state import TrainState
from gan.training.trainer import Trainer, evaluation_due


class GanRuns:
    """Training of a GAN; see gan.runs.kinds.Kind."""

    command = "gan-train"
    next_commands = ("gan-eval", "gan-sample")
    scalars = GAN

    def __init__(self, config: Config) -> None:
        self.config = config

    @staticmethod
    def registries() -> Mapping[str, Iterable[str]]:
        return {**build.REGISTRIES, **registries()}

    def check(self) -> None:
        build.check_names(self.config)
        check_evaluation(self.config)

    def check_processes(self, count: int) -> None:
        Processes(count=count).check_batch(self.config.train.batch_size)

    def load_images(self) -> ImageData:
        return build.load_images(self.config, "train")

    def build_state(self, images: ImageData | None = None, device: torch.device | str = "cpu") -> TrainState:
        state = build.build_state(self.config, device, build.count_classes(self.config, images))
        if images is not None:
            state.data_fingerprint = images.fingerprint
            state.class_names = images.classes if self.config.conditional else ()
        return state

    def load_state(self, checkpoint: Checkpoint, device: torch.device | str = "cpu") -> TrainState:
        return build.load_state(checkpoint, self.config, device)

    def is_complete(self, folder: Path, state: State) -> bool:
        """Whether all steps are done, and the evaluation after the last one."""
        train, step = self.config.train, state.step
        return step >= train.steps and (evaluated(folder, step) or not evaluation_due(train, step))

    def summary(self, state: TrainState) -> str:
        config, train = self.config, self.config.train
        networks = {"generator": state.generator, "discriminator": state.discriminator}
        size = config.data.image_size
        classes = f", {state.num_classes} classes" if state.num_classes else ", unconditional"
        lines = summarize(config, f"{config.data.name} {size}x{size}", networks, classes)
        if train.lr_decay != "none" and train.lr_decay_start >= train.steps:
            lines.append(
                f"the learning rate stays as it is: train.lr_decay_start, {train.lr_decay_start}, is not before the "
                f"last step, {train.steps}"
            )
        return "\n".join(lines)

    def begin(self, run: Run, state: TrainState) -> "GanAttempt":
        return GanAttempt(self.config, run, state)


class GanAttempt:
    """Training of a GAN from one state; see gan.runs.kinds.Attempt."""

    def __init__(self, config: Config, run: Run, state: TrainState) -> None:
        self.config, self.folder, self.state, self.processes = config, run.folder, state, run.processes
        run.processes.equalize_(state.tensors())
        seed = attempt_seed(config.train.seed, len(state.retries))
        settings = config.train.model_copy(update={"seed": seed})
        self.trainer = Trainer(
            state,
            build.build_batches(config.model_copy(update={"train": settings}), run.images, run.device, run.processes),
            build.build_loss(config),
            settings,
            z_dim=config.generator.z_dim,
            batched=run.device.type == "cuda",  # where launches, not arithmetic, are what normalization costs
            processes=run.processes,
        )
        step = choose_step(self.trainer, build.second_derivatives(config))
        self.train_step, self.method, self.remarks = step.train_step, step.name, [step.name]
        self.steps, self.images_per_step, self.length = settings.steps, settings.d_steps * settings.batch_size, ""
        self.profile = run.profile and run.processes.is_first
        self.sample = _sampler(config, state, run.images)

    def run(self, logger: Log, save: Callable[[], Path], stop: Callable[[int], str]) -> str:
        config, folder, state = self.config, self.folder, self.state
        evaluate = None
        if config.train.eval_every:
            may_retry = len(state.retries) < config.train.retries
            back_to = (lambda: steps_to_go_back_to(folder)) if may_retry else list
            evaluate = evaluator(config, folder, state, self.processes, back_to=back_to, say=logger.say)
        profiled = (
            traced(self.state.totals.device, self.train_step, folder / "profile", logger.say) if self.profile else None
        )
        with profiled or nullcontext(self.train_step) as train_step:
            return self.trainer.run(
                logger, save=save, sample=self.sample, evaluate=evaluate, stop=stop, train_step=train_step
            )

    def ending(self) -> str:
        return ""


def _sampler(config: Config, state: TrainState, images: ImageData) -> Callable[[], tuple[Tensor, float]]:
    """Draws the sample grid, uint8 (3, H, W), and its spread in units of the spread of about 1000 real images."""
    real = spread(images.images[:: max(1, len(images.images) // 1000)].unsqueeze(0)) if len(images.images) > 1 else 0.0

    def sample() -> tuple[Tensor, float]:
        rows = fixed_samples(config, state)
        return image_grid(rows.flatten(0, 1), GRID_ROWS), spread(rows) / real if real else math.inf

    return sample


__all__ = ["GanRuns"]
