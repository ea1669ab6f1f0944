"""Everything of a run that is not a function of the step."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gan.health import Health

TOTALS = ("d_loss", "real_logit", "fake_logit", "g_loss")
"""What a run sums up between two lines of its log; the last entry of `TrainState.totals` counts steps."""


@dataclass
class TrainState:
    """What a checkpoint holds besides the configuration.

    step: completed generator steps.
    average: the averaged generator, or None.
    num_classes: 0 for unconditional networks.
    class_names: of the classes, empty if unconditional or not known yet.
    totals: float64 (len(TOTALS) + 1,), sums since the last line of the log.
    data_fingerprint: of the training images, empty before they are known.
    health: what the alarms remember.
    retries: one entry for each time that the run diverged and went back: "from", a step, and "reason".
    """

    generator: nn.Module
    discriminator: nn.Module
    average: nn.Module | None
    g_optimizer: torch.optim.Optimizer
    d_optimizer: torch.optim.Optimizer
    num_classes: int
    totals: Tensor
    step: int = 0
    class_names: tuple[str, ...] = ()
    data_fingerprint: str = ""
    health: Health = field(default_factory=Health)
    retries: list[dict[str, Any]] = field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "num_classes": self.num_classes,
            "class_names": list(self.class_names),
            "data_fingerprint": self.data_fingerprint,
            "health": self.health.state_dict(),
            "retries": [dict(entry) for entry in self.retries],
            "totals": self.totals,
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "g_optimizer": self.g_optimizer.state_dict(),
            "d_optimizer": self.d_optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises KeyError, RuntimeError or ValueError where the state does not fit these networks."""
        self.generator.load_state_dict(state["generator"])
        self.discriminator.load_state_dict(state["discriminator"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.g_optimizer.load_state_dict(state["g_optimizer"])
        self.d_optimizer.load_state_dict(state["d_optimizer"])
        self.totals.copy_(state["totals"])
        self.step = state["step"]
        self.class_names = tuple(state["class_names"])
        self.data_fingerprint = state["data_fingerprint"]
        self.health = Health(**state.get("health", {}))  # checkpoints of earlier versions have neither
        self.retries = [dict(entry) for entry in state.get("retries", [])]
