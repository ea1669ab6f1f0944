"""Inputs of a measurement: a network, images with labels, sample sizes, and their protocol fields."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from evaluation.generalization.classifier import logits_of, margin_of
from evaluation.generalization.spectra import LayerSingularValues, layer_spectra
from evaluation.images.checks import fingerprint
from evaluation.settings import MeasureSettings

VERSION = 1  # version of the measures; increment when the computation of any value changes


@dataclass(frozen=True)
class Case:
    """A network and the images to measure it on; quantities that several measures use are computed once."""

    network: nn.Module
    images: Tensor  # float32 or float64 (N, ...), in the network's input range
    labels: Tensor  # int64 (N,)
    settings: MeasureSettings
    data: Mapping[str, Any]  # protocol fields of the images
    labelled: Mapping[str, Any]  # protocol fields of the labels
    as_used: Mapping[str, Any]  # protocol fields of how the network is used; independent of its weights

    def rows(self, count: int) -> Tensor:
        """Returns the rows of `count` images drawn by the seed, or of all, int64, ascending."""
        if count >= len(self.images):
            return torch.arange(len(self.images), device="cpu")
        generator = torch.Generator("cpu").manual_seed(self.settings.seed)
        return torch.randperm(len(self.images), generator=generator, device="cpu")[:count].sort().values

    def some(self, count: int) -> tuple[Tensor, Tensor]:
        """Returns the images and labels of `rows`."""
        rows = self.rows(count)
        return self.images[rows.to(self.images.device)], self.labels[rows.to(self.labels.device)]

    def fields(self, count: int, *, labels: bool) -> dict[str, Any]:
        """Returns the protocol fields of a value over `count` images, with or without labels."""
        rows = self.rows(count)
        drawn = {
            "num_images": len(rows),
            "images_rows": fingerprint(rows),
            "images_seed": self.settings.seed if len(rows) < len(self.images) else None,
        }
        return {**self.network_fields, **self.data, **drawn, **(self.labelled if labels else {})}

    @property
    def network_fields(self) -> dict[str, Any]:
        """Protocol fields of the network."""
        return {
            "measures_version": VERSION,
            "network": dict(self.as_used),
            "network_mode": "eval",
            "precision": str(self.images.dtype).removeprefix("torch."),
            "tf32": False,
        }

    @cached_property
    def points(self) -> tuple[Tensor, Tensor]:
        """Images and labels for accuracy, margins and complexities."""
        return self.some(self.settings.num_points)

    @cached_property
    def logits(self) -> Tensor:
        """Logits at the points, float64 (n, K), on the CPU."""
        return logits_of(self.network, *self.points, self.settings.batch_size)

    @cached_property
    def margins(self) -> Tensor:
        """Margins at the points, float64 (n,), on the CPU."""
        return margin_of(self.logits, self.points[1].cpu())

    @cached_property
    def layers(self) -> list[LayerSingularValues]:
        """Singular values of the layers."""
        return layer_spectra(self.network)
