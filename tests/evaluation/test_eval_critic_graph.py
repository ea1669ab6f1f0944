"""Tests of critic updates in a CUDA graph: the plain update's numbers, from the same draws in the same order."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import chain
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from capturing import Capturable
from random_tensors import noise

from evaluation import Context, Settings, evaluate, neural_divergence
from evaluation.metrics.neural_divergence import critic
from evaluation.metrics.neural_divergence import graph as critic_graph
from evaluation.metrics.neural_divergence.critic import Noise, Training
from evaluation.metrics.neural_divergence.graph import WARMUP, CapturedUpdate
from evaluation.metrics.neural_divergence.images import critic_images
from evaluation.runtime.isolation import isolated
from evaluation.settings.presets import PRESETS, Preset

CPU = torch.device("cpu")
SMALL_WGAN_GP = replace(PRESETS["gulrajani2019"], channels=(16, 32), average_decay=0.9)
BOTH = pytest.mark.parametrize("preset", [PRESETS["srn2020"], SMALL_WGAN_GP], ids=["logistic", "wasserstein"])
Adam = torch.optim.Adam
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def training(preset: Preset, *, steps: int = 10, device: torch.device = CPU) -> Training:
    return Training(replace(preset, steps=steps, batch_size=8), (8, 8), "stream", device, loss_every=2)


def run(one: Training, count: int, *, chunk: int = 3) -> None:
    """Runs `count` steps in chunks, each with its own noise stream; batches depend on the step."""
    end = one.step + count
    while one.step < end:
        size = 8 * min(chunk, end - one.step)
        real, fake = (noise(size, seed).to(one.device) for seed in (2 * one.step, 2 * one.step + 1))
        one.run(real, fake)


def tensors(one: Training) -> list[torch.Tensor]:
    """Every tensor that an update changes."""
    entries = chain.from_iterable(entry.values() for entry in one.optimizer.state.values())
    return [*one.critic.parameters(), *one.average.parameters(), *entries]


def assert_same(one: Training, other: Training) -> None:
    assert one.step == other.step
    for ours, theirs in zip(tensors(one), tensors(other), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(one.loss_curve(), other.loss_curve())


class StandIns:
    """CPU stand-ins for torch.cuda in a capture: recorded operations run, are undone, and run again at each replay."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, failure: str = "") -> None:
        self.one: Training | None = None
        self.failure, self.replays = failure, 0
        stream = SimpleNamespace(wait_stream=lambda other: None)
        for name, value in {
            "CUDAGraph": lambda: SimpleNamespace(replay=self.replay),
            "Stream": lambda device: stream,
            "current_stream": lambda: stream,
            "stream": lambda stream: nullcontext(),
            "device": lambda device: nullcontext(),
            "graph": self.capture,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)

    def captured(self, one: Training) -> Training:
        """The same training with updates as on a CUDA device."""
        self.one, one.update = one, CapturedUpdate(one.plain_update, CPU)
        return one

    @contextmanager
    def capture(self, graph: Any, stream: Any) -> Iterator[None]:
        before = [tensor.detach().clone() for tensor in tensors(self.one)]
        yield
        with torch.no_grad():
            for tensor, value in zip(tensors(self.one), before, strict=True):
                tensor.copy_(value)
        if self.failure:
            raise RuntimeError(self.failure)

    def replay(self) -> None:
        self.replays += 1
        record = self.one.update._record
        record.loss.copy_(self.one.plain_update(record.inputs))


@BOTH
def test_replayed_updates_equal_plain_ones_bit_for_bit(preset: Preset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Covers several chunks with their own noise streams and a decaying learning rate."""
    stand_ins = StandIns(monkeypatch)
    plain, captured = training(preset), stand_ins.captured(training(preset))
    for one in (plain, captured):
        run(one, 10)
    assert_same(captured, plain)
    assert stand_ins.replays == 10 - WARMUP
    assert captured.update.name == "one CUDA graph per update"


@BOTH
def test_a_batch_of_another_size_goes_without_the_graph(preset: Preset, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins = StandIns(monkeypatch)
    plain, captured = training(preset), stand_ins.captured(training(preset))
    for one in (plain, captured):
        run(one, 5)
        one.run(noise(5, 90), noise(5, 91))
        run(one, 2)
    assert_same(captured, plain)
    assert stand_ins.replays == 7 - WARMUP


@BOTH
def test_a_failed_capture_goes_on_plainly_and_says_so(preset: Preset, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins = StandIns(monkeypatch, failure="no second derivatives here\nand more")
    plain, captured = training(preset), stand_ins.captured(training(preset))
    for one in (plain, captured):
        run(one, 10)
    assert_same(captured, plain)
    assert stand_ins.replays == 0
    assert captured.update.name == "plain updates: the capture failed (no second derivatives here)"


def test_the_operation_that_a_capture_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch reports the end of an interrupted capture; its cause is that error's context."""
    stand_ins = StandIns(monkeypatch)
    one = stand_ins.captured(training(PRESETS["srn2020"]))

    @contextmanager
    def broken(graph: Any, stream: Any) -> Iterator[None]:
        try:
            yield
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")

    def refuse(batch: critic_graph.Batch) -> torch.Tensor:
        raise RuntimeError("no item() while capturing")

    run(one, WARMUP)
    monkeypatch.setattr(torch.cuda, "graph", broken)
    plain_update, one.update.update = one.update.update, refuse
    with pytest.raises(RuntimeError, match="item"):
        run(one, 1)
    causes = "operation failed due to a previous error during capture, caused by: no item() while capturing"
    assert one.update.name == f"plain updates: the capture failed ({causes})"
    one.update.update = plain_update
    run(one, 1)


@BOTH
@pytest.mark.parametrize("done", [WARMUP, 6])
def test_a_restored_training_goes_on_bit_by_bit(preset: Preset, done: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves before and after the capture, and resumes with plain and with captured updates."""
    stand_ins = StandIns(monkeypatch)
    through = training(preset)
    run(through, 10)
    first = stand_ins.captured(training(preset))
    run(first, done)
    state = first.state()
    plain, captured = training(preset), stand_ins.captured(training(preset))
    for second in (plain, captured):
        second.restore(copy.deepcopy(state))
        run(second, 10 - done)
        assert_same(second, through)


def as_on_a_gpu(one: Training, monkeypatch: pytest.MonkeyPatch) -> Training:
    """Optimizer of a CUDA device, on the training's device."""

    def make_adam(parameters: Any, *, lr: torch.Tensor, fused: bool, **options: Any) -> torch.optim.Adam:
        optimizer = Adam(parameters, **options)
        optimizer.param_groups[0].update(lr=lr, fused=fused)  # the constructor would read the rate
        for parameter in optimizer.param_groups[0]["params"]:  # which a fused step refuses to create on the meta device
            moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
            optimizer.state[parameter] = {"step": torch.zeros((), device=one.device), **moments}
        return optimizer

    with monkeypatch.context() as patch:
        patch.setattr(critic.torch.optim, "Adam", make_adam)
        patch.setattr(
            critic.torch, "tensor", lambda value, dtype, device: torch.full((), value, dtype=dtype, device=one.device)
        )
        one.optimizer = critic.adam(one.critic, one.preset, torch.device("cuda"))
    return one


@BOTH
def test_a_gpus_optimizer_computes_the_cpus_up_to_rounding(preset: Preset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fused, with the learning rate in float32: 5 steps of 2e-4 agree within 1e-6."""
    plain, device = training(preset), as_on_a_gpu(training(preset), monkeypatch)
    address = device.optimizer.param_groups[0]["lr"].data_ptr()
    for _ in range(5):
        for one in (plain, device):
            run(one, 1)
        assert float(device.optimizer.param_groups[0]["lr"]) == pytest.approx(plain.optimizer.param_groups[0]["lr"])
    for ours, theirs in zip(device.critic.parameters(), plain.critic.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    again = as_on_a_gpu(training(preset), monkeypatch)
    again.restore(copy.deepcopy(device.state()))
    assert isinstance(again.optimizer.param_groups[0]["lr"], torch.Tensor)
    for one in (device, again):
        run(one, 3)
    assert_same(again, device)
    assert device.optimizer.param_groups[0]["lr"].data_ptr() == address, "a graph reads it there"


@BOTH
def test_an_update_can_be_captured(preset: Preset, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU: it reads no value, draws none, makes no tensor of host data, and replaces none of its tensors."""
    one = as_on_a_gpu(training(preset), monkeypatch)
    run(one, 1)
    addresses = [tensor.data_ptr() for tensor in tensors(one)]
    batch = one._drawn(noise(8, 0), noise(8, 1), Noise("noise", CPU))
    with Capturable(CPU) as operations:
        one.plain_update(batch)
    assert operations.counts["_fused_adam_"] == 1
    assert [tensor.data_ptr() for tensor in tensors(one)] == addresses


@BOTH
def test_all_tensors_of_an_update_are_on_the_device(
    preset: Preset, monkeypatch: pytest.MonkeyPatch, meta_device: torch.device
) -> None:
    """Covers drawing the noise; on the meta device in place of a GPU."""
    one = as_on_a_gpu(training(preset, device=meta_device), monkeypatch)
    real, fake = (noise(8, seed).to(meta_device) for seed in (0, 1))
    batch = one._drawn(real, fake, Noise("noise", meta_device))
    with Capturable(meta_device):
        one.plain_update(batch)


class Another(critic_graph.PlainUpdate):
    name = property(lambda self: "another way", lambda self, name: None)


def test_how_critics_were_updated_is_recorded_but_decides_no_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    context = Context(
        generated=noise(40, 0),
        test=noise(40, 1),
        settings=Settings(nd={"steps": 2, "num_samples": 16, "batch_size": 8, "num_critics": 1}),
    )
    plain = evaluate(["nd"], context).protocol["values"]
    monkeypatch.setattr(critic, "choose_update", lambda update, device: Another(update, ""))
    other = evaluate(["nd"], context).protocol["values"]
    for key, entry in plain.items():
        assert entry["record"]["updates"] == "plain updates: a CUDA graph needs a CUDA device, this is cpu"
        assert other[key]["record"]["updates"] == "another way"
        assert other[key]["hash"] == entry["hash"]


@pytest.mark.gpu
@needs_gpu
@BOTH
def test_on_a_gpu_replayed_updates_equal_plain_ones(preset: Preset) -> None:
    """Equal bit for bit with deterministic cuDNN, because the kernels and inputs are the same."""
    with isolated():
        device = torch.device("cuda")
        plain, captured = (training(preset, steps=40, device=device) for _ in range(2))
        plain.update = critic_graph.PlainUpdate(plain.plain_update, "for comparison")
        for one in (plain, captured):
            run(one, 40)
        assert captured.update.name == "one CUDA graph per update"
        assert_same(captured, plain)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@BOTH
def test_on_a_gpu_training_waits_for_nothing(preset: Preset) -> None:
    """Neither copying a chunk's images from the CPU nor updates synchronize with the device."""
    with isolated():
        device = torch.device("cuda")
        one = training(preset, steps=1000, device=device)
        run(one, 10)
        seen = critic_images(noise(100, 0), noise(100, 1), 0.0, None, 0, device)
        seen.batches(one.preset, "chunk", 0, one.generator)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for chunk in range(1, 4):
                one.run(*seen.batches(one.preset, "chunk", chunk, one.generator))
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@needs_gpu
@BOTH
def test_on_a_gpu_a_restored_training_goes_on_bit_by_bit(preset: Preset) -> None:
    """A restored training runs plain updates first where the original replayed its graph; both are equal."""
    with isolated():
        device = torch.device("cuda")
        first, second = (training(preset, steps=40, device=device) for _ in range(2))
        run(first, 12)
        second.restore(copy.deepcopy(first.state()))
        for one in (first, second):
            run(one, 12)
        assert_same(second, first)


@pytest.mark.gpu
@needs_gpu
def test_on_a_gpu_equal_seeds_give_equal_results() -> None:
    settings = {"steps": 60, "samples": 64, "batch_size": 8, "num_critics": 2, "device": "cuda"}
    one, other = (neural_divergence(noise(200, 0), noise(100, 1), **settings) for _ in range(2))
    assert one.critics == other.critics
    assert np.array_equal(one.losses, other.losses)
    assert one.updates == "one CUDA graph per update"
