"""Everything of a classifier's run that is not a function of the step."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gan.config.classifier import ClassifierTrainSettings
from gan.training.state import check_origin, check_tensors


@dataclass
class ClassifierState:
    """What a checkpoint holds besides the configuration.

    totals: float64 (2,), sums over the epoch that is under way: of the batches' losses, of the shares of right answers.
    step: completed updates.
    class_names, data_fingerprint: of the training images, empty before they are known.
    reached: whether an epoch had the training accuracy to stop at.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    num_classes: int
    totals: Tensor
    step: int = 0
    class_names: tuple[str, ...] = ()
    data_fingerprint: str = ""
    reached: bool = False

    @classmethod
    def begin(cls, network: nn.Module, settings: ClassifierTrainSettings, num_classes: int) -> "ClassifierState":
        """Before the first update, of a network that is normalized and on its device already."""
        parameters = list(network.parameters())
        optimizer = torch.optim.SGD(
            parameters,
            lr=settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            nesterov=settings.nesterov,
        )
        totals = torch.zeros(2, dtype=torch.float64, device=parameters[0].device)
        return cls(network, optimizer, num_classes, totals)

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "num_classes": self.num_classes,
            "class_names": list(self.class_names),
            "data_fingerprint": self.data_fingerprint,
            "reached": self.reached,
            "totals": self.totals,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises KeyError, RuntimeError or ValueError where the state does not fit this network."""
        check_origin(state, self.num_classes)
        if not isinstance(state["reached"], bool):
            raise ValueError(f"reached: got {state['reached']!r}, expected true or false")
        check_tensors("network", self.network.state_dict(), state["network"])
        check_tensors("state", {"totals": self.totals}, state)
        moments = state["optimizer"]["state"]
        for index, parameter in enumerate(self.network.parameters()):
            if moments.get(index):
                check_tensors(f"optimizer.{index}", {"momentum_buffer": parameter}, moments[index])
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.totals.copy_(state["totals"])
        self.step = state["step"]
        self.class_names = tuple(state["class_names"])
        self.data_fingerprint = state["data_fingerprint"]
        self.reached = state["reached"]
