"""Computations that test_distributed.py runs alone and in two processes: `torchrun ... distributed_cases.py FOLDER`.

Each process writes its result of each case to FOLDER/<case>-<rank>.pt.
"""

import copy
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from stepping import discriminator_step, generator_step
from torch import nn

from evaluation.errors import EvaluationError
from evaluation.runtime.processes import by_the_first, gathered, own_part
from gan import build
from gan.config import load_config
from gan.errors import UserError
from gan.models.blocks import BatchNorm, ConditionalBatchNorm
from gan.runs.gradients import scalars_of
from gan.runtime.distributed import Processes, started
from gan.training.gradients import measure_gradients
from gan.training.graph import choose_step
from gan.training.trainer import Trainer

STEPS = 20
CASES = {
    "sn": ["discriminator.normalization=sn"],
    "sn-few-images": ["discriminator.penalty=lecam", "train.augment=color,translation,cutout"],
    "srn": ["discriminator.normalization=srn"],
    "srn-conditional-r1": ["discriminator.normalization=srn", "conditional=true", "discriminator.penalty=r1"],
    "wgan_gp-conditional": ["discriminator.normalization=wgan_gp", "conditional=true", "train.loss=wasserstein"],
    "ortho": ["discriminator.normalization=ortho"],
}
COUNTS = (3, 4, 9, 20)


def make_trainer(case: str, data: Path, processes: Processes, *overrides: str) -> Trainer:
    """Trainer of the smoke configuration with averaging and flips."""
    d_steps = 2 if case == "sn" else 1  # keeps the test short
    fixed = [f"data.root={data}", "train.ema_decay=0.9", "train.flip=true", f"train.d_steps={d_steps}"]
    config = load_config("smoke", [*fixed, *CASES[case], *overrides])
    state = build.build_state(config)
    batches = build.build_batches(config, build.load_images(config, "train"), "cpu", processes)
    return Trainer(
        state, batches, build.build_loss(config), config.train, z_dim=config.generator.z_dim, processes=processes
    )


@contextmanager
def in_float64() -> Iterator[None]:
    """Context in which training uses float64 in place of float32, so that rounding hides no error."""
    torch.set_default_dtype(torch.float64)
    try:
        with mock.patch.object(torch.Tensor, "float", torch.Tensor.double):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def first_gradients(trainer: Trainer) -> dict[str, Any]:
    """Logged values and gradients of all parameters in the first step of both networks, and a record of gradients."""
    state, mean = trainer.state, trainer.processes.mean
    scalars = [mean(generator_step(trainer, 0)).view(1)]
    gradients = {f"generator.{name}": value.grad for name, value in state.generator.named_parameters()}
    gradients = copy.deepcopy(gradients)
    scalars.append(mean(discriminator_step(trainer, 0)))
    gradients |= {f"discriminator.{name}": value.grad for name, value in state.discriminator.named_parameters()}
    watched = torch.tensor(list(scalars_of(measure_gradients(trainer.iteration).record()).values()))
    return {"scalars": torch.cat(scalars), "gradients": gradients, "watched": watched}


def train(trainer: Trainer, until: int) -> dict[str, Any]:
    """Trains to step `until`; returns a copy of the state."""
    while trainer.state.step < until:
        trainer.train_step()
    return copy.deepcopy(trainer.state.state_dict())


def resume(case: str, data: Path, processes: Processes, half: dict[str, Any]) -> dict[str, Any]:
    """Resumes from the state `half` in float64; returns the final state."""
    with in_float64():
        trainer = make_trainer(case, data, processes)
        trainer.state.load_state_dict(half)
        return train(trainer, STEPS)


IN_FLOAT32 = ("srn-conditional-r1", "wgan_gp-conditional")
"""Cases that also train to the end in float32: one of each kind, to keep the test short."""


def run(case: str, data: Path, processes: Processes) -> dict[str, Any]:
    """First gradients and final states in float32 and float64, and the float64 state half-way."""
    result = {"float32": first_gradients(make_trainer(case, data, processes))}
    if case in IN_FLOAT32:
        result["end in float32"] = train(make_trainer(case, data, processes), STEPS)
    with in_float64():
        result["float64"] = first_gradients(make_trainer(case, data, processes))
        trainer = make_trainer(case, data, processes)
        result["half"] = train(trainer, STEPS // 2)
        result["end"] = train(trainer, STEPS)
    return result


def batch_norms(processes: Processes) -> dict[str, dict[str, Any]]:
    """This process's outputs, gradients and running statistics of kinds of batch norm over a batch of 8."""
    maps = torch.randn(2, 8, 3, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    labels, share, found = torch.arange(8) % 2, processes.share, {}
    plain = (nn.BatchNorm2d(3, momentum=None, affine=False), nn.BatchNorm1d(48))
    for norm in (BatchNorm(3), ConditionalBatchNorm(3, 2), *plain):
        norm.double()
        x, weights = maps.flatten(2) if isinstance(norm, nn.BatchNorm1d) else maps
        with torch.no_grad():
            for parameter in norm.parameters():
                parameter.copy_(torch.arange(1.0, 1 + parameter.numel()).view_as(parameter))
        own = share(x).clone().requires_grad_()
        arguments = (own,) if norm in plain else (own, share(labels))
        output = processes.synchronized(norm)(*arguments)
        (output.square() * share(weights)).sum().backward()
        found[type(norm).__name__] = {
            "output": output.detach(),
            "gradient": own.grad,
            "gradients": [parameter.grad for parameter in norm.parameters()],
            "buffers": dict(norm.named_buffers()),
        }
    return found


def raised(call: Callable[[], object]) -> str:
    """Type and text of the error that a call raises, "" if it raises none."""
    try:
        call()
    except (UserError, EvaluationError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def refuse(error: Exception) -> None:
    """Raises the error."""
    raise error


def answers(processes: Processes) -> dict[str, Any]:
    """This process's results of `Processes` and of evaluation's shared functions."""
    rank, first = processes.rank, processes.first
    stop = processes.agreed(lambda step: "signal 15" if step == 3 and rank else "")
    return {
        "share": processes.share(torch.arange(6)).tolist(),
        "mean": float(processes.mean(torch.tensor(float(rank)))),
        "first": first(lambda: rank),
        "refused": raised(lambda: first(lambda: refuse(UserError("no")))),
        "other files": raised(lambda: processes.check_equal("ab"[rank], "the data")),
        "stop": [stop(2), stop(3)],
        "own": [len(range(count)[own_part(count, 4)]) for count in COUNTS],
        "gathered": [gathered(torch.arange(count)[own_part(count, 4)]) for count in COUNTS],
        "of one": gathered(None if rank == 0 else torch.ones(2)),
        "of none": gathered(None),
        "images": gathered(torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last)),
        "evaluated": by_the_first(lambda: rank),
        "not evaluated": raised(lambda: by_the_first(lambda: refuse(EvaluationError("no")))),
        "norms": batch_norms(processes),
    }


def equalized(data: Path, processes: Processes) -> dict[str, Any]:
    """State after `Processes.equalize_`, which all processes but the first had overwritten before."""
    trainer = make_trainer("srn-conditional-r1", data, processes)
    trainer.train_step()
    if not processes.is_first:
        for tensor in trainer.state.tensors():
            tensor.detach().fill_(7)
    processes.equalize_(trainer.state.tensors())
    return trainer.state.state_dict()


def diverged(data: Path, processes: Processes) -> str:
    """Error of a step in which only the last process has a loss that is not finite."""
    trainer = make_trainer("sn", data, processes)
    if processes.rank == processes.count - 1:
        loss = trainer.iteration.loss
        hinge = loss.discriminator
        loss = loss._replace(discriminator=lambda real, fake: hinge(real, fake) * float("nan"))
        trainer.iteration = replace(trainer.iteration, loss=loss)
    trainer.train_step()
    return raised(trainer.take_scalars)


def main(folder: Path) -> None:
    """Runs all cases in this process and writes the results."""
    data = folder / "data"
    with started(torch.device("cpu")) as processes:
        for case in CASES:
            result = run(case, data, processes)
            result["resumed"] = resume(case, data, processes, torch.load(folder / f"{case}-half.pt"))
            torch.save(result, folder / f"{case}-{processes.rank}.pt")
        result = answers(processes) | {
            "equalized": equalized(data, processes),
            "diverged": diverged(data, processes),
            "step": choose_step(make_trainer("sn", data, processes, "train.fast=auto")).name,
        }
        torch.save(result, folder / f"answers-{processes.rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
