"""How long things take, in one process, one after the other in turn, so that a busy machine slows all of them alike.

python tools/benchmark.py normalize
python tools/benchmark.py normalize --layout contiguous --json normalize.json
"""

import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor
from torch.nn.utils import parametrizations

from gan.models import ResNetDiscriminator
from gan.normalization import NORMALIZED_LAYERS, BatchedNormalization, normalize, update_

LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "sn": ("sn", {}),
    "srn": ("srn", {"c": 0.3}),
    "bsn": ("bsn", {}),
    "srn_batched": ("srn", {"c": 0.3}),
}
REFERENCE = "torch"


@click.group(context_settings={"show_default": True})
def main() -> None:
    """Measure the cost of parts of this project."""


@main.command("normalize")
@click.option(
    "--layout", type=click.Choice(list(LAYOUTS)), default="channels_last", help="Memory format of the weights."
)
@click.option("--repeats", type=click.IntRange(3), default=100, help="Timed rounds; each runs every variant once.")
@click.option("--threads", type=click.IntRange(1), default=1, help="Of torch, on the CPU.")
@click.option("--device", default="cpu")
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures here too."
)
def measure_normalize(layout: str, repeats: int, threads: int, device: str, json_path: Path | None) -> None:
    """One normalization of the unconditional 32x32 discriminator: one power iteration, then all normalized weights.

    "forward" is that; "forward and backward" adds the gradients of all weights. Ratios are to torch's spectral_norm in
    the same run. The trainer keeps the weights channels-last.
    """
    torch.set_num_threads(threads)
    sizes = [
        module.weight.numel() for module in ResNetDiscriminator().modules() if isinstance(module, NORMALIZED_LAYERS)
    ]
    record = {
        "measured": f"one normalization of ResNetDiscriminator(32): {len(sizes)} weights, {sum(sizes):,} numbers",
        "layout": layout,
        "repeats": repeats,
        **machine(device),
    }
    for what, backward in (("forward", False), ("forward and backward", True)):
        variants = {name: _variant(name, LAYOUTS[layout], device, backward) for name in (REFERENCE, *OURS)}
        record[what] = summarize(interleave(variants, repeats, device))
    if json_path is not None:
        json_path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    click.echo("\n".join(_table(record)))


def _variant(name: str, layout: torch.memory_format, device: str, backward: bool) -> Callable[[], None]:
    """A function that normalizes all weights of its own discriminator once."""
    torch.manual_seed(0)
    network = ResNetDiscriminator()
    modules = [module for module in network.modules() if isinstance(module, NORMALIZED_LAYERS)]
    if name == REFERENCE:
        for module in modules:
            parametrizations.spectral_norm(module)
    else:
        choice, settings = OURS[name]
        normalize(network, choice, **settings)
    network.to(device=device, memory_format=layout)  # type: ignore[call-overload]
    batched = BatchedNormalization(network) if name.endswith("_batched") else None
    originals = [module.parametrizations.weight.original for module in modules]  # type: ignore[union-attr]
    gradients = [torch.randn_like(weight) for weight in originals]

    def weights() -> list[Tensor]:
        if batched is not None:
            batched.update_()
            found = batched.weights()
            return [found[f"{where}.weight"] for where, module in network.named_modules() if module in modules]
        if name != REFERENCE:
            update_(network)
        return [module.weight for module in modules]  # type: ignore[misc]

    def run() -> None:
        normalized = weights()
        if backward:
            torch.autograd.grad(normalized, originals, gradients)

    return run


def interleave(variants: dict[str, Callable[[], None]], repeats: int, device: str) -> dict[str, list[float]]:
    """Seconds of each variant, A B C A B C ..., after three rounds that do not count."""
    wait = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for index in range(-3, repeats):
        for name, run in variants.items():
            wait()
            start = time.perf_counter()
            run()
            wait()
            if index >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def summarize(seconds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median, quartiles and minimum in milliseconds, and the median's ratio to the reference's."""
    reference = statistics.median(seconds[REFERENCE])
    rows = {}
    for name, values in seconds.items():
        low, middle, high = statistics.quantiles(values, n=4)
        figures = {"median_ms": middle, "quartile1_ms": low, "quartile3_ms": high, "minimum_ms": min(values)}
        rows[name] = {key: round(1000 * value, 4) for key, value in figures.items()}
        rows[name]["ratio"] = round(middle / reference, 3)
        rows[name]["ratio_of_minima"] = round(min(values) / min(seconds[REFERENCE]), 3)
    return rows


def machine(device: str) -> dict[str, Any]:
    """What the figures depend on besides the code."""
    return {
        "device": torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "cpu"


def _table(record: dict[str, Any]) -> list[str]:
    lines = [f"{key}: {value}" for key, value in record.items() if not isinstance(value, dict)]
    for what, rows in record.items():
        if isinstance(rows, dict):
            lines += ["", f"{what:24} {'median':>9} {'quartiles':>19} {'minimum':>9}  ratio  of minima"]
            lines += [_row(name, row) for name, row in rows.items()]
    return lines


def _row(name: str, row: dict[str, float]) -> str:
    quartiles = f"{row['quartile1_ms']:.3f} .. {row['quartile3_ms']:.3f}"
    return (
        f"{name:24} {row['median_ms']:6.3f} ms {quartiles:>19} {row['minimum_ms']:6.3f} ms"
        f"  {row['ratio']:5.2f}  {row['ratio_of_minima']:9.2f}"
    )


if __name__ == "__main__":
    main()
