"""Step "capture": CUDA graphs at full size against the plain step, with deterministic kernels."""

import math
import time
from collections.abc import Iterator

import torch
from benchmarks.sizes import SIZES, configure, make_trainer_and_step
from torch import Tensor

from checking.conditions import Conditions, Record
from gan.errors import ConfigError
from gan.runtime.determinism import determinism
from gan.training.state import TrainState

CASES = {
    "srn": ["discriminator.normalization=srn"],
    "sn": ["discriminator.normalization=sn"],
    "none": ["discriminator.normalization=none"],
    "wgan_gp": ["discriminator.normalization=wgan_gp"],
    "conditional": ["discriminator.normalization=srn", "conditional=true", "train.ema_decay=0.999", "train.flip=true"],
}
CLASSES = 10
STEPS = 5
"""Compared iterations. Over more of them Adam amplifies the rounding of gradients near zero."""


def capture(conditions: Conditions) -> Iterator[Record]:
    """Yields for each case, after the same iterations of both steps: differences, seconds of the capture, memory."""
    cases: Record = {}
    with determinism(True):
        for name, settings in CASES.items():
            try:
                cases[name] = _compare(settings, conditions)
            except (RuntimeError, ConfigError) as error:  # the others are worth knowing
                cases[name] = {"captured": False, "difference": math.inf, "error": _causes(error)}
            yield {"of": len(CASES), "cases": cases}


def _causes(error: BaseException | None) -> list[str]:
    """Messages of an error and of those during whose handling it was raised."""
    return [] if error is None else [str(error), *_causes(error.__cause__ or error.__context__)]


def _compare(settings: list[str], conditions: Conditions) -> Record:
    plain, fast = (_trained([*settings, f"train.fast={choice}"], conditions) for choice in ("off", "on"))
    states: list[TrainState] = [plain.pop("state"), fast.pop("state")]
    expected, totals = (state.totals.double().cpu() for state in states)
    weights = [torch.cat([value.flatten() for value in state.discriminator.state_dict().values()]) for state in states]
    return {
        "captured": str(fast["step"]).startswith("fast step"),
        "difference": largest_difference(totals, expected),
        "largest difference of a weight": float((weights[0].double() - weights[1].double()).abs().max()),
        "plain": plain,
        "fast": fast,
    }


def largest_difference(totals: Tensor, expected: Tensor) -> float:
    """Largest relative difference of sums of losses and logits; differences below 1 count as of 1."""
    return float(((totals - expected).abs() / expected.abs().clamp_min(1)).max())


def _trained(settings: list[str], conditions: Conditions) -> Record:
    """Trains a new state for some iterations; returns it, with the seconds of preparing the step and peak memory."""
    on_gpu = conditions.device == "cuda"
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    classes = CLASSES if "conditional=true" in settings else 0
    begin = time.perf_counter()
    trainer, step = make_trainer_and_step(configure(SIZES[conditions.size], settings), conditions.device, classes)
    prepared = time.perf_counter() - begin
    for _ in range(STEPS):
        step.train_step()
    trainer.check_finite()
    return {
        "state": trainer.state,
        "step": step.name,
        "seconds to prepare": round(prepared, 2),
        "peak_MiB": round(torch.cuda.max_memory_allocated() / 2**20) if on_gpu else 0,
    }
