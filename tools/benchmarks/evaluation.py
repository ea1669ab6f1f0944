"""Time of evaluation, compared with torch-fidelity and pytorch-fid: features, FID and IS end to end, critics."""

import importlib.util
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import torch
import torch_fidelity
import torchvision
from torch import Tensor, nn
from torch.utils.data import Dataset
from torch_fidelity import feature_extractor_inceptionv3
from torch_fidelity.metric_fid import fid_statistics_to_metric

from benchmarks.timing import Record, Rows, add_whole_run, finish, interleave, shared_options, start, summarize
from evaluation import Context, Moments, Report, Settings, Sources, build_extractor, evaluate, frechet_distance
from evaluation.metrics.neural_divergence.critic import Training
from evaluation.runtime.command import CheckedCommand
from evaluation.runtime.isolation import isolated
from evaluation.settings.presets import PRESETS

FIDELITY = "torch-fidelity"
PYTORCH_FID = "pytorch-fid"
WHOLE_RUN = 100_000
"""Critic updates of the paper's Neural Divergence."""
FEATURE_BATCH = 250
"""Images per forward pass of the features alone."""
INCEPTION_LAYERS = ["2048", "logits_unbiased"]


@click.command("evaluate", cls=CheckedCommand)
@click.option("--images", type=click.IntRange(20), default=64, help="Number of generated images and of real ones.")
@click.option("--dimensions", type=click.IntRange(1), default=2048, help="Dimensions of the Fréchet distance.")
@click.option("--nd/--no-nd", default=False, help="Also time critics of Neural Divergence.")
@click.option("--nd-steps", type=click.IntRange(1), default=5, help="Critic updates per timed round.")
@click.option("--peer/--no-peer", default=True, help="Compare with pytorch-fid if it is installed.")
@shared_options(repeats=3)
def measure_evaluate(
    images: int,
    dimensions: int,
    nd: bool,
    nd_steps: int,
    peer: bool,
    repeats: int,
    threads: int,
    device: str,
    json_path: Path | None,
) -> Record:
    """Time Inception features, FID and IS end to end, and the Fréchet distance alone, against torch-fidelity.

    All use the same images and seeded random Inception weights. Features: in batches of 250. End to end: loading the
    network, features and both values; pytorch-fid reads PNG files and has no IS. Fréchet distance: moments of 10,000
    and 5,000 features; "cached" reuses results for the first set, as in training.
    """
    measured = f"fid,is of {images} against {images} images of 32x32; Fréchet distance in {dimensions} dimensions"
    record = start(measured, repeats, threads, device)
    measure = partial(interleave, repeats=repeats, device=device, warm=1)
    with tempfile.TemporaryDirectory() as folder:
        weights = random_inception(Path(folder) / "inception.pth")
        both = random_images(images)
        features, whole = feature_runs(both[0], weights, device), end_to_end_runs(both, weights, device)
        if peer and importlib.util.find_spec("pytorch_fid") is not None:
            features |= {PYTORCH_FID: _pytorch_fid_features(both[0], weights, device)}
            whole |= {f"{PYTORCH_FID}, fid alone": _pytorch_fid_from_files(both, Path(folder), weights, device)}
        record["Inception features"] = summarize(measure(features), images, "images")
        record["fid,is end to end"] = summarize(measure(whole))
    record["Fréchet distance"] = summarize(measure(_frechet_steps(dimensions)))
    if nd:
        record["Neural Divergence"] = _critic_steps(nd_steps, repeats, device)
    return finish(record, json_path)


def random_images(count: int) -> Tensor:
    """Two seeded sets of random images, uint8 (2, count, 3, 32, 32)."""
    return torch.randint(0, 256, (2, count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def random_inception(file: Path) -> Path:
    """Writes seeded He-initialized weights for torch-fidelity's network; returns the file."""
    nothing_to_load: Any = patch.object(feature_extractor_inceptionv3, "load_state_dict_from_url", lambda *_, **__: {})
    with nothing_to_load, patch.object(nn.Module, "load_state_dict", lambda *_, **__: None):
        torch.manual_seed(0)
        network = feature_extractor_inceptionv3.FeatureExtractorInceptionV3("inception-v3-compat", INCEPTION_LAYERS)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    torch.save(network.state_dict(), file)
    return file


class _Images(Dataset[Tensor]):
    """Data set of uint8 images for torch-fidelity."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def end_to_end_runs(both: Tensor, weights: Path, device: str) -> dict[str, Callable[[], Any]]:
    """Functions that compute FID and IS of the first set against the second, from loading the network on."""
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


def _frechet_steps(dimensions: int) -> dict[str, Callable[[], Any]]:
    random = torch.Generator().manual_seed(0)
    scales = torch.logspace(0, -3, dimensions)
    features = [torch.randn(count, dimensions, generator=random).abs() * scales for count in (10_000, 5_000)]
    real, fake = (Moments.of(one) for one in features)
    theirs = [{"mu": moments.mean.numpy(), "sigma": moments.covariance.numpy()} for moments in (real, fake)]

    def fresh() -> float:
        return frechet_distance(Moments(real.mean, real.covariance, real.count), fake)

    return {
        FIDELITY: lambda: fid_statistics_to_metric(*theirs, False),
        "ours": fresh,
        "ours, cached": lambda: frechet_distance(real, fake),
    }


def feature_runs(images: Tensor, weights: Path, device: str) -> dict[str, Callable[[], Any]]:
    """Functions that compute Inception's features of images that are on the device already."""
    theirs = feature_extractor_inceptionv3.FeatureExtractorInceptionV3(
        "inception-v3-compat", INCEPTION_LAYERS, feature_extractor_weights_path=str(weights)
    ).to(device)
    ours = build_extractor("inception", Sources(device=device, weights=weights))
    batches = images.to(device).split(FEATURE_BATCH)
    return {
        FIDELITY: torch.inference_mode()(lambda: [theirs(batch) for batch in batches]),
        "ours": isolated()(torch.inference_mode()(lambda: [ours(batch) for batch in batches])),
    }


def _with_weights(weights: Path) -> Any:
    """Context manager: pytorch-fid loads these weights instead of downloading its own."""
    from pytorch_fid import inception

    state = {name: value for name, value in torch.load(weights).items() if not name.startswith("feature_extractor_")}
    return patch.object(inception, "load_state_dict_from_url", lambda *_, **__: state)


def _pytorch_fid_features(images: Tensor, weights: Path, device: str) -> Callable[[], Any]:
    from pytorch_fid.inception import InceptionV3

    with _with_weights(weights):
        network = InceptionV3([InceptionV3.BLOCK_INDEX_BY_DIM[2048]]).to(device).eval()
    batches = images.to(device).split(FEATURE_BATCH)
    return torch.inference_mode()(lambda: [network(batch.float() / 255) for batch in batches])


def _pytorch_fid_from_files(both: Tensor, folder: Path, weights: Path, device: str) -> Callable[[], float]:
    from pytorch_fid import fid_score

    folders = []
    for name, images in zip(("generated", "real"), both, strict=True):
        folders.append(folder / name)
        folders[-1].mkdir()
        for index, image in enumerate(images):
            torchvision.io.write_png(image, str(folders[-1] / f"{index}.png"))

    def measure() -> float:
        with _with_weights(weights), patch.object(fid_score, "tqdm", lambda batches: batches):
            return float(fid_score.calculate_fid_given_paths([*map(str, folders)], 50, device, 2048, num_workers=0))

    return measure


def _critic_steps(steps: int, repeats: int, device: str) -> Rows:
    """One row per preset; their critics differ, so the ratios mean little."""
    variants = {}
    for name, preset in PRESETS.items():
        training = Training(preset, (32, 32), "benchmark", torch.device(device), loss_every=100)
        images = torch.randint(0, 256, (steps * preset.batch_size, 3, 32, 32), dtype=torch.uint8, device=device)
        variants[f"{name}, {steps} steps"] = isolated()(partial(training.run, images, images.flip(0)))
    rows = summarize(interleave(variants, repeats, device, warm=1), steps, "iterations")
    add_whole_run(rows, WHOLE_RUN, calls=steps)
    return rows
