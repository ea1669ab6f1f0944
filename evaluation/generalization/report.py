"""Measures a classifier and builds the report."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from evaluation.errors import EvaluationError, check_names
from evaluation.generalization.case import Case
from evaluation.generalization.classifier import checked_forward, device_of
from evaluation.generalization.spectra import weight_layers
from evaluation.generalization.values import MEASURES
from evaluation.images.checks import fingerprint
from evaluation.reporting.report import Report
from evaluation.reporting.value import protocol_hash
from evaluation.runtime.isolation import isolated
from evaluation.runtime.machine import machine, timed
from evaluation.settings import MeasureSettings

DEFAULTS = MeasureSettings()
NOTHING: Mapping[str, Any] = {}


def measure(
    names: Sequence[str],
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    settings: MeasureSettings = DEFAULTS,
    data_name: str = "",
    title: str = "",
    split: str = "",
    data_fingerprint: str = "",
    label_kind: str = "given",
    network_protocol: Mapping[str, Any] = NOTHING,
    subject: Mapping[str, Any] = NOTHING,
    class_names: Sequence[str] = (),
) -> Report:
    """Measures a classifier without changing the network, random states or precision flags.

    The protocol of a value covers images, labels, counts, seeds and definitions, but not the network. So reports of
    different networks on the same images have equal hashes and can be compared.

    Args:
        names: keys of MEASURES.
        network: images -> logits (N, K), measured on its device. Switched to eval mode and back.
        images, labels: a whole split: float32 or float64 (N, ...) in the network's input range, and int64 (N,).
        data_name, split, label_kind: for example "cifar100", "train" and "random, seed 0"; parts of the protocol.
        title: name of the images in reports; default: `data_name` and `split`.
        data_fingerprint: fingerprint of the images' source, such as their pixels; default: that of `images`.
        network_protocol: settings of the network's use that affect values, such as the scale of its input.
        subject: description of the network, such as experiment, step, checkpoint.

    Raises:
        EvaluationError: unknown names; see `checked_forward`; a network for which a measure is not defined.
    """
    check_measures(names)
    protocol_hash("network", dict(network_protocol))  # raises early if it cannot be hashed
    with isolated():
        _check(names, network, images, labels)
        images = images.detach()
        data = {"data": data_name, "split": split, "images_fingerprint": data_fingerprint or fingerprint(images)}
        labelled = {"labels": label_kind, "labels_fingerprint": fingerprint(labels)}
        case = Case(network, images, labels, settings, data, labelled, network_protocol)
        values, seconds = timed(names, lambda name: MEASURES[name].values(case))
    where = machine(device_of(network, images), batch_size=settings.batch_size, seconds=seconds)
    title = title or ", ".join(text for text in (data_name, split) if text)
    subject = {**subject, **_described(network)}
    return Report.of(values, arrays={}, title=title, subject=subject, machine=where, class_names=class_names)


def check_measures(names: Sequence[str]) -> None:
    """Raises EvaluationError for an empty list or an unknown measure."""
    check_names("measures", names, MEASURES)


def _check(names: Sequence[str], network: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Checks images, labels, the classifier and its layers before anything is measured."""
    with checked_forward(network, images, labels):
        pass
    for name in names:
        if len(images) < MEASURES[name].fewest:
            raise EvaluationError(
                f"measure {name}: got {len(images)} image, expected at least {MEASURES[name].fewest}; give more, or "
                "leave the measure out"
            )
    if any(MEASURES[name].layers for name in names):
        weight_layers(network)


def _described(network: nn.Module) -> dict[str, Any]:
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return {
        "network": type(network).__name__,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "weights_fingerprint": digest.hexdigest(),
    }
