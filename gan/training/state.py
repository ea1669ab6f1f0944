"""State of a training run: everything that is not a function of (seed, step)."""

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from gan.config.classifier import ClassifierTrainSettings
from gan.training.health import Health

TOTALS = ("d_loss", "real_logit", "fake_logit", "g_loss")
"""Scalars summed between two log lines, in the order of `TrainState.totals`, whose last entry counts steps."""


AVERAGING = 0.99
"""Decay of `TrainState.logit_averages`, as in Tseng et al. 2021."""


def new_averages(device: torch.device | str) -> Tensor:
    """Moving averages of no logits: the sums of weighted mean logits of real and generated images, and of weights."""
    return torch.zeros(3, dtype=torch.float64, device=device)


PARENT = {"name", "identity", "step", "networks", "num_classes", "new"}
"""Entries of `TrainState.parent`."""


@dataclass
class TrainState:
    """State of a GAN's training run: the contents of a checkpoint besides the configuration.

    step: completed generator updates.
    average: the averaged generator, or None.
    num_classes: 0 for unconditional networks.
    class_names: names of the classes; empty if unconditional or while the training images are unknown.
    totals: float64 (len(TOTALS) + 1,), sums since the last log line.
    logit_averages: see `new_averages`, or None if no penalty needs them.
    data_fingerprint: hash of the training images, empty while they are unknown.
    other_fingerprints: hashes of other splits by name, as far as they could be read when training began.
    health: state of the alarms.
    retries: one entry for each rollback after a divergence: "from", the step rolled back to, and "reason".
    parent: the run whose networks this one began with: "name", "identity", "step", "networks", their hash,
        "num_classes", and "new", the layers that began with new weights; empty without a parent.
    """

    generator: nn.Module
    discriminator: nn.Module
    average: nn.Module | None
    g_optimizer: torch.optim.Optimizer
    d_optimizer: torch.optim.Optimizer
    num_classes: int
    totals: Tensor
    logit_averages: Tensor | None = None
    step: int = 0
    class_names: tuple[str, ...] = ()
    data_fingerprint: str = ""
    other_fingerprints: dict[str, str] = field(default_factory=dict)
    health: Health = field(default_factory=Health)
    retries: list[dict[str, Any]] = field(default_factory=list)
    parent: dict[str, Any] = field(default_factory=dict)

    def networks_hash(self) -> str:
        """See the function `networks_hash`."""
        return networks_hash(self.generator, self.discriminator, self.average)

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor that an iteration changes, not copied."""
        for network in (self.generator, self.discriminator, self.average):
            if network is not None:
                yield from chain(network.parameters(), network.buffers())
        for optimizer in (self.g_optimizer, self.d_optimizer):
            for entry in optimizer.state.values():
                yield from entry.values()
        yield self.totals
        if self.logit_averages is not None:
            yield self.logit_averages

    def average_logits_(self, means: Tensor) -> Tensor:
        """Adds the mean logits of a batch, (2,), to the averages; returns those of real and generated images, (2,)."""
        assert self.logit_averages is not None
        added = torch.cat([means, means.new_ones(1)]).to(self.logit_averages.dtype)
        self.logit_averages.lerp_(added, 1 - AVERAGING)
        return (self.logit_averages[:2] / self.logit_averages[2]).to(means.dtype)

    def state_dict(self) -> dict[str, Any]:
        """State as saved in a checkpoint, with tensors that are not copied."""
        return {
            **_origin(self),
            "health": self.health.state_dict(),
            **({"parent": dict(self.parent)} if self.parent else {}),
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "g_optimizer": self.g_optimizer.state_dict(),
            "d_optimizer": self.d_optimizer.state_dict(),
            **({} if self.logit_averages is None else {"logit_averages": self.logit_averages}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Loads a state from `state_dict`.

        Raises:
            KeyError, RuntimeError, ValueError: the state does not fit these networks.
        """
        self._check(state)
        self.generator.load_state_dict(state["generator"])
        self.discriminator.load_state_dict(state["discriminator"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.g_optimizer.load_state_dict(state["g_optimizer"])
        self.d_optimizer.load_state_dict(state["d_optimizer"])
        if self.logit_averages is not None:
            self.logit_averages.copy_(state["logit_averages"])
        _load_origin(self, state)
        self.health = Health.of(state.get("health", {}))  # checkpoints of earlier versions have none
        self.parent = dict(state.get("parent", {}))

    def _check(self, state: dict[str, Any]) -> None:
        """Raises KeyError or ValueError for wrong types, shapes and names that torch would not report on loading."""
        _check_origin(self, state)
        if self.logit_averages is not None:
            _check_tensors("state", {"logit_averages": self.logit_averages}, state)
        parent = state.get("parent", {})
        if not isinstance(parent, dict) or (parent and parent.keys() != PARENT):
            raise ValueError(f"parent: expected {', '.join(sorted(PARENT))}")
        for part in ("generator", "discriminator", "average"):
            network = getattr(self, part)
            if network is not None:
                _check_tensors(part, network.state_dict(), state[part])
        for part, network in (("g_optimizer", self.generator), ("d_optimizer", self.discriminator)):
            for index, parameter in enumerate(network.parameters()):
                moments = dict.fromkeys(("exp_avg", "exp_avg_sq"), parameter)
                if index in state[part]["state"]:
                    _check_tensors(f"{part}.{index}", moments, state[part]["state"][index])


def networks_hash(generator: nn.Module, discriminator: nn.Module, average: nn.Module | None) -> str:
    """Returns the SHA-256 (16 hex digits) of the names and values of the networks' tensors."""
    digest = hashlib.sha256()
    for part, network in {"generator": generator, "discriminator": discriminator, "average": average}.items():
        for name, tensor in sorted(network.state_dict().items()) if network is not None else ():
            digest.update(f"{part}.{name}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()[:16]


@contextmanager
def undone(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Context manager: restores the values of the tensors at the end."""
    before = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)


@dataclass
class ClassifierState:
    """State of a classifier's training run: the contents of a checkpoint besides the configuration.

    totals: float64 (2,), sums of the batches' losses and accuracies over the current epoch.
    step: completed updates.
    class_names, data_fingerprint: classes and hash of the training images, empty while they are unknown.
    other_fingerprints: hashes of other splits by name, as in `TrainState`.
    reached: whether an epoch reached train.stop_accuracy.
    retries: one entry for each rollback after a divergence, as in `TrainState`.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    num_classes: int
    totals: Tensor
    step: int = 0
    class_names: tuple[str, ...] = ()
    data_fingerprint: str = ""
    other_fingerprints: dict[str, str] = field(default_factory=dict)
    reached: bool = False
    retries: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def begin(cls, network: nn.Module, settings: ClassifierTrainSettings, num_classes: int) -> "ClassifierState":
        """Initial state for a network that is already normalized and on its device."""
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
        """State as saved in a checkpoint, with tensors that are not copied."""
        return {
            **_origin(self),
            "reached": self.reached,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Loads a state from `state_dict`.

        Raises:
            KeyError, RuntimeError, ValueError: the state does not fit this network.
        """
        _check_origin(self, state)
        if not isinstance(state["reached"], bool):
            raise ValueError(f"reached: got {state['reached']!r}, expected true or false")
        _check_tensors("network", self.network.state_dict(), state["network"])
        moments = state["optimizer"]["state"]
        for index, parameter in enumerate(self.network.parameters()):
            if moments.get(index):
                _check_tensors(f"optimizer.{index}", {"momentum_buffer": parameter}, moments[index])
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        _load_origin(self, state)
        self.reached = state["reached"]


def _origin(state: TrainState | ClassifierState) -> dict[str, Any]:
    """Checkpoint entries that both kinds of state have."""
    return {
        "step": state.step,
        "num_classes": state.num_classes,
        "class_names": list(state.class_names),
        "data_fingerprint": state.data_fingerprint,
        "other_fingerprints": dict(state.other_fingerprints),
        "totals": state.totals,
        "retries": [dict(entry) for entry in state.retries],
    }


def _load_origin(own: TrainState | ClassifierState, state: dict[str, Any]) -> None:
    """Loads the entries of `_origin`."""
    own.totals.copy_(state["totals"])
    own.step = state["step"]
    own.class_names = composed(state["class_names"])
    own.data_fingerprint = state["data_fingerprint"]
    own.other_fingerprints = dict(state.get("other_fingerprints", {}))  # earlier versions recorded none
    own.retries = [dict(entry) for entry in state.get("retries", [])]  # checkpoints of earlier versions have none


def _check_origin(own: TrainState | ClassifierState, state: dict[str, Any]) -> None:
    """Raises KeyError or ValueError if an entry of `_origin` is missing or has an invalid type or value."""
    if type(state["step"]) is not int or state["step"] < 0:
        raise ValueError(f"step: got {state['step']!r}, expected the number of completed steps")
    check_class_names(state["class_names"], own.num_classes)
    if not isinstance(state["data_fingerprint"], str):
        raise ValueError("data_fingerprint: expected a string")
    others = state.get("other_fingerprints", {})
    if not isinstance(others, dict) or not all(isinstance(text, str) for text in (*others, *others.values())):
        raise ValueError("other_fingerprints: expected strings by name of the split")
    _check_tensors("state", {"totals": own.totals}, state)


def composed(names: Iterable[str]) -> tuple[str, ...]:
    """Returns class names in Unicode's composed form (NFC), as data sets have them; older checkpoints may differ."""
    return tuple(unicodedata.normalize("NFC", name) for name in names)


def check_class_names(names: Any, num_classes: int) -> None:
    """Raises ValueError unless these are `num_classes` names, or none, that can be names of folders."""
    if not isinstance(names, list) or len(names) not in (0, num_classes):
        raise ValueError(f"class_names: expected a list of {num_classes} names")
    for name in names:
        if not isinstance(name, str) or "/" in name or name in ("", ".", ".."):  # gan-sample names folders after them
            raise ValueError(f"class_names: got {name!r}, expected a name without slashes")


def _check_tensors(place: str, expected: Mapping[str, Tensor], given: Any) -> None:
    """Raises KeyError or ValueError if a tensor is missing or differs from the expected one in type or shape."""
    for name, tensor in expected.items():
        found = given[name]
        if not isinstance(found, Tensor) or (found.dtype, found.shape) != (tensor.dtype, tensor.shape):
            got = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"{place}.{name}: got {got}, expected {tensor.dtype} {tuple(tensor.shape)}")
