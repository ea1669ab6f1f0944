"""Evaluation of a classifier in eval mode. Checks the logits: finite, deterministic, independent of the batch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from evaluation.errors import EvaluationError
from evaluation.images.checks import check_inputs, check_labels
from evaluation.runtime.isolation import still

BATCH_SIZE = 100  # images per pass; affects speed and memory only
ROUNDING = 1e-4  # difference allowed between two float32 passes, relative to the largest logit; 1e-6 measured on CPUs

Forward = Callable[[Tensor], Tensor]  # images (n, ...) -> logits (n, K)


class Margin(nn.Module):
    """Critic (images, labels) -> margins f(x)[y] - max over j != y of f(x)[j] of a classifier f, (N,).

    Use it in `empirical_lipschitz(Margin(network), x, y, labels)` and `jacobian_norms(Margin(network), x, labels)`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Computes the margins (N,)."""
        return margin_of(self.network(images), labels)


def margin_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns logits[y] - max over j != y of logits[j], (N,), for logits (N, K) and labels y int64 (N,)."""
    chosen = labels[:, None]
    return logits.gather(1, chosen).squeeze(1) - logits.scatter(1, chosen, -torch.inf).max(dim=1).values


@contextmanager
def checked_forward(network: nn.Module, images: Tensor, labels: Tensor | None = None) -> Iterator[Forward]:
    """Yields the network in eval mode as a function that checks its logits; restores the network afterwards.

    Raises:
        EvaluationError: images or labels of a wrong shape or type; logits that are not finite (n, K) with K >= 2; a
            label of K or more; logits that depend on the batch or differ between two passes.
    """
    check_inputs(images, "classifier's")
    check_labels(labels, len(images), "classifier's")
    device = device_of(network, images)

    def forward(batch: Tensor) -> Tensor:
        return _checked(network(batch.to(device)), len(batch))

    with still(network):
        _check_single_images(forward, images, None if labels is None else int(labels.max()))
        yield forward


def logits_of(network: nn.Module, images: Tensor, labels: Tensor, batch_size: int) -> Tensor:
    """Computes the logits of all images, float64 (N, K), on the CPU, with the checks of `checked_forward`."""
    with checked_forward(network, images, labels) as forward, torch.no_grad():
        return torch.cat([forward(some).double().cpu() for some in images.split(batch_size)])


def device_of(network: nn.Module, images: Tensor) -> torch.device:
    """Returns the device of the network's parameters, or that of the images if it has none."""
    return next(network.parameters(), images).device


def _checked(logits: object, count: int) -> Tensor:
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != count or logits.shape[1] < 2:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise EvaluationError(f"classifier: got {got} for {count} images, expected logits ({count}, number of classes)")
    if not bool(logits.isfinite().all()):
        raise EvaluationError("classifier: got logits that are not finite; did training diverge?")
    return logits


@torch.no_grad()
def _check_single_images(forward: Forward, images: Tensor, largest_label: int | None) -> None:
    pair = torch.stack([images[0], -images[-1]])  # negated, so that the images differ
    together, again, alone = forward(pair), forward(pair), forward(pair[:1])
    if largest_label is not None and largest_label >= together.shape[1]:
        raise EvaluationError(
            f"classifier's labels: got {largest_label} for {together.shape[1]} logits, expected smaller class numbers"
        )
    rounding = ROUNDING * together.abs().max()
    if bool((together - again).abs().max() > rounding):
        raise EvaluationError(
            "classifier: got different logits for the same images, expected equal logits; does a module draw random "
            "numbers in eval mode?"
        )
    if bool((together[0] - alone[0]).abs().max() > rounding):
        raise EvaluationError(
            "classifier: the logits of an image depend on the other images of its batch, expected independent ones; "
            "use running statistics in batch normalization"
        )
