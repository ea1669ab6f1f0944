"""How long things take, in one process, one after the other in turn, so that a busy machine slows all of them alike.

python tools/benchmark.py normalize
python tools/benchmark.py normalize --layout contiguous --json normalize.json
python tools/benchmark.py evaluate --images 64
"""

import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import torch
import torch_fidelity
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.data import Dataset
from torch_fidelity import feature_extractor_inceptionv3
from torch_fidelity.metric_fid import fid_statistics_to_metric

from evaluation import Context, Moments, Report, Settings, Sources, build_extractor, evaluate, frechet_distance
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
FIDELITY = "torch-fidelity"
INCEPTION_LAYERS = ["2048", "logits_unbiased"]


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


@main.command("evaluate")
@click.option("--images", type=click.IntRange(20), default=64, help="Generated images, and as many real ones.")
@click.option("--repeats", type=click.IntRange(2), default=3, help="Timed rounds; each runs every variant once.")
@click.option("--threads", type=click.IntRange(1), default=1, help="Of torch, on the CPU.")
@click.option("--device", default="cpu")
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures here too."
)
def measure_evaluate(images: int, repeats: int, threads: int, device: str, json_path: Path | None) -> None:
    """FID and IS end to end, and the last step of FID alone, against torch-fidelity's.

    End to end: the same images and seeded random Inception weights, the network read from its file, features and
    both values. Fréchet distance: two sets of 2048-dimensional moments of 10,000 and 5,000 features; "cached" has met
    the first set before, as in training.
    """
    torch.set_num_threads(threads)
    record = {
        "measured": f"fid,is of {images} against {images} images of 32x32; Fréchet distance in 2048 dimensions",
        "repeats": repeats,
        **machine(device),
    }
    with tempfile.TemporaryDirectory() as folder:
        weights = random_inception(Path(folder) / "inception.pth")
        both = torch.randint(
            0, 256, (2, images, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
        )
        record["fid,is end to end"] = summarize(interleave(_end_to_end(both, weights, device), repeats, device, warm=1))
    record["Fréchet distance"] = summarize(interleave(_frechet_steps(), repeats, device, warm=1))
    if json_path is not None:
        json_path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    click.echo("\n".join(_table(record)))


def random_inception(file: Path) -> Path:
    """Weights of torch-fidelity's own network from a seed, He-initialised; writes and returns the file."""
    nothing_to_load = patch.object(feature_extractor_inceptionv3, "load_state_dict_from_url", lambda *_, **__: {})
    with nothing_to_load, patch.object(nn.Module, "load_state_dict", lambda *_, **__: None):
        torch.manual_seed(0)
        network = feature_extractor_inceptionv3.FeatureExtractorInceptionV3("inception-v3-compat", INCEPTION_LAYERS)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    torch.save(network.state_dict(), file)
    return file


class _Images(Dataset[Tensor]):
    """One uint8 tensor for each image, as torch-fidelity wants them."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def _end_to_end(both: Tensor, weights: Path, device: str) -> dict[str, Callable[[], Any]]:
    generated, real = both
    count = len(generated)
    settings = Settings(num_real=count, num_fid=count, num_is=count, floor=False)

    def ours() -> Report:
        extractor = build_extractor("inception", Sources(device=device, weights=weights))
        context = Context(generated=generated, reference=real, extractor=extractor, settings=settings, device=device)
        return evaluate(["fid", "is"], context)

    def theirs() -> dict[str, float]:
        return dict(
            torch_fidelity.calculate_metrics(
                input1=_Images(generated),
                input2=_Images(real),
                cuda=torch.device(device).type == "cuda",
                isc=True,
                fid=True,
                batch_size=settings.batch_size,
                cache=False,
                save_cpu_ram=True,
                verbose=False,
                feature_extractor_weights_path=str(weights),
            )
        )

    return {FIDELITY: theirs, "ours": ours}


def _frechet_steps() -> dict[str, Callable[[], Any]]:
    random = torch.Generator().manual_seed(0)
    scales = torch.logspace(0, -3, 2048)
    features = [torch.randn(count, 2048, generator=random).abs() * scales for count in (10_000, 5_000)]
    real, fake = (Moments.of(one) for one in features)
    theirs = [{"mu": moments.mean.numpy(), "sigma": moments.covariance.numpy()} for moments in (real, fake)]

    def fresh() -> float:
        return frechet_distance(Moments(real.mean, real.covariance, real.count), fake)

    return {
        FIDELITY: lambda: fid_statistics_to_metric(*theirs, False),
        "ours": fresh,
        "ours, cached": lambda: frechet_distance(real, fake),
    }


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


def interleave(
    variants: dict[str, Callable[[], Any]], repeats: int, device: str, warm: int = 3
) -> dict[str, list[float]]:
    """Seconds of each variant, A B C A B C ..., after `warm` rounds that do not count."""
    wait = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for index in range(-warm, repeats):
        for name, run in variants.items():
            wait()
            start = time.perf_counter()
            run()
            wait()
            if index >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def summarize(seconds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median, quartiles and minimum in milliseconds, and their ratios to those of the first variant, the reference."""
    first = next(iter(seconds.values()))
    reference = statistics.median(first)
    rows = {}
    for name, values in seconds.items():
        low, middle, high = statistics.quantiles(values, n=4)
        figures = {"median_ms": middle, "quartile1_ms": low, "quartile3_ms": high, "minimum_ms": min(values)}
        rows[name] = {key: round(1000 * value, 4) for key, value in figures.items()}
        rows[name]["ratio"] = round(middle / reference, 3)
        rows[name]["ratio_of_minima"] = round(min(values) / min(first), 3)
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
