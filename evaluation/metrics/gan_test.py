"""GAN-test and GAN-train (Shmelkov et al. 2018).

GAN-test trains a classifier on real images and tests it on generated ones, GAN-train vice versa.
"""

from typing import Any

import torch
from torch import Tensor

from evaluation.context import Context
from evaluation.errors import EvaluationError
from evaluation.extractors.classifier import accuracy, train_classifier
from evaluation.images.reader import fingerprint
from evaluation.reporting.value import Value
from evaluation.statistics.intervals import wilson_interval

KNOWN = 0.1  # minimum accuracy on real images of a suitable classifier, on a scale from 0 (guessing) to 1 (perfect)
CLASSIFIER_STEPS = 600  # updates of GAN-train's classifier, the same number as for extractor classifier


def class_accuracy(logits: Tensor, labels: Tensor) -> float:
    """Accuracy of logits (N, K) for labels (N,): fraction of rows whose largest entry is that of the label.

    Raises:
        EvaluationError: other shapes, no rows, or logits that are not finite.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(logits):
        raise EvaluationError(
            f"class_accuracy: got logits {tuple(logits.shape)}, labels {tuple(labels.shape)}, expected (N, K), (N,)"
        )
    if not bool(logits.isfinite().all()):
        raise EvaluationError("class_accuracy: got logits with NaN or infinite entries, expected finite ones")
    return int((logits.argmax(1) == labels.to(logits.device)).sum()) / len(logits)


def check(context: Context) -> None:
    """Raises EvaluationError if the number of classes of the extractor differs from that of the data."""
    if not context.has("test") or context.test_labels is None:
        return
    classes = int(context.test_labels.max()) + 1
    for extractor in context.extractors:
        logits = extractor(context.image_set("test").images[:1].to(context.device))[1]
        if logits is not None and logits.shape[1] != classes:
            raise EvaluationError(
                f"metric gan_test: extractor {extractor.name} has {logits.shape[1]} classes, expected {classes} as in "
                "the data; choose extractor classifier, which is trained on the data"
            )


def measure(context: Context) -> list[Value]:
    """Measures gan_test, the accuracy of the extractor's classifier on `num_is` generated images.

    gan_test_real is its accuracy on the real test images, the value that a perfect generator would reach.

    Raises:
        EvaluationError: the classifier is hardly better than guessing on real test images, so it was trained on other
            classes.
    """
    count, num_test = context.required("num_is"), len(context.image_set("test"))
    labels, test_labels = context.labels("generated", count), context.labels("test", num_test)
    test_logits = context.logits("test", num_test)
    real = class_accuracy(test_logits, test_labels)
    guessing = 1 / test_logits.shape[1]
    if real - guessing < KNOWN * (1 - guessing):
        raise EvaluationError(
            f"metric gan_test: extractor {context.current.name} classifies {real:.0%} of the real test images "
            "correctly, expected a classifier of these classes; choose extractor classifier, trained on the data"
        )
    generated = class_accuracy(context.logits("generated", count), labels)
    fields = _fields(context, count)
    record = {"test": context.test_name, "interval": "Wilson, 95 %"}
    return [
        context.value(
            "gan_test", generated, count, "higher", fields, record=record, interval=wilson_interval(generated, count)
        ),
        context.value(
            "gan_test_real", real, num_test, "", fields, record=record, interval=wilson_interval(real, num_test)
        ),
    ]


def measure_train(context: Context) -> list[Value]:
    """Trains a classifier on `num_is` generated images and measures gan_train, its accuracy on the real test images."""
    count, test = context.required("num_is"), context.image_set("test")
    images, labels = context.image_set("generated").images[:count], context.labels("generated", count)
    seed = context.settings.seed
    with torch.inference_mode(False), torch.enable_grad():
        network = train_classifier(images, labels, seed=seed, steps=CLASSIFIER_STEPS, device=context.device)
    network = network.to(context.device).requires_grad_(False)
    found = accuracy(network, test.images, context.labels("test", len(test)), context.device)
    fields = {
        **_fields(context, count),
        "classifier_steps": CLASSIFIER_STEPS,
        "seed": seed,
        **context.generation_fields(),
    }
    record = {"test": context.test_name, "interval": "Wilson, 95 %"}
    interval = wilson_interval(found, len(test))
    return [Value("gan_train", found, None, len(test), "higher", fields, record, {}, interval)]


def _fields(context: Context, count: int) -> dict[str, Any]:
    """Protocol fields: numbers of images, fingerprints of the test images and of their labels."""
    test = context.image_set("test")
    labels = fingerprint(context.labels("test", len(test)))
    return {
        "num_generated": count,
        "num_test": len(test),
        "test_fingerprint": test.fingerprint,
        "test_labels": labels,
    }
