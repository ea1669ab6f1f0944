"""Tests of what waits for a GPU: an update never, a log line once for each of its parts."""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from gan.build import build_loss, build_state
from gan.config import load_config
from gan.config.classifier import ClassifierTrainSettings
from gan.data import Batches, ImageData
from gan.measuring.sampling import standing_statistics
from gan.models.classifiers import ResNet
from gan.normalization import normalize, spectra
from gan.normalization.spectrum import on_host
from gan.runtime.distributed import Processes
from gan.training.classifier import ClassifierTrainer
from gan.training.health import all_finite
from gan.training.log import Log
from gan.training.state import ClassifierState
from gan.training.trainer import Trainer

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture
def fake_gpu() -> Iterator[None]:
    """Makes tensors without values, on any device."""
    with FakeTensorMode():
        yield


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_weight_that_is_not_finite_is_found(value: float) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(4, 2))
    assert all_finite(network)
    network[2].weight.data[1, 3] = value
    assert not all_finite(network)


def test_weights_are_copied_to_the_host_in_their_memory_order(fake_gpu: None) -> None:
    weights = [
        torch.empty(4, 3, 3, 3, device="cuda").to(memory_format=torch.channels_last),
        torch.empty(5, 2, device="cuda").t(),
        torch.empty((), dtype=torch.int64, device="cuda"),
        torch.empty(3),
    ]
    for weight, copy in zip(weights, on_host(weights), strict=True):
        assert copy.device.type == "cpu"
        assert (copy.shape, copy.stride(), copy.dtype) == (weight.shape, weight.stride(), weight.dtype)


def test_batch_norm_of_several_processes_on_a_gpu_is_not_torchs(fake_gpu: None) -> None:
    """SyncBatchNorm reads on the host, in every pass, how many rows each process has."""
    network = nn.Sequential(nn.Conv2d(3, 4, 1, device="cuda"), nn.BatchNorm2d(4, device="cuda"))
    both = Processes(count=2).synchronized(network)
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in both.modules())


@contextmanager
def no_wait() -> Iterator[None]:
    """Context manager: an operation that waits for the GPU raises."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def update_of_a_classifier() -> Callable[[], object]:
    settings = ClassifierTrainSettings(epochs=3, milestones=(1, 2), batch_size=8)
    network = normalize(ResNet(2, 8, 4), "srn", c=0.3).to("cuda")
    return ClassifierTrainer(ClassifierState.begin(network, settings, 2), images(), settings, batched=True).train_step


def batch_from_the_host() -> Callable[[], object]:
    batches = Batches(images(), 8, seed=0, device="cuda", flip=True, resident_bytes=0)
    return lambda: batches.batch(0)


def batch_norm_statistics() -> Callable[[], object]:
    config = load_config("smoke", ["conditional=true"])
    state = build_state(config, "cuda", num_classes=4)

    def compute() -> None:
        with standing_statistics(state.generator, config, 4, "cuda"):
            pass

    return compute


def images() -> ImageData:
    return ImageData(torch.zeros(20, 3, 32, 32, dtype=torch.uint8), torch.arange(20) % 2, ("a", "b"), "folder", "train")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("prepare", [update_of_a_classifier, batch_from_the_host, batch_norm_statistics])
def test_on_a_gpu_these_never_wait(
    prepare: Callable[[], Callable[[], object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gan.measuring.sampling.STANDING_BATCHES", 2)
    run = prepare()
    run()
    with no_wait():
        run()


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("choice", ["sn", "srn", "bssn"])
def test_on_a_gpu_spectra_are_those_of_the_host(choice: str) -> None:
    network = build_state(load_config("smoke", [f"discriminator.normalization={choice}"])).discriminator
    expected = spectra(network)
    for one, other in zip(spectra(network.to("cuda")), expected, strict=True):
        for value, wanted in zip(one, other, strict=True):
            assert value == (pytest.approx(wanted, rel=1e-5) if isinstance(wanted, float) else wanted)


@pytest.mark.gpu
@needs_gpu
def test_on_a_gpu_a_log_line_waits_once_for_each_part() -> None:
    """The means, the weights of each network, the spectra and the size of the gradients."""
    config = load_config("smoke", ["discriminator.normalization=srn"])
    batches = Batches(images(), config.train.batch_size, seed=0, device="cuda")
    trainer = Trainer(
        build_state(config, "cuda"), batches, build_loss(config), config.train, z_dim=config.generator.z_dim
    )
    for _ in range(2):
        trainer.train_step()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            trainer._log_line(Log())
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert sum("called a synchronizing" in str(warning.message) for warning in caught) == 5
