"""Metrics of a GAN's networks or of a folder of generated images, against the configured real images."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from unicodedata import normalize

import torch
from torch import nn

from evaluation import METRICS, Context, EvaluationError, Report, evaluate
from evaluation.images.generated import chosen_resize, colour_notes, match_classes, name_classes, read_generated
from evaluation.metrics.neural_divergence.unfinished import forget_finished
from evaluation.reporting.plots import plot_curves
from evaluation.runtime.isolation import isolated
from evaluation.runtime.processes import own_part
from gan.build import count_classes, load_state
from gan.config import Config
from gan.measuring.checks import check_evaluation, check_generation, parse_metrics, user_errors
from gan.measuring.real import RealImages
from gan.measuring.sampling import (
    chosen_generator,
    draw_classes,
    drawn_batches,
    eval_mode,
    make_sampler,
    standing_statistics,
)
from gan.runs.checkpoint import Checkpoint
from gan.runs.finding import JSONL
from gan.runtime.distributed import ALONE, Processes
from gan.training.state import TrainState

SHOWN = 10  # classes named in a message


def same_names(names: tuple[str, ...], others: tuple[str, ...]) -> bool:
    """Whether class names are equal under Unicode normalization: file systems differ in the form of accents."""
    return [normalize("NFC", name) for name in names] == [normalize("NFC", name) for name in others]


class Evaluation:
    """Evaluations of several generators with one configuration; they share real images and feature extractors."""

    def __init__(self, config: Config, device: torch.device | str, processes: Processes = ALONE) -> None:
        self.config, self.device, self.processes = config, device, processes
        self.real = RealImages(config, device, processes)

    def of_state(
        self, metrics: list[str], state: TrainState, subject: dict[str, Any], unfinished: Path | None = None
    ) -> Report:
        """Measures the networks of a training state and leaves them unchanged.

        Real images are compared with those of the state's training if `real.expect` was called.

        Args:
            unfinished: folder for saving critics of Neural Divergence, to resume them after an interruption.
        """
        generator = chosen_generator(state, self.config.eval.ema)
        context, shares = self.ready(metrics, state), self.real.shares
        sampler = make_sampler(generator, self.config, state.num_classes, self.device, shares)
        count = _most(metrics, context)
        with isolated(), self._modes(state, generator):  # the protocol says fp32, so no TF32 either
            made: dict[str, Any] = {
                "sampler": sampler,
                "critic": state.discriminator,
                "critic_is_conditional": state.num_classes > 0,
                "protocol": self.generation(state),
                "subject": {**subject, "step": state.step, **self.real.subject},
                "class_names": state.class_names,
                "nd_checkpoints": unfinished,
            }
            if not count:
                return evaluate(metrics, context.of(None, **made))
            part = own_part(count, self.config.eval.batch_size)
            seed = self.config.eval.seed
            batches, labels = drawn_batches(
                generator, self.config, state.num_classes, self.device, shares, count=count, seed=seed, part=part
            )
            return evaluate(metrics, context.of_batches(batches, labels, count=part.stop - part.start, **made))

    @contextmanager
    def _modes(self, state: TrainState, generator: nn.Module) -> Iterator[None]:
        """Context manager: the discriminator in eval mode, the generator with batch-norm statistics by eval.bn_mode."""
        with ExitStack() as stack:
            stack.enter_context(eval_mode(state.discriminator, gradients=True))
            if self.config.eval.bn_mode == "standing":
                shares = self.real.shares
                stack.enter_context(standing_statistics(generator, self.config, state.num_classes, self.device, shares))
            yield

    def _check_classes(self, metrics: list[str], state: TrainState, context: Context) -> None:
        """Raises EvaluationError if labels matter and the classes of the data are not those of the generator."""
        matter = [name for name in metrics if METRICS[name].labels or METRICS[name].critic]
        names, known = context.class_names, state.class_names
        if state.num_classes and matter and names and known and not same_names(names, known):
            raise EvaluationError(
                f"metric {matter[0]}: the data have the classes {', '.join(names[:SHOWN])}, expected those of the "
                f"generator, {', '.join(known[:SHOWN])}, in this order; set data.root to data with these classes"
            )
        shares = self.real.shares
        if shares is not None and len(shares.counts) != state.num_classes:
            raise EvaluationError(
                f"eval.labels=data: the training images have {len(shares.counts)} classes and the generator has "
                f"{state.num_classes}; set data.root to its training images, or eval.labels=balanced"
            )

    def generation(self, state: TrainState) -> dict[str, Any]:
        """Returns the protocol fields of image generation."""
        wanted = self.config.eval
        generator = chosen_generator(state, wanted.ema)
        shares, others = self.real.shares, self.real.others
        return {
            "quantizer": wanted.quantizer,
            "bn_mode": wanted.bn_mode,
            "weights": "ema" if generator is state.average else "raw",
            "labels": wanted.labels if state.num_classes else "none",
            "precision": "fp32",
            "truncation": wanted.truncation or "none",
            "seed": wanted.seed,
            **({"class_counts": shares.counts.tolist()} if shares else {}),
            **({"other_images": others} if others else {}),
        }

    def of_folder(self, metrics: list[str], folder: Path) -> Report:
        """Measures a folder of generated images, shuffled by eval.seed; its sub-folders are classes of the data set."""
        wanted = self.config.eval
        resize = chosen_resize(wanted, self.config.data.image_size)
        made = read_generated(folder, seed=wanted.seed, split=wanted.split, resize=resize)
        needed = any(METRICS[name].labels for name in metrics)

        def with_real(real: Context) -> Context:
            return real.of(
                made.images,
                match_classes(made.labels, made.class_names, real.class_names, folder, needed=needed),
                protocol=made.protocol,
                subject={
                    "generated": str(folder),
                    "split": made.split,
                    "notes": colour_notes(made.images, real.test if real.reference is None else real.reference),
                },
                class_names=real.class_names or name_classes(made.labels, made.class_names),
            )

        return evaluate(metrics, with_real(self.real.prepare(metrics, with_real, real_only=False)))

    def ready(self, metrics: list[str], state: TrainState | None = None) -> Context:
        """Prepares an evaluation of a generator's images, before any of them is generated.

        Args:
            state: networks; None: not known yet, with the classes of the data if they are conditional.

        Raises:
            UserError: see `check_generation`.
            EvaluationError, DataError: see `RealImages.prepare`.
        """
        check_generation(self.config, metrics)
        classes = count_classes(self.config) if state is None else state.num_classes
        shares, wanted = self.real.shares, self.config.eval

        def expected(real: Context) -> Context:
            labels = draw_classes(_most(metrics, real), classes, wanted.labels, wanted.seed, shares)
            return real.of(None, labels, critic_is_conditional=classes > 0)

        context = self.real.prepare(metrics, expected)
        if state is not None:
            self._check_classes(metrics, state, context)
        return context


def _most(metrics: list[str], real: Context) -> int:
    """Returns the number of generated images that the metrics need, without those that they draw themselves."""
    return max((real.required(METRICS[name].images.get("generated", "")) for name in metrics), default=0)


def _unfinished_folder(checkpoint: Path) -> Path:
    """Returns the folder of a checkpoint's partly trained critics, which are deleted after the report is written."""
    return checkpoint.parent.parent / "unfinished"


def evaluate_state(
    names: list[str], evaluation: Evaluation, state: TrainState, checkpoint: Checkpoint | None
) -> Report:
    """Measures a state; with a checkpoint, the report names it and interrupted training of critics is resumed."""
    subject: dict[str, Any] = {"experiment": evaluation.config.name, "identity": evaluation.config.identity()}
    if checkpoint is not None:
        subject |= {"checkpoint": str(checkpoint.path), "checkpoint_sha256": checkpoint.sha256}
    unfinished = None if checkpoint is None else _unfinished_folder(checkpoint.path)
    with user_errors():
        return evaluation.of_state(names, state, subject, unfinished)


def measure_gan(
    config: Config, metrics: str, checkpoint: Checkpoint, device: torch.device, processes: Processes
) -> Report:
    """Measures the networks of a checkpoint."""
    names = parse_metrics(metrics)
    check_evaluation(config)
    state = load_state(checkpoint, config, device)
    evaluation = Evaluation(config, device, processes)
    evaluation.real.expect(state, checkpoint.path, checkpoint.path.parent.parent)
    return evaluate_state(names, evaluation, state, checkpoint)


def finish_gan(checkpoint: Path, report: Path) -> None:
    """Deletes the saved critics of a finished evaluation, and plots the training log into the report."""
    forget_finished(_unfinished_folder(checkpoint))
    with suppress(EvaluationError):  # a checkpoint copied out of its run, or a run without a logged step
        plot_curves(checkpoint.parent.parent / JSONL, report / "curves.png")


__all__ = ["Evaluation", "evaluate_state", "finish_gan", "measure_gan"]
