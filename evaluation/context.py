"""What is to be evaluated, how, and the features computed on the way."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from evaluation.errors import EvaluationError
from evaluation.extractors import Extractor
from evaluation.features import Features, extract
from evaluation.images import Sampler, check_images, check_labels, check_same_size, fingerprint
from evaluation.presets import check_settings

PROTOCOL_VERSION = 1  # raise it with any change to how a value is computed


@dataclass(frozen=True)
class Settings:
    """The protocol's numbers. The defaults are those of Sanyal et al. 2020, after Miyato et al. 2018.

    FID: `num_real` reference images, drawn by `seed`, against the first `num_fid` generated ones. IS: the first
    `num_is` generated images in `is_splits` parts. Neural Divergence: None takes the preset's value.
    """

    num_real: int = 10_000
    num_fid: int = 5_000
    num_is: int = 50_000
    is_splits: int = 10
    nd_preset: str = "srn2020"
    nd_steps: int | None = None
    nd_samples: int | None = None
    nd_batch_size: int | None = None
    nd_critics: int | None = None
    batch_size: int = 50  # images in one pass of the extractor; decides speed, not values
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_real", "num_fid", "num_is", "is_splits", "batch_size"):
            if getattr(self, name) < 1:
                raise EvaluationError(f"{name}: got {getattr(self, name)}, expected at least 1")
        if self.is_splits > self.num_is:
            raise EvaluationError(f"is_splits: got {self.is_splits} for {self.num_is} images, expected at most as many")
        check_settings(
            self.nd_preset,
            steps=self.nd_steps,
            samples=self.nd_samples,
            batch_size=self.nd_batch_size,
            num_critics=self.nd_critics,
        )


@dataclass(kw_only=True)
class Context:
    """Images, extractor, settings and what the caller knows of them. Features are computed once per image set.

    Images are uint8 (N, 3, H, W), labels int64 (N,); what a metric does not need may be missing. Two values are
    comparable when their protocol hashes are equal, so what must be equal and what may differ are kept apart:

    Attributes:
        protocol: how the generated images were made (quantizer, bn_mode, ema, label policy); hashed into every value.
        subject: what was evaluated (checkpoint, its hash, step, run); recorded, not hashed.
        title, reference_name, test_name: names for people, such as "CIFAR-10" and "cifar10/train"; not hashed, because
            the sets' fingerprints are.

    Raises:
        EvaluationError: images or labels of another form, or sets of different image size.
    """

    generated: Tensor | None = None
    generated_labels: Tensor | None = None
    reference: Tensor | None = None
    reference_labels: Tensor | None = None
    test: Tensor | None = None
    test_labels: Tensor | None = None
    sampler: Sampler | None = None
    extractor: Extractor | None = None
    settings: Settings = field(default_factory=Settings)
    device: torch.device | str = "cpu"
    protocol: dict[str, Any] = field(default_factory=dict)
    subject: dict[str, Any] = field(default_factory=dict)
    title: str = ""
    reference_name: str = ""
    test_name: str = ""

    def __post_init__(self) -> None:
        sets = {name: getattr(self, name) for name in ("generated", "reference", "test")}
        sets = {name: images for name, images in sets.items() if images is not None}
        for name, images in sets.items():
            check_images(images, name)
            check_labels(getattr(self, f"{name}_labels"), len(images), name)
        for name, images in sets.items():
            first = next(iter(sets))
            check_same_size(images, name, sets[first], first)
        self._generated_features: Features | None = None
        self._reference_features: dict[int, tuple[Tensor, Tensor]] = {}

    def check(self, metric: str, images: dict[str, str], extractor: str) -> None:
        """Refuses a context that lacks what a metric needs; see `evaluation.metrics.Metric` for the arguments.

        Raises:
            EvaluationError: missing or too few images, no extractor, or one without class probabilities.
        """
        for name, setting in images.items():
            self._check_count(metric, name, setting)
        if not extractor:
            return
        if self.extractor is None:
            raise EvaluationError(f"metric {metric}: got no extractor, expected one, such as inception")
        if extractor == "logits" and not self.extractor.has_logits:
            raise EvaluationError(
                f"metric {metric}: extractor {self.extractor.name} gives no class probabilities; "
                "choose inception or classifier, or leave the metric out"
            )

    def _check_count(self, metric: str, name: str, setting: str) -> None:
        images = getattr(self, name)
        if images is None:
            if name == "generated" and not setting and self.sampler is not None:
                return
            raise EvaluationError(f"metric {metric}: got no {name} images, expected some; give them or leave it out")
        if setting and len(images) < getattr(self.settings, setting):
            raise EvaluationError(
                f"metric {metric}: got {len(images)} {name} images, expected {getattr(self.settings, setting)}; "
                f"give more, or lower {setting} (a different protocol, with a different hash)"
            )

    def generated_features(self, count: int) -> Tensor:
        """Features (count, D) of the first `count` generated images."""
        return self._generated(count).features[:count]

    def generated_logits(self, count: int) -> Tensor:
        """Logits (count, K) of the first `count` generated images."""
        logits = self._generated(count).logits
        assert logits is not None
        return logits[:count]

    def reference_features(self, count: int) -> tuple[Tensor, Tensor]:
        """Features (count, D) of `count` reference images drawn by the seed, and their rows (count,), ascending."""
        assert self.reference is not None
        if count not in self._reference_features:
            generator = torch.Generator("cpu")
            generator.manual_seed(self.settings.seed)
            rows = torch.randperm(len(self.reference), generator=generator, device="cpu")[:count].sort().values
            features = self._extract(self.reference[rows.to(self.reference.device)])
            self._reference_features[count] = features.features, rows
        return self._reference_features[count]

    def key(self, metric: str) -> str:
        """The name of a metric's value: the metric for official Inception, "metric/extractor" for all others."""
        assert self.extractor is not None
        return metric if self.extractor.name == "inception" else f"{metric}/{self.extractor.name}"

    def extractor_fields(self) -> dict[str, Any]:
        """What decides a value through the extractor."""
        assert self.extractor is not None
        return {**self.extractor.protocol, "tf32": False, "feature_dtype": "float32"}

    def generation_fields(self) -> dict[str, Any]:
        """What decides a value through the making of the images."""
        sized = next(images for images in (self.generated, self.test, self.reference) if images is not None)
        return {
            "protocol_version": PROTOCOL_VERSION,
            "image_size": "{}x{}".format(*sized.shape[2:]),
            "generation": dict(self.protocol),
        }

    @cached_property
    def reference_fingerprint(self) -> str:
        """SHA-256 of the whole reference set, before the draw."""
        assert self.reference is not None
        return fingerprint(self.reference)

    @cached_property
    def test_fingerprint(self) -> str:
        assert self.test is not None
        return fingerprint(self.test)

    @cached_property
    def generated_fingerprint(self) -> str | None:
        return None if self.generated is None else fingerprint(self.generated)

    def _generated(self, count: int) -> Features:
        """Features of at least `count` generated images; a later, larger request computes the rest only."""
        assert self.generated is not None
        known = self._generated_features
        done = 0 if known is None else len(known.features)
        if known is None or done < count:
            more = self._extract(self.generated[done:count])
            known = self._generated_features = more if known is None else _joined(known, more)
        return known

    def _extract(self, images: Tensor) -> Features:
        assert self.extractor is not None
        return extract(images, self.extractor, batch_size=self.settings.batch_size, device=self.device)


def _joined(first: Features, second: Features) -> Features:
    logits = None if first.logits is None or second.logits is None else torch.cat([first.logits, second.logits])
    return Features(torch.cat([first.features, second.features]), logits)
