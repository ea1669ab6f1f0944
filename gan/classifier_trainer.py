"""Training of a classifier. Batches, crops and learning rates are functions of (seed, step), as in `gan.trainer`.

A run that stops and goes on from its state is the run that never stopped, at whatever step it stops.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan.classifiers.recipes import Recipe
from gan.data import Batches, ImageData
from gan.data.augment import draw_shifts, shifted
from gan.errors import DivergenceError
from gan.normalization import update_
from gan.pixels import to_float
from gan.trainer import float32_products


@dataclass
class ClassifierState:
    """All that is not a function of the step.

    step: completed updates.
    totals: float64 (2,), sums over the epoch that is under way: of the batches' losses, of the shares of right answers.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    totals: Tensor
    step: int = 0

    @classmethod
    def begin(cls, network: nn.Module, recipe: Recipe) -> "ClassifierState":
        """Before the first update, of a network that is normalized and on its device already."""
        parameters = list(network.parameters())
        optimizer = torch.optim.SGD(
            parameters, lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
        return cls(network, optimizer, torch.zeros(2, dtype=torch.float64, device=parameters[0].device))

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "totals": self.totals,
            "step": self.step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises KeyError, RuntimeError or ValueError where the state does not fit this network."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.totals.copy_(state["totals"])
        self.step = state["step"]


class Epoch(NamedTuple):
    """What was seen in an epoch of training, while the network changed.

    number: completed epochs; loss and accuracy: means over the epoch's batches, accuracy in [0, 1].
    """

    number: int
    loss: float
    accuracy: float
    learning_rate: float


class ClassifierTrainer:
    """Moves a `ClassifierState` forward.

    An epoch is as many full batches as the images fill, and one more where some are left: batches go on from one
    permutation of the images to the next, see `Batches`.

    Args:
        data: training images.
        augment: crops of padded images, and flips.
        precision: "fp32", "tf32" (convolutions on a GPU) or "bf16" (autocast of the forward pass).
    """

    def __init__(
        self,
        state: ClassifierState,
        data: ImageData,
        recipe: Recipe,
        *,
        seed: int = 0,
        augment: bool = True,
        precision: str = "fp32",
    ) -> None:
        self.state, self.recipe, self.seed, self.augment, self.precision = state, recipe, seed, augment, precision
        self.device = state.totals.device
        self.batches = Batches(data, recipe.batch_size, seed=seed, device=self.device, flip=augment)
        self.steps_per_epoch = math.ceil(len(data) / recipe.batch_size)

    def train_step(self) -> None:
        """One update of the network."""
        state = self.state
        rate = self.recipe.learning_rate_in(state.step // self.steps_per_epoch)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        images, labels = self.batches.batch(state.step)
        if self.augment:
            images = shifted(images, draw_shifts(len(images), self.seed, state.step).to(self.device))
        pixels = to_float(images).to(memory_format=torch.channels_last)
        state.network.train()
        update_(state.network)
        with float32_products(self.precision):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                logits = state.network(pixels)
            loss = F.cross_entropy(logits.float(), labels)
            state.optimizer.zero_grad()
            loss.backward()
        state.optimizer.step()
        right = (logits.detach().argmax(1) == labels).double().mean()
        state.totals += torch.stack([loss.detach().double(), right])
        state.step += 1

    def epochs(self) -> Iterator[Epoch]:
        """Trains to the recipe's last epoch, and yields at the end of each: to log, to save, to leave the loop.

        Raises:
            DivergenceError: the epoch's loss is not finite; what was saved at its beginning is good.
        """
        state = self.state
        while state.step < self.recipe.epochs * self.steps_per_epoch:
            self.train_step()
            if state.step % self.steps_per_epoch == 0:
                number = state.step // self.steps_per_epoch
                loss, accuracy = (state.totals / self.steps_per_epoch).tolist()
                state.totals.zero_()
                if not math.isfinite(loss):
                    raise DivergenceError(
                        f"epoch {number}: loss not finite ({loss})", since=state.step - self.steps_per_epoch
                    )
                yield Epoch(number, loss, accuracy, self.recipe.learning_rate_in(number - 1))


@torch.no_grad()
def accuracy(network: nn.Module, data: ImageData, *, batch_size: int = 500) -> float:
    """The share of images that a classifier names rightly, in eval mode; its mode is restored."""
    device = next(network.parameters()).device
    training = network.training
    network.eval()
    right = torch.zeros((), dtype=torch.int64, device=device)
    for images, labels in zip(data.images.split(batch_size), data.labels.split(batch_size), strict=True):
        right += (network(to_float(images.to(device))).argmax(1) == labels.to(device)).sum()
    network.train(training)
    return int(right) / len(data)
