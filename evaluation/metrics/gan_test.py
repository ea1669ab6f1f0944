"""GAN-test and GAN-train (Shmelkov et al. 2018).

GAN-test trains a classifier on real images and tests it on generated ones, GAN-train vice versa.
"""

from typing import Any

import torch
from torch import Tensor

from evaluation.context import PROTOCOL_VERSION, Context
from evaluation.errors import EvaluationError
from evaluation.extractors.classifier import ARCHITECTURE, accuracy, train_classifier
from evaluation.images.checks import fingerprint
from evaluation.reporting.value import Value
from evaluation.statistics.intervals import wilson_interval

KNOWN = 0.1  # minimum accuracy on real images of a suitable classifier, on a scale from 0 (guessing) to 1 (perfect)
CLASSIFIER_STEPS = 600  # updates of GAN-train's classifier, the same number as for extractor classifier
INTERVAL = "binomial over images (Wilson)"
ADVICE = "choose extractor classifier, which is trained on the data"


def class_accuracy(logits: Tensor, labels: Tensor) -> float:
    """Accuracy of logits (N, K) for labels (N,): fraction of rows whose largest entry is that of the label.

    Raises:
        EvaluationError: other shapes, no rows, labels outside [0, K), or logits that are not finite.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(logits):
        raise EvaluationError(
            f"class_accuracy: got logits {tuple(logits.shape)}, labels {tuple(labels.shape)}, expected (N, K), (N,)"
        )
    if not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:
        got, most = f"{int(labels.min())} to {int(labels.max())}", logits.shape[1] - 1
        raise EvaluationError(f"class_accuracy: got labels {got}, expected 0 to {most}")
    if not bool(logits.isfinite().all()):
        raise EvaluationError("class_accuracy: got logits with NaN or infinite entries, expected finite ones")
    return int((logits.argmax(1) == labels.to(logits.device)).sum()) / len(logits)


def check_classes(context: Context, name: str) -> None:
    """Raises EvaluationError if generated images have classes that the test images do not have."""
    labels = context.generated_labels
    if labels is None or not context.has("test"):
        return
    most, classes = int(labels.max()) + 1, context.image_set("test").num_classes
    if most > classes:
        raise EvaluationError(
            f"metric {name}: got a generated image of class {most - 1}, expected 0 to {classes - 1}, "
            "the classes of the test images; give test images of all classes, or leave the metric out"
        )


def check(context: Context) -> None:
    """Raises EvaluationError if an extractor has other classes than the data or does not know them."""
    check_classes(context, "gan_test")
    for extractor in context.extractors:
        classes, test = context.widths(extractor)[1], context.image_set("test")
        if classes is not None and classes != test.num_classes:
            raise EvaluationError(
                f"metric gan_test: extractor {extractor.name} has {classes} classes, "
                f"expected the {test.num_classes} of the test images; {ADVICE}"
            )
        if classes is not None:
            _accuracy_of_test(context.seen_by(extractor))


def check_train(context: Context) -> None:
    """Raises EvaluationError if generated images have classes that the test images do not have."""
    check_classes(context, "gan_train")


def measure(context: Context) -> list[Value]:
    """Measures gan_test, the accuracy of the extractor's classifier on `num_is` generated images.

    gan_test_real is its accuracy on the real test images, the value that a perfect generator would reach.
    """
    count, num_test = context.required("num_is"), len(context.image_set("test"))
    real = _accuracy_of_test(context)
    generated = class_accuracy(context.logits("generated", count), context.labels("generated", count))
    record = {"interval": INTERVAL}
    found = context.value(
        "gan_test",
        generated,
        count,
        "higher",
        {"num_generated": count},
        record=record,
        interval=wilson_interval(generated, count),
    )
    # A property of the extractor and the data, so its hash holds nothing of the generator.
    fields = {"protocol_version": PROTOCOL_VERSION, **_test_fields(context), **context.extractor_fields()}
    record = {"test": context.test_name, **record}
    interval = wilson_interval(real, num_test)
    return [found, Value(context.key("gan_test_real"), real, None, num_test, "", fields, record, {}, interval)]


def _accuracy_of_test(context: Context) -> float:
    """Returns the accuracy of the current extractor's classifier on the real test images.

    Raises:
        EvaluationError: it is hardly better than guessing, so the classifier was trained on other classes.
    """
    test = context.image_set("test")
    real = class_accuracy(context.logits("test", len(test)), context.labels("test", len(test)))
    guessing = 1 / test.num_classes
    if real - guessing < KNOWN * (1 - guessing):
        raise EvaluationError(
            f"metric gan_test: extractor {context.current.name} classifies {real:.0%} of the test images correctly, "
            f"which is little better than guessing; {ADVICE}"
        )
    return real


def measure_train(context: Context) -> list[Value]:
    """Trains a classifier on `num_is` generated images and measures gan_train, its accuracy on the real test images."""
    count, test = context.required("num_is"), context.image_set("test")
    images, labels = context.image_set("generated").first(count), context.labels("generated", count)
    seed = context.settings.seed
    with torch.inference_mode(False), torch.enable_grad():
        network = train_classifier(images, labels, seed=seed, steps=CLASSIFIER_STEPS, device=context.device)
    network = network.to(context.device).requires_grad_(False)
    found = accuracy(network, test.images, context.labels("test", len(test)), context.device)
    fields = {
        "num_generated": count,
        "classifier": ARCHITECTURE,
        "classifier_steps": CLASSIFIER_STEPS,
        "seed": seed,
        **_test_fields(context),
        **context.generation_fields(),
    }
    record = {"test": context.test_name, "interval": INTERVAL}
    interval = wilson_interval(found, len(test))
    return [Value("gan_train", found, None, len(test), "higher", fields, record, {}, interval)]


def _test_fields(context: Context) -> dict[str, Any]:
    """Protocol fields of the test images."""
    test = context.image_set("test")
    labels = fingerprint(context.labels("test", len(test)))
    return {"num_test": len(test), "test_fingerprint": test.fingerprint, "test_labels": labels}
