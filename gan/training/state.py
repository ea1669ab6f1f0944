"""Everything of a run that is not a function of the step."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from gan.training.health import Health

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

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor that an iteration changes, the very ones."""
        for network in (self.generator, self.discriminator, self.average):
            if network is not None:
                yield from chain(network.parameters(), network.buffers())
        for optimizer in (self.g_optimizer, self.d_optimizer):
            for entry in optimizer.state.values():
                yield from entry.values()
        yield self.totals

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
        self._check(state)
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
        self.health = Health.of(state.get("health", {}))  # checkpoints of earlier versions have neither
        self.retries = [dict(entry) for entry in state.get("retries", [])]

    def _check(self, state: dict[str, Any]) -> None:
        """Refuses what torch would load and fail on later, or convert: other types, shapes, names that are no names."""
        check_origin(state, self.num_classes)
        for part in ("generator", "discriminator", "average"):
            network = getattr(self, part)
            if network is not None:
                check_tensors(part, network.state_dict(), state[part])
        for part, network in (("g_optimizer", self.generator), ("d_optimizer", self.discriminator)):
            for index, parameter in enumerate(network.parameters()):
                moments = dict.fromkeys(("exp_avg", "exp_avg_sq"), parameter)
                if index in state[part]["state"]:
                    check_tensors(f"{part}.{index}", moments, state[part]["state"][index])
        check_tensors("state", {"totals": self.totals}, state)


def check_origin(state: dict[str, Any], num_classes: int) -> None:
    """Raises KeyError or ValueError if what says which run a state is of has another type or form.

    Those are "step", "class_names", none or `num_classes`, and "data_fingerprint".
    """
    if type(state["step"]) is not int or state["step"] < 0:
        raise ValueError(f"step: got {state['step']!r}, expected completed steps")
    names = state["class_names"]
    if not isinstance(names, list) or len(names) not in (0, num_classes):
        raise ValueError(f"class_names: expected a list of {num_classes}")
    for name in names:
        if not isinstance(name, str) or "/" in name or name in ("", ".", ".."):  # gan-sample makes folders of them
            raise ValueError(f"class_names: got {name!r}, expected a name without slashes")
    if not isinstance(state["data_fingerprint"], str):
        raise ValueError("data_fingerprint: expected a text")


def check_tensors(place: str, expected: Mapping[str, Tensor], given: Any) -> None:
    """Raises KeyError or ValueError if a tensor is missing, or of another type or shape than the expected one."""
    for name, tensor in expected.items():
        found = given[name]
        if not isinstance(found, Tensor) or (found.dtype, found.shape) != (tensor.dtype, tensor.shape):
            got = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"{place}.{name}: got {got}, expected {tensor.dtype} {tuple(tensor.shape)}")
