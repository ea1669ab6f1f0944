"""Inputs of an evaluation: images, extractors, discriminator, settings."""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation.errors import EvaluationError
from evaluation.extractors import Extractor
from evaluation.images.cache import Cache
from evaluation.images.checks import (
    Sampler,
    check_images,
    check_labels,
    check_same_size,
    fingerprint,
    is_grey,
    three_channels,
)
from evaluation.images.features import extract_as_made
from evaluation.images.image_set import ImageSet, Pass
from evaluation.reporting.value import Value
from evaluation.runtime.isolation import isolated
from evaluation.settings import Settings
from evaluation.statistics.frechet import Gaussian
from evaluation.statistics.moments_file import Statistics

PROTOCOL_VERSION = 2  # increment when the computation of any value changes

# Differentiable discriminator: float32 images (N, C, H, W) in [-1, 1), int64 labels (N,) or None -> logits (N,).
Critic = Callable[[Tensor, Tensor | None], Tensor]

ROLES = ("generated", "reference", "test", "trained_on")


@dataclass(frozen=True, kw_only=True, eq=False)
class Context:
    """Inputs of an evaluation. Features are computed once per image set.

    Images are uint8 (N, 3, H, W), or (N, 1, H, W) if they are grey, labels int64 (N,); inputs that no measured metric
    needs may be omitted. Grey levels are repeated to three channels if other sets are RGB, and for feature extractors.

    Attributes:
        extractor: one feature extractor or several; metrics are measured with each.
        statistics: moments from a file that replace reference images for FID.
        critic: discriminator, in eval mode, for empirical Lipschitz constants.
        critic_is_conditional: whether the critic takes labels.
        trained_on: training images of the measured networks, if they are not the reference.
        protocol: settings of image generation (quantizer, bn_mode, weights, labels, seed); part of protocol hashes.
        subject: the evaluated model (checkpoint, its hash, step, run); not part of protocol hashes.
        title, reference_name, test_name: names in reports, such as "CIFAR-10" and "cifar10/train"; protocol hashes
            hold the fingerprints of the sets instead.
        class_names: names in reports, by label.
        cache: disk cache for features of real images; None: no cache.
        image_size: height and width of generated images; needed only without any images.
        nd_checkpoints: folder for unfinished critics of Neural Divergence; None: an interrupted run starts again. With
            a sampler, `subject` must identify the generator, for example by the checkpoint's hash.

    Raises:
        EvaluationError: images or labels of a wrong type, dtype or shape, or image sets of different sizes.
    """

    generated: Tensor | None = None
    generated_labels: Tensor | None = None
    reference: Tensor | None = None
    reference_labels: Tensor | None = None
    test: Tensor | None = None
    test_labels: Tensor | None = None
    trained_on: Tensor | None = None
    trained_on_labels: Tensor | None = None
    statistics: Statistics | None = None
    sampler: Sampler | None = None
    critic: Critic | None = None
    critic_is_conditional: bool = False
    extractor: Extractor | Sequence[Extractor] | None = None
    settings: Settings = field(default_factory=Settings)
    device: torch.device | str = "cpu"
    protocol: dict[str, Any] = field(default_factory=dict)
    subject: dict[str, Any] = field(default_factory=dict)
    title: str = ""
    reference_name: str = ""
    test_name: str = ""
    class_names: tuple[str, ...] = ()
    cache: Cache | None = None
    image_size: tuple[int, int] | None = None
    nd_checkpoints: Path | None = None
    _sets: dict[str, ImageSet] = field(init=False, repr=False)
    _widths: dict[str, tuple[int, int | None]] = field(init=False, repr=False)
    _current: Extractor | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_sets", {})
        object.__setattr__(self, "_widths", {})
        object.__setattr__(self, "_current", None)
        names = [extractor.name for extractor in self.extractors]
        if len(set(names)) < len(names):
            raise EvaluationError(f"extractors: got {', '.join(names)}, expected different names")
        self._repeat_some()
        for role in ROLES:
            images, labels = getattr(self, role), getattr(self, f"{role}_labels")
            if images is None:
                continue
            self._check(role, images, labels)
            self._sets[role] = ImageSet(
                images,
                labels,
                seed=self.settings.seed if role == "reference" else None,
                cache=None if role == "generated" else self.cache,
            )

    def _repeat_some(self) -> None:
        """Repeats the channels of grey sets if other sets are RGB."""
        given = {role: images for role in ROLES if isinstance(images := getattr(self, role), Tensor)}
        if not all(map(is_grey, given.values())):
            for role, images in given.items():
                object.__setattr__(self, role, three_channels(images))

    def _check(self, role: str, images: Tensor, labels: Tensor | None) -> None:
        check_images(images, role)
        check_labels(labels, len(images), role)
        for other, known in self._sets.items():
            check_same_size(images, role, known.images, other)

    def of(self, generated: Tensor | None, labels: Tensor | None = None, **changes: Any) -> "Context":
        """Returns a context with other generated images that shares the features of real images.

        Args:
            changes: new values of other fields, such as sampler, critic, protocol, subject.

        Raises:
            EvaluationError: invalid images or labels, or a change of settings, cache or other images.
        """
        fixed = {"settings", "cache", *ROLES, *(f"{role}_labels" for role in ROLES)} & changes.keys()
        if fixed:
            raise EvaluationError(f"context: cannot change {', '.join(sorted(fixed))}; make a new Context instead")
        sets = {role: images for role, images in self._sets.items() if role != "generated"}
        if generated is not None and not all(is_grey(known.images) for known in sets.values()):
            generated = three_channels(generated)
        changed = self._with(_sets=sets, generated=generated, generated_labels=labels, **changes)
        if generated is not None:
            changed._check("generated", generated, labels)
            sets["generated"] = ImageSet(generated, labels)
        return changed

    def of_batches(
        self, batches: Iterable[Tensor], labels: Tensor | None = None, *, count: int, **changes: Any
    ) -> "Context":
        """Returns a context with images that are generated batch by batch, and their features from all extractors.

        Args:
            batches: uint8 (B, C, H, W) on the device, `count` images in all.
            labels, changes: see `of`.

        Raises:
            EvaluationError: see `of`; or an extractor returns values that are not finite.
        """
        images, features = extract_as_made(batches, self.extractors, count=count, device=self.device)
        changed = self.of(images, labels, **changes)
        for extractor, found in zip(self.extractors, features, strict=True):
            changed.image_set("generated").keep(extractor, found)
        return changed

    def seen_by(self, extractor: Extractor) -> "Context":
        """Returns a context with another current extractor; everything else is shared."""
        return self._with(_current=extractor)

    def _with(self, **changes: Any) -> "Context":
        changed = copy.copy(self)
        for name, value in changes.items():
            object.__setattr__(changed, name, value)
        return changed

    @property
    def extractors(self) -> tuple[Extractor, ...]:
        """All extractors, in the order given."""
        if self.extractor is None:
            return ()
        return tuple(self.extractor) if isinstance(self.extractor, Sequence) else (self.extractor,)

    @property
    def current(self) -> Extractor:
        """The extractor of the current measurement."""
        return self._current if self._current is not None else self.extractors[0]

    def has(self, role: str) -> bool:
        """Whether the context has the image set "generated", "reference", "test" or "trained_on"."""
        return role in self._sets

    @property
    def training_role(self) -> str:
        """Name of the image set that holds the training images of the measured networks."""
        return "reference" if self.trained_on is None else "trained_on"

    def required(self, setting: str, role: str = "generated") -> int:
        """Number of images of a set that a metric needs, by the name of a setting; 0 if `setting` is empty."""
        if not setting:
            return 0
        count = self.settings.number(setting)
        if setting == "num_intra":
            classes = self._sets["reference"].num_classes if "reference" in self._sets else 0
            count *= max(classes, 1)
        return count or (len(self._sets[role]) if role in self._sets else 0)

    def setting(self, name: str) -> str:
        """Name of a setting as the user writes it, such as "num_fid" or "eval.num_fid", for error messages."""
        return f"{self.settings.place}{name}"

    def widths(self, extractor: Extractor) -> tuple[int, int | None]:
        """Numbers of features and of logits of an image, None without logits; by a black image of the sets' size.

        Raises:
            EvaluationError: the extractor is for images of another size.
        """
        if extractor.name not in self._widths:
            black = torch.zeros(1, 3, *self._size, dtype=torch.uint8, device=self.device)
            with isolated(), torch.inference_mode():
                features, logits = extractor(black)
            self._widths[extractor.name] = features.shape[1], None if logits is None else logits.shape[1]
        return self._widths[extractor.name]

    @property
    def _size(self) -> tuple[int, ...]:
        """Height and width of the images."""
        size = next((tuple(images.images.shape[2:]) for images in self._sets.values()), self.image_size)
        assert size is not None, "there are images, or image_size"
        return size

    @property
    def is_grey(self) -> bool:
        """Whether the images have one channel."""
        return any(is_grey(images.images) for images in self._sets.values())

    def input_fields(self) -> dict[str, Any]:
        """Protocol fields of networks that see grey images with one channel, as critics do; none for RGB."""
        return {"channels": 1} if self.is_grey else {}

    @property
    def num_real(self) -> int:
        """Number of reference images with which generated images are compared."""
        return self.required("num_real", "reference")

    def image_set(self, role: str) -> ImageSet:
        """Image set with a name that `has` accepts; it must be present."""
        return self._sets[role]

    def features(self, role: str, count: int) -> Tensor:
        """Features (count, D) of the first `count` images of a set; the seed draws the order of reference images."""
        return self._sets[role].features(count, self.current, self._pass).features

    def features_as_given(self, role: str, count: int) -> Tensor:
        """Rows of `features`, sorted by the images' positions in the given tensor."""
        order, features = self._sets[role].order, self.features(role, count)
        return features if order is None else features[order[:count].argsort()]

    def logits(self, role: str, count: int) -> Tensor:
        """Logits (count, K) of the first `count` images of a set."""
        logits = self._sets[role].features(count, self.current, self._pass).logits
        assert logits is not None
        return logits

    def labels(self, role: str, count: int) -> Tensor:
        """Labels (count,) of the first `count` images of a set."""
        return self._sets[role].labels(count)

    def moments(self, role: str, count: int, start: int = 0) -> Gaussian:
        """Mean and covariance of the features of images `start` to `count` of a set, cached with their factor."""
        return self._sets[role].moments(count, self.current, self._pass, start)

    @property
    def float64_device(self) -> torch.device:
        """Device for large float64 products: the context's if that is a CUDA device, else the CPU."""
        return self._pass.float64_device

    @property
    def _pass(self) -> Pass:
        return Pass(self.settings.batch_size, self.device)

    def key(self, metric: str) -> str:
        """Key of a metric's value: the metric's name for official Inception, else "metric/extractor"."""
        return metric if self.current.name == "inception" else f"{metric}/{self.current.name}"

    def value(
        self,
        metric: str,
        value: float,
        count: int,
        better: str,
        fields: dict[str, Any],
        *,
        std: float | None = None,
        record: dict[str, Any] | None = None,
        arrays: dict[str, np.ndarray] | None = None,
        interval: tuple[float, float] | None = None,
    ) -> Value:
        """Builds a metric's value; adds the protocol fields of extractor and generation, and the key to array names."""
        key = self.key(metric)
        fields = {**fields, **self.extractor_fields(), **self.generation_fields()}
        arrays = {f"{key}/{name}": array for name, array in (arrays or {}).items()}
        seen = {"channels": "1, repeated to 3 for the extractor"} if self.is_grey else {}
        return Value(key, value, std, count, better, fields, {**(record or {}), **seen}, arrays, interval)

    def extractor_fields(self) -> dict[str, Any]:
        """Protocol fields of the extractor."""
        weights = {"extractor_fingerprint": self.current.fingerprint}
        return {**weights, **self.current.protocol, "tf32": False, "feature_dtype": "float32"}

    def generation_fields(self) -> dict[str, Any]:
        """Protocol fields of image generation."""
        return {
            "protocol_version": PROTOCOL_VERSION,
            "image_size": "{}x{}".format(*self._size),
            "generation": dict(self.protocol),
        }

    def reference_fields(self) -> dict[str, Any]:
        """Protocol fields of the reference images, or of the statistics that replace them."""
        if self.statistics is not None:
            origin = self.statistics.origin  # moments of known images have the protocol of these images
            return {"reference_statistics": self.statistics.sha256} if origin is None else dict(origin.images)
        return self.image_fields(self.num_real)

    def count_note(self, count: int) -> str:
        """Returns a note, in protocol `all`, if `count` generated images are compared with more or fewer real ones."""
        origin = None if self.statistics is None else self.statistics.origin
        real = self.num_real if self.statistics is None else 0 if origin is None else origin.num_images
        if self.settings.protocol != "all" or real in (0, count):
            return ""
        return (
            f"{count:,} generated images are compared with {real:,} reference images: FID, precision, recall, density "
            "and coverage depend on both numbers"
        )

    def image_fields(self, count: int) -> dict[str, Any]:
        """Protocol fields of the first `count` reference images."""
        return {"num_reference": count, **self.set_fields("reference", count)}

    def set_fields(self, role: str, count: int) -> dict[str, Any]:
        """Protocol fields of the first `count` images of a set: fingerprints of the set and of the drawn rows."""
        images = self._sets[role]
        return {f"{role}_fingerprint": images.fingerprint, f"{role}_rows": fingerprint(images.rows(count))}
