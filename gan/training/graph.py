"""Fast step: the iteration of gan/training/iteration.py captured in one CUDA graph.

An iteration of a small GAN is thousands of kernel launches, each with little work on a GPU. Replaying them as one graph
is expected to be faster there, which has not been measured. The fast step copies the random inputs of an iteration into
tensors with fixed addresses and replays one graph with the rest: both networks, power iteration, optimizers, averaging
and the sums for the log. The graph has no state of its own; it reads and writes the tensors of the `TrainState`.

If an iteration cannot be captured, the plain step is used and the reason is printed, see `obstacle`.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import NamedTuple, cast

import torch
from torch import nn

from gan.errors import ConfigError
from gan.training.arithmetic import Arithmetic
from gan.training.iteration import Iteration, learning_rates
from gan.training.state import undone
from gan.training.trainer import Trainer

WARMUP = 3
"""Iterations before the capture, in which libraries select kernels and allocate memory; the state is restored."""

COMPILED = "networks compiled"
"""Part of the name of a fast step with compiled networks."""


class Choice(NamedTuple):
    """Chosen training step. Its name states the reason for the choice; the run prints and records it."""

    train_step: Callable[[], None]
    name: str


def choose_step(trainer: Trainer) -> Choice:
    """Chooses the fast step if train.fast allows it and nothing prevents it, otherwise the trainer's own step.

    With "compile", a failure with compiled networks is followed by an attempt without compilation.

    Raises:
        ConfigError: the capture failed and train.fast is "on"; otherwise the trainer's own step is returned instead.
    """
    reason = obstacle(trainer)
    if reason:
        return Choice(trainer.train_step, f"plain step: {reason}{trainer.iteration.arithmetic.note}")
    how = ""
    try:
        fast, how = _compiled(trainer.iteration) if trainer.settings.fast == "compile" else (None, "")
        fast = FastStep(trainer.iteration) if fast is None else fast
    except RuntimeError as error:
        failure = f"the capture failed ({_causes(error)})"
        if trainer.settings.fast == "on":
            raise ConfigError(f"train.fast: got on, but {failure}; use auto or off to train without it") from error
        return Choice(trainer.train_step, f"plain step: {failure}{trainer.iteration.arithmetic.note}")
    return Choice(fast.train_step, f"fast step: one CUDA graph per iteration{how}{fast.iteration.arithmetic.note}")


def _compiled(iteration: Iteration) -> "tuple[FastStep | None, str]":
    """Fast step with compiled networks, or None if it fails, and the part of its name that says so."""
    try:
        return FastStep(iteration, compiled=True), f", {COMPILED}"
    except (RuntimeError, ImportError) as error:
        return None, f", not compiled ({_causes(error)})"


def _causes(error: BaseException | None) -> str:
    """First lines of an error and of those that led to it; that of an interrupted capture names no operation."""
    lines: list[str] = []
    while error is not None:
        first, *further = str(error).splitlines() or [type(error).__name__]
        lines.append(f"{first} {further[0]}" if first.endswith(":") and further else first)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return ", caused by: ".join(dict.fromkeys(lines))


def obstacle(trainer: Trainer) -> str:
    """Known reason why an iteration cannot be captured; "" if there is none."""
    if trainer.settings.fast == "off":
        return "train.fast is off"
    if trainer.processes.count > 1:
        return f"{trainer.processes.count} processes exchange gradients during an iteration"
    if trainer.device.type != "cuda":
        return f"a CUDA graph needs a CUDA device, this is {trainer.device}"
    if not trainer.batches.resident:
        return "the images do not fit on the device"
    return ""


class FastStep:
    """Trains a `TrainState` by replaying a CUDA graph, with the results of `Trainer.train_step` up to rounding.

    All weights are normalized together. Between steps the state may be read, saved and written in place,
    `TrainState.totals` included. After `TrainState.load_state_dict`, which gives the optimizers new tensors, a new
    `FastStep` is needed.

    Args:
        iteration: the trainer's iteration.
        captured: False runs the same operations without a graph, on any device, for tests.
        compiled: torch.compile computes both networks and the normalized weights; results change only by rounding.
            Penalties call the discriminator itself, because compiled code has no second derivatives.

    Attributes:
        inputs: random inputs of the current iteration, in tensors with fixed addresses.

    Raises:
        RuntimeError, ImportError: the capture or the compilation failed; the state is unchanged.
    """

    def __init__(self, iteration: Iteration, *, captured: bool = True, compiled: bool = False) -> None:
        self.state = state = iteration.state
        precision = iteration.settings.precision
        arithmetic = Arithmetic(state.discriminator, precision, together=True)
        self.iteration = replace(iteration, arithmetic=arithmetic)
        if compiled:
            arithmetic.compile_()
            compiled_ = partial(cast(Callable[..., nn.Module], torch.compile), dynamic=False)
            networks = compiled_(iteration.generator), compiled_(iteration.discriminator)
            self.iteration = replace(self.iteration, generator=networks[0], discriminator=networks[1])
        self._optimizers = (state.g_optimizer, state.d_optimizer)
        for optimizer in self._optimizers:
            _prepare_adam_(optimizer)
        self._optimizer_states = [optimizer.state for optimizer in self._optimizers]
        self.inputs = self.iteration.draw(state.step)
        rates = learning_rates(iteration.settings, state.step)
        self.rates = [torch.full((), rate, device=iteration.device) for rate in rates]
        self._launch = self._capture() if captured else self.iterate

    def train_step(self) -> None:
        """Runs one iteration without waiting for the device."""
        held = zip(self._optimizers, self._optimizer_states, strict=True)
        assert all(optimizer.state is state for optimizer, state in held), "Adam's state changed: make a new FastStep"
        for tensor, rate in zip(self.rates, self.iteration.set_learning_rates(), strict=True):
            tensor.fill_(rate)
        self.draw_(self.state.step)
        self._launch()
        self.state.step += 1

    def draw_(self, step: int) -> None:
        """Copies the inputs of iteration `step` into `inputs`; a random generator cannot be seeded inside a graph."""
        for held, drawn in zip(self.inputs.tensors(), self.iteration.draw(step).tensors(), strict=True):
            held.copy_(drawn)

    def iterate(self) -> None:
        """Runs the operations of the graph: an iteration on `inputs`."""
        with self._adam_on_device():
            self.iteration.train(self.inputs)

    @contextmanager
    def _adam_on_device(self) -> Iterator[None]:
        """Context manager: Adam is capturable and reads its learning rates from the tensors `rates`."""
        pairs = zip(self._optimizers, self.rates, strict=True)
        groups = [(group, rate) for optimizer, rate in pairs for group in optimizer.param_groups]
        before = [dict(group) for group, _ in groups]
        try:
            for group, rate in groups:
                group.update(lr=rate, capturable=True, fused=True)
            yield
        finally:
            for (group, _), settings in zip(groups, before, strict=True):
                group.update(settings)

    def _capture(self) -> Callable[[], None]:
        """Captures `iterate` without running it; returns the function that replays it."""
        graph, device = torch.cuda.CUDAGraph(), self.iteration.device
        try:
            with torch.cuda.device(device), warnings.catch_warnings():
                # The compiler looks for a gradient of the weights that `Arithmetic.weights` computes.
                warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
                # Warm-up and capture share a stream: autograd accumulates gradients on the stream of their first use.
                stream = torch.cuda.Stream()
                with undone(list(self.state.tensors())):
                    self._warm_up(stream)
                self._drop_gradients()  # the capture allocates them in the graph's memory
                # The outer context restores the stream even if ending the capture fails.
                with torch.cuda.stream(stream), torch.cuda.graph(graph, stream=stream):
                    self.iterate()
        except Exception:
            self._drop_gradients()
            for optimizer in self._optimizers:
                _release_adam_(optimizer)
            raise

        def replay() -> None:
            with torch.cuda.device(device):
                graph.replay()

        return replay

    def _warm_up(self, stream: torch.cuda.Stream) -> None:
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARMUP):
                self.iterate()
        torch.cuda.current_stream().wait_stream(stream)

    def _drop_gradients(self) -> None:
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)


def _prepare_adam_(optimizer: torch.optim.Optimizer) -> None:
    """Initializes Adam's state on the device, because each replay would set a state created in the capture to zero."""
    assert isinstance(optimizer, torch.optim.Adam), type(optimizer).__name__
    for parameter in chain.from_iterable(group["params"] for group in optimizer.param_groups):
        entry = optimizer.state[parameter]
        if not entry:
            entry["step"] = torch.zeros(())
            entry["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            entry["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        entry["step"] = entry["step"].to(device=parameter.device, dtype=torch.float32)


def _release_adam_(optimizer: torch.optim.Optimizer) -> None:
    """Moves Adam's step counts back to the host, unless its settings keep them on the device."""
    for group in optimizer.param_groups:
        if not (group["fused"] or group["capturable"]):
            for parameter in group["params"]:
                optimizer.state[parameter]["step"] = optimizer.state[parameter]["step"].cpu()


__all__ = ["COMPILED", "Choice", "FastStep", "choose_step", "obstacle"]
