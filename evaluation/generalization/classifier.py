"""How a classifier is asked: in eval mode, each image for itself, its logits checked."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from evaluation.errors import EvaluationError
from evaluation.images.reader import check_inputs, check_labels
from evaluation.runtime.isolation import still

BATCH_SIZE = 100  # images in one pass; decides speed and memory, not values
ROUNDING = 1e-4  # by which two float32 passes may differ, relative to the largest logit; 1e-6 measured on CPUs

Ask = Callable[[Tensor], Tensor]  # images (n, ...) on the network's device -> logits (n, K)


class Margin(nn.Module):
    """f(x)[y] - max over j != y of f(x)[j], (N,), of images and labels: a classifier as a critic, positive where right.

    So `empirical_lipschitz(Margin(network), x, y, labels)` and `jacobian_norms(Margin(network), x, labels)` measure a
    classifier's margin.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return margin_of(self.network(images), labels)


def margin_of(logits: Tensor, labels: Tensor) -> Tensor:
    """logits[y] - max over j != y of logits[j]: (N, K), int64 (N,) -> (N,)."""
    chosen = labels[:, None]
    others = logits.scatter(1, chosen, -torch.inf)
    return logits.gather(1, chosen).squeeze(1) - others.max(dim=1).values


@contextmanager
def asked(network: nn.Module, images: Tensor, labels: Tensor | None = None) -> Iterator[Ask]:
    """The network, ready to be asked about these images; everything is restored behind it.

    Raises:
        EvaluationError: images or labels of another form; logits that are not one finite row (K,) for each image, K of
            2 or more; a label outside them; an image's logits that depend on its batch, or change when asked again.
    """
    check_inputs(images, "classifier's")
    check_labels(labels, len(images), "classifier's")
    device = device_of(network, images)

    def ask(batch: Tensor) -> Tensor:
        return _checked(network(batch.to(device)), len(batch))

    with still(network):
        _check_alone(ask, images, None if labels is None else int(labels.max()))
        yield ask


def device_of(network: nn.Module, images: Tensor) -> torch.device:
    """Where the network's parameters are; where the images are, if it has none."""
    return next(network.parameters(), images).device


def gradient_of(output: Tensor, points: Tensor) -> Tensor:
    """The gradient of a number by the points it was computed from; the graph is kept.

    Raises:
        EvaluationError: there is none.
    """
    gradient = None
    if output.requires_grad:
        (gradient,) = torch.autograd.grad(output, points, retain_graph=True, allow_unused=True)
    if gradient is None:
        raise EvaluationError(
            "classifier: got logits without a gradient by the images, expected a differentiable network; "
            "is it run under no_grad, or are images detached inside?"
        )
    return gradient


def _checked(logits: object, count: int) -> Tensor:
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != count or logits.shape[1] < 2:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise EvaluationError(f"classifier: got {got} for {count} images, expected logits ({count}, number of classes)")
    if not bool(logits.isfinite().all()):
        raise EvaluationError("classifier: got logits that are not finite, expected numbers; did training diverge?")
    return logits


@torch.no_grad()
def _check_alone(ask: Ask, images: Tensor, largest_label: int | None) -> None:
    # Negated, the second image differs from the first also where all images are alike.
    pair = torch.stack([images[0], -images[-1]])
    together, again, alone = ask(pair), ask(pair), ask(pair[:1])
    if largest_label is not None and largest_label >= together.shape[1]:
        raise EvaluationError(
            f"classifier's labels: got {largest_label} for {together.shape[1]} logits, expected class numbers below"
        )
    rounding = ROUNDING * together.abs().max()
    if bool((together - again).abs().max() > rounding):
        raise EvaluationError(
            "classifier: got two answers for the same images, expected one; does a module draw random numbers in eval "
            "mode?"
        )
    if bool((together[0] - alone[0]).abs().max() > rounding):
        raise EvaluationError(
            "classifier: an image's logits depend on the other images of its batch, expected not to; "
            "give batch normalization its running statistics"
        )
