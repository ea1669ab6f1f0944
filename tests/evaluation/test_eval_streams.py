"""Tests of evaluation.images.streams, and of feature passes of extractors that use it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from capturing import Capturable

from evaluation import Context, EvaluationError, Settings, Sources, build_extractor, evaluate
from evaluation.images import features as features_module
from evaluation.images.features import extract, extract_as_made
from evaluation.images.streams import ahead, upload
from gan.measuring.sampling import generated_batches
from gan.models import GENERATORS

CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Streams:
    """CPU stand-in for torch.cuda's streams that logs the order in which work is queued on each.

    The first that `ahead` makes is "side", the second "side 2".
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.made = 0
        self.current = self.stream("main")
        for name, value in {
            "Stream": self.another,
            "current_stream": lambda: self.current,
            "stream": self.entered,
            "device": lambda device: self.entered(self.current),
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)

    def note(self, what: str, stream: Any = None) -> None:
        self.log.append(f"{(stream or self.current).name}: {what}")

    def another(self, device: torch.device) -> Any:
        assert device == torch.device("cuda", 1)
        self.made += 1
        return self.stream("side" if self.made == 1 else f"side {self.made}")

    def stream(self, name: str) -> Any:
        stream: Any = type("Stream", (), {})()  # unlike a SimpleNamespace it can be a key
        stream.name, stream.device = name, torch.device("cuda", 1)
        stream.wait_stream = lambda other: self.note(f"wait for {other.name}", stream)
        stream.record_event = lambda: self.log[-1]
        stream.wait_event = lambda event: self.note(f"wait for {event}", stream)
        return stream

    @contextmanager
    def entered(self, stream: Any) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before


def made(streams: Streams, count: int) -> Iterator[torch.Tensor]:
    for number in range(count):
        streams.note(f"make {number}")
        yield torch.tensor(number)


def test_a_batch_is_made_while_the_one_before_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch b + 1 waits for the work queued before batch b is used, and for no later work.

    So whatever is made on the side stream may reuse the memory of batches that were used and freed before.
    """
    streams = Streams(monkeypatch)
    for batch in ahead(made(streams, 3), torch.device("cuda")):
        streams.note(f"use {int(batch)}")
    assert streams.log == [
        *("side: wait for main", "side: make 0"),
        *("side: wait for main", "side: make 1", "main: wait for side: make 0", "main: use 0"),
        *("side: wait for main", "side: make 2", "main: wait for side: make 1", "main: use 1"),
        *("side: wait for main", "main: wait for side: make 2", "main: use 2"),
    ]


def test_iterations_share_one_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other and in turn; one in the making of another's batches has a stream of its own."""
    streams, device = Streams(monkeypatch), torch.device("cuda")
    for _ in range(2):
        assert len(list(ahead(made(streams, 3), device))) == 3
    assert len(list(zip(ahead(made(streams, 2), device), ahead(made(streams, 2), device), strict=True))) == 2
    assert streams.made == 1
    streams.log.clear()
    list(ahead(ahead(made(streams, 1), device), device))
    assert streams.log == [
        *("side: wait for main", "side 2: wait for side", "side 2: make 0", "side 2: wait for side"),
        *("side: wait for side 2: make 0", "side: wait for main", "main: wait for side: wait for side 2: make 0"),
    ]


def test_nothing_to_make_is_nothing_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = Streams(monkeypatch)
    assert list(ahead(made(streams, 0), torch.device("cuda"))) == []


def test_an_error_in_the_making_leaves_the_stream_as_it_was() -> None:
    def failing() -> Iterator[torch.Tensor]:
        yield torch.tensor(0)
        raise EvaluationError("no more")

    with pytest.raises(EvaluationError, match="no more"):
        list(ahead(failing(), CPU))


def test_on_a_cpu_a_batch_is_made_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = Streams(monkeypatch)
    for batch in ahead(made(streams, 2), CPU):
        streams.note(f"use {int(batch)}")
    assert streams.log == ["main: make 0", "main: use 0", "main: make 1", "main: use 1"]


@pytest.mark.parametrize("held", [1, 30, 4096])
def test_features_do_not_depend_on_how_many_are_held(
    held: int, monkeypatch: pytest.MonkeyPatch, drawn: Any, classifier: Any
) -> None:
    images = drawn(100, seed=3)[0]
    expected = classifier(images[:40]), classifier(images[40:80]), classifier(images[80:])
    monkeypatch.setattr(features_module, "HELD", held)
    got = extract(images, classifier, batch_size=40, device="cpu")
    assert torch.equal(got.features, torch.cat([features for features, _ in expected]))
    assert torch.equal(got.logits, torch.cat([logits for _, logits in expected]))


def test_features_of_images_as_they_are_made_are_those_of_the_made_images(
    drawn: Any, classifier: Any, pixels: Any
) -> None:
    images = drawn(90, seed=4)[0]
    got, features = extract_as_made(iter(images.split(40)), [classifier, pixels], count=90, device="cpu")
    assert torch.equal(got, images)
    for found, extractor in zip(features, (classifier, pixels), strict=True):
        expected = extract(images, extractor, batch_size=40, device="cpu")
        assert torch.equal(found.features, expected.features)
        assert (found.logits is None) == (expected.logits is None)
        assert found.logits is None or torch.equal(found.logits, expected.logits)


def test_images_seen_as_they_are_made_give_the_report_of_made_images(drawn: Any, classifier: Any) -> None:
    """Values and hashes are equal, and no image passes through the extractor twice."""
    seen: list[int] = []

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(classifier, name)

        def __call__(self, images: torch.Tensor) -> Any:
            seen.append(len(images))
            return classifier(images)

    images, labels = drawn(120, seed=5)
    settings = Settings(num_real=100, num_fid=100, num_is=120, is_splits=2, batch_size=50, floor=False)
    real = Context(reference=drawn(100, seed=6)[0], extractor=Counting(), settings=settings)
    whole = evaluate(["fid", "is"], real.of(images, labels))
    seen.clear()
    context = real.of_batches(iter(images.split(50)), labels, count=120)
    assert seen == [50, 50, 20]
    batchwise = evaluate(["fid", "is"], context)
    assert seen == [50, 50, 20]
    assert batchwise.values == pytest.approx(whole.values, rel=1e-6)
    for key, entry in whole.protocol["values"].items():
        assert batchwise.protocol["values"][key]["hash"] == entry["hash"]
    assert torch.equal(context.labels("generated", 120), labels)


@pytest.mark.parametrize("extractor", ["inception", "pixels"])
def test_a_batch_is_generated_and_seen_without_waiting(
    extractor: str, inception_file: Path, meta_device: torch.device
) -> None:
    """On the meta device in place of a GPU: all tensors are on it, and no value is read."""
    network = build_extractor(extractor, Sources(weights=inception_file, device=meta_device))
    generator = GENERATORS["resnet"](image_size=32, z_dim=8, channels=4, num_classes=2).to(meta_device)
    latents, labels = torch.zeros(4, 8, device=meta_device), torch.zeros(4, dtype=torch.int64, device=meta_device)
    batches = generated_batches(generator, latents, labels, batch_size=2, device=meta_device)
    with Capturable(meta_device, host_scalars=True) as operations, torch.inference_mode():
        images = next(batches)
        features, logits = network(images)
    assert (images.shape, images.dtype) == ((2, 3, 32, 32), torch.uint8)
    assert features.shape[0] == 2
    assert (logits is None) == (extractor == "pixels")
    assert operations.counts["tanh"] == 1


@pytest.mark.gpu
@needs_gpu
def test_on_a_gpu_batches_arrive_whole(drawn: Any, pixels: Any) -> None:
    """Batches are made by slow kernels on another stream, and their memory is freed after use."""
    images = drawn(400, seed=7)[0]

    def batches() -> Iterator[torch.Tensor]:
        for part in images.split(40):
            slow = torch.rand(2000, 2000, device="cuda")
            for _ in range(20):
                slow = slow @ slow / 1000
            yield part.cuda() + (slow.sum() * 0).nan_to_num().to(torch.uint8)

    got, (features,) = extract_as_made(batches(), [pixels], count=400, device="cuda")
    assert torch.equal(got, images)
    expected = extract(images, pixels, batch_size=40, device="cpu")
    torch.testing.assert_close(features.features, expected.features)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_on_a_gpu_a_pass_waits_only_for_its_results(drawn: Any, pixels: Any) -> None:
    """Neither copying batches of host images to the device nor extracting their features waits; the end does."""
    on_device, on_host = (drawn(400, seed=seed)[0] for seed in (8, 9))
    on_device = on_device.cuda()

    def batches() -> Iterator[torch.Tensor]:
        torch.cuda.set_sync_debug_mode("error")
        yield from on_device.split(40)
        yield from (upload(batch, torch.device("cuda")) for batch in on_host.split(40))
        torch.cuda.set_sync_debug_mode("default")

    try:
        images, (features,) = extract_as_made(batches(), [pixels], count=800, device="cuda")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(images, torch.cat([on_device.cpu(), on_host]))
    assert len(features.features) == 800
