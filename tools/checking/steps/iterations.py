"""Steps "iteration" and "variants": time of an iteration, by tools/benchmark.py and by settings of the graph."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from benchmarks.sizes import SIZES, configure, make_trainer_and_step
from benchmarks.timing import calls_in_a_row, interleave, summarize
from benchmarks.training import measure_train
from torch import Tensor

from checking.conditions import Conditions, Record
from checking.steps.capture import largest_difference
from checking.steps.convolutions import tuned
from gan.errors import ConfigError
from gan.training.graph import COMPILED


def iteration(conditions: Conditions) -> Iterator[Record]:
    """Yields the rows of `benchmark.py train`: bf16 with torch-mimicry, then SRN in fp32 and tf32."""
    calls = (
        ("iteration", ["--normalization", "none,sn,srn", "--precision", "bf16"]),
        ("other precisions", ["--normalization", "srn", "--precision", "fp32,tf32", "--no-peer"]),
    )
    for name, arguments in calls:
        arguments += ["--size", conditions.size, "--device", conditions.device, "--no-memory"]
        arguments += ["--repeats", conditions.choose("5", "2")]
        record = measure_train.main(arguments, standalone_mode=False)
        yield {name: record.pop("iteration"), f"conditions of {name}": record}


class _Variant(NamedTuple):
    """Settings of a run, and whether cuDNN times its algorithms."""

    settings: list[str]
    benchmark: bool = False


VARIANTS = {
    "plain": _Variant(["train.fast=off"]),
    "fast": _Variant(["train.fast=on"]),
    "fast, cudnn.benchmark": _Variant(["train.fast=on"], benchmark=True),
    "fast, tf32": _Variant(["train.fast=on", "train.precision=tf32"]),
    "fast, averaged, flipped": _Variant(["train.fast=on", "train.ema_decay=0.999", "train.flip=true"]),
    "compile": _Variant(["train.fast=compile"]),
    "compile, cudnn.benchmark": _Variant(["train.fast=compile"], benchmark=True),
}
"""Variants of SRN in bf16, the compiled ones last, because compiling may take longer than there is time."""


def variants(conditions: Conditions) -> Iterator[Record]:
    """Yields the times of the variants, measured in turn, and reasons for those left out.

    Those that are not compiled are timed together, then each compiled one with the first of them, as soon as it is
    built. One with train.fast=compile that is not compiled is left out: its time would be that of another variant.
    "differences" are those of losses and logits of the first iteration from the plain step's; mirrored images differ.
    """
    built: dict[str, Callable[[], Any]] = {}
    totals: dict[str, Tensor] = {}
    notes: Record = {}
    rows: Record = {}
    for name, variant in VARIANTS.items():
        is_compiled = "train.fast=compile" in variant.settings
        if is_compiled and not rows:
            rows = _timed(built, conditions)
            yield {"variants": rows}
        settings = ["discriminator.normalization=srn", "train.precision=bf16", *variant.settings]
        with tuned(variant.benchmark):
            try:
                trainer, step = make_trainer_and_step(configure(SIZES[conditions.size], settings), conditions.device)
                step.train_step()  # also selects the plain step's algorithms
            except ConfigError as error:
                notes[name] = f"left out: {error}"
                continue
        if conditions.device == "cuda" and is_compiled and COMPILED not in step.name:
            notes[name] = f"left out: {step.name}"
            continue
        built[name], notes[name] = step.train_step, step.name
        totals[name] = trainer.state.totals.double().cpu().clone()  # _timed adds to them
        differences = {one: largest_difference(value, totals["plain"]) for one, value in totals.items()}
        yield {"steps": notes, "differences": differences}
        if is_compiled:
            first = next(iter(built))
            rows[name] = _timed({first: built[first], name: step.train_step}, conditions)[name]
            yield {"variants": rows}
    yield {"variants": rows, "steps": notes}


def _timed(built: dict[str, Callable[[], Any]], conditions: Conditions) -> Record:
    calls = calls_in_a_row(conditions.device)
    return summarize(interleave(built, conditions.choose(5, 2), conditions.device, warm=1, calls=calls))
