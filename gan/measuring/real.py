"""Real images and feature extractors of a configuration, with which generated images are compared."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from evaluation import METRICS, Context, EvaluationError, Sources, build_extractors, read_statistics
from evaluation.extractors import Extractor
from evaluation.images.cache import default_cache
from evaluation.metrics.needs import Metric, check_extractors, check_images
from evaluation.statistics.moments_file import Origin
from evaluation.statistics.reference import check_writing, write_reference
from gan.build import load_images
from gan.config import Config
from gan.data import ImageData
from gan.errors import DataError
from gan.noise import ClassShares
from gan.runs.recorded import ANYWAY, OTHER, RecordedImages, notes_of, recorded_fingerprints
from gan.runtime.distributed import Processes
from gan.training.state import TrainState


class RealImages:
    """Real images and feature extractors of a configuration, loaded on first use and kept."""

    def __init__(self, config: Config, device: torch.device | str, processes: Processes) -> None:
        self.config, self.device, self.processes = config, device, processes
        self._images: dict[str, ImageData] = {}
        self._extractors: tuple[Extractor, ...] = ()
        self._context: Context | None = None  # keeps the features of real images between evaluations
        self._prepared: set[str] = set()
        self._recorded: RecordedImages | None = None
        self.compared: dict[str, str] = {}
        """Result of the comparison with the images of a run's training, for each split that was read."""

    def expect(self, state: TrainState, place: Path, run: Path) -> None:
        """Compares splits with the images of a run: those already read now, others as soon as they are read.

        Args:
            place: checkpoint or run folder, for messages.
            run: folder of the run.

        Raises:
            CheckpointError: other images than those of the run, and eval.other_images is not set.
        """
        self._recorded = RecordedImages.of(recorded_fingerprints(state), place, run)
        self.compared = {}
        for split in self._images:
            self._compare(split)

    def prepare(self, metrics: list[str], expected: Callable[[Context], Context], *, real_only: bool = True) -> Context:
        """Loads and checks real images and settings, then extractors, before any image is generated.

        Args:
            expected: adds to the real images what is known of the generated ones.
            real_only: see `check_images`.

        Raises:
            EvaluationError, DataError: something that a metric needs is missing or does not fit.
        """
        needs = {name: METRICS[name] for name in metrics}
        if self._context is None or set(metrics) - self._prepared:
            self._context, self._prepared = self._load(needs), set(metrics)
        context = expected(self._context)
        for name, need in needs.items():
            check_images(name, need, context, real_only=real_only)
        if any(need.extractor for need in needs.values()) and not self._context.extractors:
            self._context = self._context.of(None, extractor=self._load_extractors())
        context = expected(self._context)
        for name, need in needs.items():
            check_extractors(name, need, context)
        return self._context

    def _load(self, needs: dict[str, Metric]) -> Context:
        wanted = self.config.eval
        statistics = read_statistics(wanted.reference_statistics) if wanted.reference_statistics else None
        pictured = [need for need in needs.values() if not (need.statistics and statistics)]
        roles = {role for need in pictured for role in need.images_for(wanted)}
        split = wanted.split
        critical = any(need.critic for need in needs.values())
        if critical or "trained_on" in roles:
            roles.add("reference" if split == "train" else "trained_on")
        reference = self._load_images(split) if "reference" in roles else None
        test = self._load_images("test") if "test" in roles else self._test_or_none() if critical else None
        trained_on = self._load_images("train") if "trained_on" in roles and split != "train" else None
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
            settings=wanted,
            device=self.device,
            title=title,
            reference_name=_described(title, split, reference),
            test_name=_described(title, "test", test),
            class_names=classes if len(classes) > 1 else (),  # data without classes have a single one
            cache=default_cache() if wanted.cache else None,
            image_size=(self.config.data.image_size,) * 2,
        )

    def write_statistics(self, file: Path) -> Origin:
        """Writes the statistics of the reference images with which FID compares.

        Raises:
            EvaluationError, DataError: see `prepare`; or the reference is statistics, or the file cannot be written.
        """
        if self.config.eval.reference_statistics:
            raise EvaluationError("--write-statistics: got eval.reference_statistics, expected images as the reference")
        check_writing(self.config.eval, file)
        return write_reference(self.prepare(["fid"], lambda real: real), file)

    @property
    def others(self) -> list[str]:
        """Splits that are other images than in training."""
        return sorted(split for split, found in self.compared.items() if found == OTHER)

    @property
    def subject(self) -> dict[str, Any]:
        """Results of the comparison for a report's subject."""
        return {"images": dict(self.compared), "notes": notes_of(self.compared)}

    @cached_property
    def shares(self) -> ClassShares | None:
        """Shares of the classes among the training images, for eval.labels=data of a conditional model; else None."""
        if not self.config.conditional or self.config.eval.labels != "data":
            return None
        images = self._load_images("train")
        return ClassShares(images.labels.bincount(minlength=images.num_classes))

    def _load_images(self, split: str) -> ImageData:
        if split not in self._images:
            with self.processes.one_first():
                self._images[split] = load_images(self.config, split)
            self._compare(split)
        return self._images[split]

    def _compare(self, split: str) -> None:
        if self._recorded is not None:
            self.compared[split] = self._recorded.compare(
                split,
                self._images[split].fingerprint,
                self.config.data.root,
                accept=self.config.eval.other_images,
                advice=ANYWAY,
            )

    def _load_extractors(self) -> tuple[Extractor, ...]:
        if not self._extractors:
            wanted = self.config.eval
            train, test = None, None
            if "classifier" in wanted.extractor:
                train, test = self._load_images("train"), self._test_or_none()
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
        """Returns the test split, or None if the data set has none."""
        try:
            return self._load_images("test")
        except DataError:
            return None


def _described(title: str, split: str, images: ImageData | None) -> str:
    """Names a split in reports, such as "CIFAR-10, train, 50,000 images"."""
    return f"{title}, {split}" + (f", {len(images):,} images" if images else "")
