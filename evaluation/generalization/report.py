"""Measures a classifier and returns a report."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from evaluation.generalization.case import Case
from evaluation.generalization.classifier import checked_forward, device_of
from evaluation.generalization.registry import MEASURES, check_measures
from evaluation.generalization.spectra import weight_layers
from evaluation.images.reader import check_inputs, check_labels, fingerprint
from evaluation.reporting.report import Report
from evaluation.reporting.value import Value, protocol_hash
from evaluation.runtime.isolation import isolated
from evaluation.runtime.machine import machine
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
        images: all images of a split, (N, ...), float32 or float64, in the network's input range.
        labels: int64 (N,).
        data_name, split: for example "cifar100" and "train".
        data_fingerprint: fingerprint of the source of the images, such as their pixels; default: of `images`.
        label_kind: origin of the labels, such as "random, seed 0".
        network_protocol: how the network is used as far as it affects values, such as the scale of its input or whether
            normalized weights are exact.
        subject: description of the network, such as experiment, step, checkpoint.
        class_names: names by label.

    Raises:
        EvaluationError: unknown names; see `checked_forward`; a network for which a measure is not defined.
    """
    check_measures(names)
    check_inputs(images, "classifier's")
    check_labels(labels, len(images), "classifier's")
    protocol_hash("network", dict(network_protocol))  # raises early if it cannot be hashed
    images = images.detach()
    with isolated():
        with checked_forward(network, images, labels):  # checks the classifier before anything is measured
            pass
        if any(MEASURES[name].layers for name in names):
            weight_layers(network)
        case = Case(
            network,
            images,
            labels,
            settings,
            data={"data": data_name, "split": split, "images_fingerprint": data_fingerprint or fingerprint(images)},
            labelled={"labels": label_kind, "labels_fingerprint": fingerprint(labels)},
            as_used=network_protocol,
        )
        values: list[Value] = []
        seconds: dict[str, float] = {}
        for name in dict.fromkeys(names):
            start = time.monotonic()
            values += MEASURES[name].values(case)
            seconds[name] = round(time.monotonic() - start, 3)
    return Report.of(
        values,
        arrays={},
        title=", ".join(text for text in (data_name, split) if text),
        subject={**subject, **_described(network)},
        machine=machine(device_of(network, images), batch_size=settings.batch_size, seconds=seconds),
        class_names=class_names,
    )


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
