"""Step "convolutions": time of every distinct convolution of an iteration, forward, by input and by weight."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from benchmarks.counting import count_flops
from benchmarks.sizes import SIZES, configure, make_step
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from checking.conditions import Conditions, Record

aten = torch.ops.aten
LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
MASKS = {"by input": [True, False, False], "by weight": [False, True, False]}
CALLS, REPEATS = 10, 5


@contextmanager
def tuned(benchmark: bool) -> Iterator[None]:
    """Context manager: whether cuDNN times its algorithms for each new convolution and takes the fastest."""
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, benchmark
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


class Convolution(NamedTuple):
    """A convolution: shapes of input, weight and output, type, and aten's other arguments (stride to groups)."""

    input: tuple[int, ...]
    weight: tuple[int, ...]
    output: tuple[int, ...]
    dtype: torch.dtype
    rest: tuple[Any, ...]


class _Found(TorchDispatchMode):
    """Counts convolutions and their gradients by (convolution, pass)."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[tuple[Convolution, str]] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        if function is aten.convolution.default:
            self._count(out, args[0], args[1], args[3:9], ["forward"])
        elif function is aten.convolution_backward.default:
            asked = [name for name, wanted in zip(MASKS, args[10], strict=False) if wanted]
            self._count(args[0], args[1], args[2], args[4:10], asked)
        return out

    def _count(self, output: Tensor, images: Tensor, weight: Tensor, rest: Any, passes: list[str]) -> None:
        settings = tuple(tuple(part) if isinstance(part, list) else part for part in rest)
        shapes = (tuple(images.shape), tuple(weight.shape), tuple(output.shape))
        for name in passes:
            self.counts[Convolution(*shapes, images.dtype, settings), name] += 1


def convolutions(conditions: Conditions) -> Iterator[Record]:
    """Yields a row per convolution and pass of SRN in bf16: number per iteration, and ms and TFLOP/s of each form.

    The forms are both layouts, each with and without cudnn.benchmark. The last record has the milliseconds of all
    convolutions of an iteration, by form and with the fastest form of each.
    """
    settings = ["discriminator.normalization=srn", "train.precision=bf16", "train.fast=off"]
    step = make_step(configure(SIZES[conditions.size], settings), conditions.device)
    with _Found() as found:
        step.train_step()
    rows: list[Record] = []
    for (convolution, name), count in found.counts.items():
        rows.append({**_described(convolution), "pass": name, "count": count, **_forms(convolution, name, conditions)})
        yield {"convolutions": rows}
    forms = [key for key in rows[0] if key.endswith("_ms")]
    sums: Record = {form: round(sum(row["count"] * row[form] for row in rows), 3) for form in forms}
    sums["fastest of each"] = round(sum(row["count"] * min(row[form] for form in forms) for row in rows), 3)
    yield {"ms per iteration": sums, "TFLOP per iteration": round(sum(r["count"] * r["GFLOP"] for r in rows) / 1e3, 4)}


def _described(convolution: Convolution) -> Record:
    stride, padding, _, transposed = convolution.rest[:4]
    shown = f"{'x'.join(map(str, convolution.input))} * {'x'.join(map(str, convolution.weight))}"
    shown += f", stride {stride[0]}, padding {padding[0]}" + (", transposed" if transposed else "")
    return {"convolution": shown, "dtype": str(convolution.dtype).removeprefix("torch.")}


def _forms(convolution: Convolution, name: str, conditions: Conditions) -> Record:
    times: Record = {}
    for layout, memory_format in LAYOUTS.items():
        run = _runner(convolution, name, memory_format, conditions.device)
        if "GFLOP" not in times:
            flops = count_flops(run)
            times["GFLOP"] = round(flops / 1e9, 4)
        for benchmark in (False, True):
            form = f"{layout}{', benchmark' if benchmark else ''}"
            with tuned(benchmark):
                milliseconds = _milliseconds(run, conditions)
            times |= {f"{form}_ms": round(milliseconds, 5), f"{form}_TFLOP/s": round(flops / milliseconds / 1e9, 2)}
    return times


def _runner(convolution: Convolution, name: str, layout: torch.memory_format, device: str) -> Callable[[], Any]:
    images, weight, output = (
        torch.randn(shape, dtype=convolution.dtype, device=device).contiguous(memory_format=layout)
        for shape in convolution[:3]
    )
    rest = [list(part) if isinstance(part, tuple) else part for part in convolution.rest]
    if name == "forward":
        return partial(aten.convolution, images, weight, None, *rest)
    return partial(aten.convolution_backward, output, images, weight, [0], *rest, MASKS[name])


def _milliseconds(run: Callable[[], Any], conditions: Conditions) -> float:
    """Milliseconds of one call: on a GPU the minimum over replays of a graph of calls, elsewhere of a single call."""
    if conditions.device != "cuda":
        started = time.perf_counter()
        run()
        return 1000 * (time.perf_counter() - started)
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream):
        for _ in range(2):  # cudnn.benchmark times its algorithms
            run()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph, stream=stream):
        for _ in range(CALLS):
            run()
    times = []
    for _ in range(REPEATS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / CALLS)
    return max(min(times), 1e-6)
