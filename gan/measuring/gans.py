"""Metrics of a GAN's networks, or of generated images, against the data of a configuration."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from evaluation import (
    EXTRACTORS,
    METRICS,
    Context,
    EvaluationError,
    Report,
    Sources,
    build_extractors,
    evaluate,
    read_statistics,
)
from evaluation.extractors import Extractor
from evaluation.images.cache import Cache, default_folder
from evaluation.images.generated import match_classes, name_classes, read_generated
from evaluation.metrics.needs import Metric, check_needs
from evaluation.metrics.neural_divergence.unfinished import forget_finished
from evaluation.reporting.plots import plot_curves
from evaluation.runtime.isolation import isolated
from evaluation.runtime.processes import own_part
from gan.build import load_images, load_state
from gan.config import Config
from gan.data import ImageData
from gan.errors import DataError
from gan.measuring.checks import check_evaluation, one_sentence, parse_metrics
from gan.runs.checkpoint import Checkpoint
from gan.runs.logger import JSONL
from gan.runtime.distributed import ALONE, Processes
from gan.sampling import chosen_generator, drawn_batches, eval_mode, make_sampler, standing_statistics
from gan.training.state import TrainState


class GanMeasuring:
    """Evaluation of a GAN's checkpoint; see gan.measuring.checkpoints.Measuring."""

    def __init__(self, config: Config, device: torch.device, processes: Processes) -> None:
        self.config, self.device, self.processes = config, device, processes

    @staticmethod
    def registries() -> Mapping[str, Iterable[str]]:
        return {"--metrics": METRICS, "eval.extractor": EXTRACTORS}

    def names(self, text: str) -> list[str]:
        names = parse_metrics(text)
        check_evaluation(self.config)
        return names

    def measure(self, names: list[str], checkpoint: Checkpoint) -> Report:
        state = load_state(checkpoint, self.config, self.device)
        return evaluate_state(names, Evaluation(self.config, self.device, self.processes), state, checkpoint.path)

    def finish(self, checkpoint: Path, report: Path) -> None:
        """Removes unfinished critics, which the report replaces, and plots the log of training."""
        forget_finished(_unfinished_folder(checkpoint))
        with suppress(EvaluationError):  # a checkpoint copied out of its run, or a run without a logged step
            plot_curves(checkpoint.parent.parent / JSONL, report / "curves.png")


class Evaluation:
    """The real images and the extractor of a configuration, loaded when first needed and kept."""

    def __init__(self, config: Config, device: torch.device | str, processes: Processes = ALONE) -> None:
        self.config, self.device, self.processes = config, device, processes
        self._images: dict[str, ImageData] = {}
        self._extractors: tuple[Extractor, ...] = ()
        self._context: Context | None = None  # of real images, whose features are kept between evaluations
        self._prepared: set[str] = set()

    def images(self, split: str) -> ImageData:
        if split not in self._images:
            with self.processes.one_first():
                self._images[split] = load_images(self.config, split)
        return self._images[split]

    def extractors(self) -> tuple[Extractor, ...]:
        if not self._extractors:
            wanted = self.config.eval
            train, test = None, None
            if "classifier" in wanted.extractor:
                train, test = self.images("train"), self._test_or_none()
            sources = Sources(
                device=self.device,
                weights=Path(wanted.inception_weights) if wanted.inception_weights else None,
                clip_weights=Path(wanted.clip_weights) if wanted.clip_weights else None,
                classifier_weights=Path(wanted.classifier_weights) if wanted.classifier_weights else None,
                images=train.images if train else None,
                labels=train.labels if train else None,
                test_images=test.images if test else None,
                test_labels=test.labels if test else None,
            )
            with self.processes.one_first():
                self._extractors = build_extractors(wanted.extractor, sources)
            for extractor in self._extractors:
                self.processes.check_equal(extractor.fingerprint, f"the fingerprint of extractor {extractor.name}")
        return self._extractors

    def _test_or_none(self) -> ImageData | None:
        """The test split for the classifier's recorded accuracy; a data set without one has no such record."""
        try:
            return self.images("test")
        except DataError:
            return None

    def of_state(
        self, metrics: list[str], state: TrainState, subject: dict[str, Any], unfinished: Path | None = None
    ) -> Report:
        """Metrics of a training state's networks; they are left as found.

        Args:
            unfinished: folder for critics that an interruption may leave unfinished.
        """
        generator = chosen_generator(state, self.config.eval.ema)
        sampler = make_sampler(generator, self.config, state.num_classes, self.device)
        context = self.ready(metrics)
        count = max((context.required(METRICS[name].images.get("generated", "")) for name in metrics), default=0)
        with isolated(), self._modes(state, generator):  # the protocol says fp32, so no TF32 either
            made: dict[str, Any] = {
                "sampler": sampler,
                "critic": state.discriminator,
                "critic_is_conditional": state.num_classes > 0,
                "protocol": self._generation(state, generator),
                "subject": {**subject, "step": state.step},
                "class_names": state.class_names,
                "nd_checkpoints": unfinished,
            }
            if not count:
                return evaluate(metrics, context.of(None, **made))
            part = own_part(count, self.config.eval.batch_size)
            batches, labels = drawn_batches(
                generator,
                self.config,
                state.num_classes,
                self.device,
                count=count,
                seed=self.config.eval.seed,
                part=part,
            )
            return evaluate(metrics, context.of_batches(batches, labels, count=part.stop - part.start, **made))

    @contextmanager
    def _modes(self, state: TrainState, generator: nn.Module) -> Iterator[None]:
        """The discriminator in eval mode, the generator's batch-norm statistics as eval.bn_mode says."""
        with ExitStack() as stack:
            stack.enter_context(eval_mode(state.discriminator, gradients=True))
            if self.config.eval.bn_mode == "standing":
                stack.enter_context(standing_statistics(generator, self.config, state.num_classes, self.device))
            yield

    def _generation(self, state: TrainState, generator: nn.Module) -> dict[str, Any]:
        """Protocol fields of image generation."""
        wanted = self.config.eval
        return {
            "quantizer": wanted.quantizer,
            "bn_mode": wanted.bn_mode,
            "weights": "ema" if generator is state.average else "raw",
            "labels": wanted.labels if state.num_classes else "none",
            "precision": "fp32",
            "truncation": wanted.truncation or "none",
            "seed": wanted.seed,
        }

    def of_folder(self, metrics: list[str], folder: Path) -> Report:
        """Metrics of a folder of generated images, shuffled by eval.seed, its sub-folders the data set's classes."""
        images, labels, class_names, protocol = read_generated(folder, seed=self.config.eval.seed)
        real = self.prepare(metrics)
        needed = any(METRICS[name].labels for name in metrics)
        context = real.of(
            images,
            match_classes(labels, class_names, real.class_names, folder, needed=needed),
            protocol=protocol,
            subject={"generated": str(folder)},
            class_names=real.class_names or name_classes(labels, class_names),
        )
        return evaluate(metrics, context)

    def ready(self, metrics: list[str]) -> Context:
        """Prepares an evaluation of a generator's images; see `prepare`.

        Raises:
            EvaluationError: also if a metric needs classes that the generator does not know.
        """
        for name in metrics:
            self._check_labels(name)
            for setting in {"num_fid", "num_is", "num_intra"} & set(METRICS[name].images.values()):
                if not self.config.eval.number(setting):
                    raise EvaluationError(
                        f"metric {name}: got eval.{setting}=0, which means all images there are, "
                        "expected a number, since a generator has no end of them"
                    )
        return self.prepare(metrics)

    def _check_labels(self, name: str) -> None:
        """Refuses a metric of images by class whose classes the generator does not know, or leaves to chance."""
        if not METRICS[name].labels:
            return
        if not self.config.conditional:
            raise EvaluationError(
                f"metric {name}: got an unconditional generator, expected images of known classes; "
                "leave the metric out, or train with conditional=true"
            )
        if self.config.eval.labels != "balanced":
            raise EvaluationError(
                f"metric {name}: got eval.labels={self.config.eval.labels}, whose class counts are left to chance, "
                "expected as many images of each class: set eval.labels=balanced"
            )

    def prepare(self, metrics: list[str]) -> Context:
        """Real images, extractors and settings, loaded and checked before any image is generated.

        Raises:
            EvaluationError, DataError: something that one of the metrics needs is missing.
        """
        needs = {name: METRICS[name] for name in metrics}
        if self._context is None or set(metrics) - self._prepared:
            self._context, self._prepared = self._load(needs), set(metrics)
        for name, need in needs.items():
            check_needs(name, need, self._context, real_only=True)
        return self._context

    def _load(self, needs: dict[str, Metric]) -> Context:
        wanted = self.config.eval
        statistics = read_statistics(wanted.reference_statistics) if wanted.reference_statistics else None
        pictured = [need for need in needs.values() if not (need.statistics and statistics)]
        roles = {role for need in pictured for role in need.images}
        split = wanted.split
        reference = self.images(split) if "reference" in roles else None
        critical = any(need.critic for need in needs.values())
        test = self.images("test") if "test" in roles else self._test_or_none() if critical else None
        trained_on = self.images("train") if critical and split != "train" else None
        title = self.config.data.shown
        classes = next((images.classes for images in (reference, test) if images is not None), ())
        return Context(
            reference=reference.images if reference else None,
            reference_labels=reference.labels if reference else None,
            test=test.images if test else None,
            test_labels=test.labels if test else None,
            trained_on=trained_on.images if trained_on else None,
            trained_on_labels=trained_on.labels if trained_on else None,
            statistics=statistics,
            extractor=self.extractors() if any(need.extractor for need in needs.values()) else None,
            settings=wanted,
            device=self.device,
            title=title,
            reference_name=f"{title}, {split}",
            test_name=f"{title}, test",
            class_names=classes if len(classes) > 1 else (),  # data without classes have one, of any name
            cache=Cache(default_folder()) if wanted.cache else None,
        )


def _unfinished_folder(checkpoint: Path) -> Path:
    """Folder of a checkpoint's unfinished critics, which are kept until their report is written."""
    return checkpoint.parent.parent / "unfinished"


def evaluate_state(names: list[str], evaluation: Evaluation, state: TrainState, checkpoint: Path | None) -> Report:
    """Metrics of a state, with the checkpoint it came from on record; critics are resumed where one is given."""
    subject: dict[str, Any] = {"experiment": evaluation.config.name, "identity": evaluation.config.identity()}
    if checkpoint is not None:
        digest = evaluation.processes.first(lambda: hashlib.sha256(checkpoint.read_bytes()).hexdigest())
        subject |= {"checkpoint": str(checkpoint), "checkpoint_sha256": digest}
    unfinished = None if checkpoint is None else _unfinished_folder(checkpoint)
    with one_sentence():
        return evaluation.of_state(names, state, subject, unfinished)
